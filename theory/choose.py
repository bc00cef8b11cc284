"""Which step, and how few bits."""

import jax.numpy as jnp
import numpy as np

from theory import binary, calibrated, components, multiclass
from theory.setting.errors import InputError
from theory.setting.files import Features
from theory.setting.precision import in_float64
from theory.setting.problem import Problem, margin

COARSE, FINE, BEST = 64, 1024, 24  # points for all layers, for the best of them, and how many those are
LAYERS = 32  # a compiled call


@in_float64
def distortions(subject: Problem | Features, layers: np.ndarray) -> np.ndarray:
    """(B,) predicted distortions of known layers (B, rows, d) of one problem, good enough to choose the least: of more than two
    classes by orthants at common points, few for all layers and more for the best of them.

    Raises:
        InputError: features without labels, whose temperature is not known.
    """
    if isinstance(subject, Features):
        if not subject.labelled:
            raise InputError("labels: missing, expected of features whose least distortion is asked for")
        given = calibrated.posteriors(subject, calibrated.calibrate(subject.head_logits(), subject.labels))
        return np.array([float(given.count(What).distortion @ given.priors) for What in layers])
    if subject.components is not None:
        parts = [layers[i : i + LAYERS] for i in range(0, len(layers), LAYERS)]
        changes = [change for part in parts for change in components.known(subject, part, seed=0)[0]]
        return np.array([float(change.distortion @ subject.priors) for change in changes])
    if subject.classes == 2:
        return _two(subject, layers)
    if not multiclass.has_orthants(subject):
        return np.concatenate([_lines(subject, layers[i : i + LAYERS]) for i in range(0, len(layers), LAYERS)])
    found = _orthants(subject, layers, COARSE)
    best = np.sort(np.argsort(found, kind="stable")[:BEST])
    out = np.full(len(layers), np.inf)
    out[best] = _orthants(subject, layers[best], FINE)
    return out


def _two(problem: Problem, layers: np.ndarray) -> np.ndarray:
    from theory.binary import pair_of

    pair = pair_of(problem)
    at = binary.margin(pair)
    out = []
    for What in layers:
        w, _ = margin(What, problem.bias)
        by = binary.change(pair, w - pair.w, jnp.zeros(()))
        out.append(float(np.asarray(binary.class_distortion(at, by, binary.margin(pair._replace(w=w)))) @ pair.priors))
    return np.array(out)


def _orthants(problem: Problem, layers: np.ndarray, n: int) -> np.ndarray:
    found = []
    for i in range(0, len(layers), LAYERS):
        some = layers[i : i + LAYERS]
        full = np.concatenate([some, np.repeat(problem.weights[None], LAYERS - len(some), 0)])  # one compiled shape
        replicates = multiclass.orthants(multiclass.laws_of(problem, full), n=n, seed=0)
        found.append(((replicates[:, :1] - replicates[:, 1:]).mean(0) @ problem.priors)[: len(some)])
    return np.concatenate(found)


def _lines(problem: Problem, layers: np.ndarray) -> np.ndarray:
    return np.array([float(c.distortion @ problem.priors) for c in multiclass.known(problem, layers, method="lines", seed=0)])
