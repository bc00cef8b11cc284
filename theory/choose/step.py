"""Which step: that of least predicted distortion, or of least squared error."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from theory import calibration
from theory.budget import DEFAULT, Budget
from theory.integrals import mixtures, two_classes
from theory.integrals.contrasts import has_orthants, laws_of, orthants
from theory.integrals.line_averages import SETS, known_lines
from theory.setting.errors import InputError
from theory.setting.features import Features
from theory.setting.plan import ROUNDING, Plan, TensorPlan, least_squares_step
from theory.setting.precision import in_float64
from theory.setting.problem import Problem, margin
from theory.setting.schemes import SCHEMES
from theory.setting.schemes.uniform import MAX_ABS_PARTS

COARSE, FINE, BEST = 64, 1024, 24  # points for all layers, for the best of them, and how many those are
LAYERS = 32  # a compiled call
FEW = 16  # layers held at once of networks with features, which can be large


def with_chosen_steps(
    plans: Sequence[Plan], subject: Problem | Features, temperature: float | None = None, *, budget: Budget = DEFAULT
) -> list[Plan]:
    """The plans, with the step chosen where a tensor's scheme leaves it open.

    Args:
        plans: one a width. subject: the problem or features as the compressed layer meets them. temperature: of the posteriors
            by which features say the distortion of a step, None to fit it to their labels.

    Raises:
        InputError: features without labels, whose temperature is not known.
    """
    cost = LayerCost(subject, temperature, budget)
    return [replace(plan, tensors={name: _chosen(one, cost) for name, one in plan.tensors.items()}) for plan in plans]


def _chosen(plan: TensorPlan, cost: "LayerCost") -> TensorPlan:
    if SCHEMES[plan.scheme].option("step") is None or "step" in plan.options:
        return plan
    return plan.with_option("step", best_step(plan, cost))


class LayerCost:
    """What layers of one subject cost; features are calibrated once."""

    def __init__(self, subject: Problem | Features, temperature: float | None, budget: Budget):
        self.subject, self.temperature, self.budget = subject, temperature, budget
        self.posteriors: calibration.Posteriors | None = None

    def distortions(self, layers: np.ndarray) -> np.ndarray:
        """(B,) predicted distortions of known layers (B, rows, d)."""
        if isinstance(self.subject, Problem):
            return distortions(self.subject, layers, budget=self.budget)
        if self.posteriors is None:
            self.posteriors = _posteriors(self.subject, self.temperature)
        return _counted(self.posteriors, layers)


def best_step(plan: TensorPlan, cost: LayerCost) -> int:
    """The step in 256ths of the max-abs step: the largest one of the least predicted distortion or squared error."""
    weights, parts = cost.subject.weights, range(1, MAX_ABS_PARTS + 1)
    if plan.options.get("criterion") == "mse":
        return least_squares_step(plan, weights)

    def layer(part: int) -> np.ndarray:
        return plan.with_option("step", part).compress(weights).weights

    some = FEW if isinstance(cost.subject, Features) else len(parts)
    slabs = [parts[i : i + some] for i in range(0, len(parts), some)]
    costs = np.concatenate([cost.distortions(np.stack([layer(part) for part in slab])) for slab in slabs])
    alike = costs <= costs.min() + ROUNDING
    return parts[int(np.flatnonzero(alike)[-1])]


def _posteriors(features: Features, temperature: float | None) -> calibration.Posteriors:
    if temperature is None and not features.labelled:
        raise InputError("labels: missing, expected of features whose least distortion is asked for (or a temperature)")
    return calibration.posteriors(features, calibration.calibration_of(features, temperature))


def _counted(posteriors: calibration.Posteriors, layers: np.ndarray) -> np.ndarray:
    return np.array([float(posteriors.count(What).distortion @ posteriors.priors) for What in layers])


@in_float64
def distortions(problem: Problem, layers: np.ndarray, *, budget: Budget = DEFAULT) -> np.ndarray:
    """(B,) predicted distortions of known layers (B, rows, d) of one problem, good enough to choose the least: of more than two
    classes by orthants at common points, of mixtures along common lines, few for all layers and more for the best of them."""
    if problem.components is None and problem.classes == 2:
        return _two(problem, layers)
    if problem.components is None and not has_orthants(problem):
        slabs = [layers[i : i + LAYERS] for i in range(0, len(layers), LAYERS)]
        return np.concatenate([_lines(problem, slab, budget) for slab in slabs])
    values = _orthants if problem.components is None else _components
    found = values(problem, layers, COARSE, budget)
    order = np.lexsort((-np.arange(len(layers)), np.round(found, 13)))  # of equal ones the last
    best = np.sort(order[:BEST])
    out = np.full(len(layers), np.inf)
    out[best] = values(problem, layers[best], FINE, budget)
    return out


def _two(problem: Problem, layers: np.ndarray) -> np.ndarray:
    pair = two_classes.pair_of(problem)
    at = two_classes.margin(pair)
    margins = [margin(What, problem.bias)[0] for What in layers]
    return np.array([float(two_classes.known(pair, at, w).distortion @ pair.priors) for w in margins])


def _orthants(problem: Problem, layers: np.ndarray, n: int, budget: Budget) -> np.ndarray:
    found = []
    for i in range(0, len(layers), LAYERS):
        some = layers[i : i + LAYERS]
        full = np.concatenate([some, np.repeat(problem.weights[None], LAYERS - len(some), 0)])  # one compiled shape
        replicates = orthants(laws_of(problem, full), n=n, seed=0)
        found.append(((replicates[:, :1] - replicates[:, 1:]).mean(0) @ problem.priors)[: len(some)])
    return np.concatenate(found)


def _components(problem: Problem, layers: np.ndarray, n: int, budget: Budget) -> np.ndarray:
    sets = 1 if n == COARSE else SETS
    parts = [layers[i : i + LAYERS] for i in range(0, len(layers), LAYERS)]
    return np.concatenate([mixtures.distortions(problem, part, sets=sets, seed=0, budget=budget) for part in parts])


def _lines(problem: Problem, layers: np.ndarray, budget: Budget) -> np.ndarray:
    return np.array([float(one.distortion @ problem.priors) for one in known_lines(problem, layers, seed=0, budget=budget)])
