"""``simulate linearize``: what errors of every tensor of a real network do to its logits, to first order, image by image."""

import datetime
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import softmax

from simulate.networks.batch_norm import folded
from simulate.networks.disturbed import Replaced, input_ranges, logits_of
from simulate.networks.inputs import Division, Inputs, division, labels_of, preprocessing_of, read_inputs
from simulate.networks.jacobians import (
    MOST_JACOBIAN,
    Trace,
    Weight,
    entering_gradients,
    entering_of,
    jacobian,
    row_grams,
    shifts,
    weights_of,
)
from simulate.networks.network import NAMES
from simulate.networks.posteriors import fitted_scale
from simulate.networks.torch_networks import TorchClassifier, open_classifier
from theory.setting.archive import check_place
from theory.setting.checks import seed_of, whole
from theory.setting.command_line import progress, say
from theory.setting.errors import InputError
from theory.setting.files import write_noise
from theory.setting.noise import SCALES, Noise, Tensors, noise_ratio
from theory.setting.problem import decide
from theory.setting.record import version
from theory.setting.schemes import SCHEMES
from theory.setting.schemes.uniform import MAX_ABS_PARTS, Uniform

MOST_DRAWS = 4096
REFERENCE_BITS, GAIN_IMAGES = 5, 64  # at which, and on how many images, the gain of each draw is seen
ALL_CANDIDATES, FEWEST_CANDIDATES = 16, 8  # classes up to which all logits are followed; and how many at least of more
LEFT_OUT = 1e-3  # mean posterior of the classes that are not followed, at most


def linearize(
    *,
    network: str,
    checkpoint: Path | str | None = None,
    data: Path | str,
    out: Path | str | None = None,
    split: str = "test",
    limit: int | None = None,
    calibrate: int | None = None,
    draws: int = 32,
    fold: bool = False,
    output: str | None = None,
    seed: int = 0,
    **preprocessing: Any,
) -> Noise:
    """Follow, to first order, what errors of every weight do to the logits of every image.

    Args:
        network, checkpoint, data, split, output, preprocessing: as :func:`simulate.extract`; PyTorch networks.
        out: where to write the noise file, if anywhere.
        limit: only the first images of those that do not calibrate.
        calibrate: the last images of the split, left out here (default 2,000, at most half).
        draws: errors of every tensor, common to all images, whose first-order shifts are kept. seed: of these.
        fold: whether batch norms are first folded into the weights that they follow.

    Returns:
        Logits, labels, Gram matrices of each weight and the shifts of the draws.

    Raises:
        InputError: images or network that can't be read, no convolution or linear layer, logits that are not finite.
    """
    draws, seed = whole("draws", draws, 2, MOST_DRAWS + 1), seed_of(seed)
    shaping = preprocessing_of(preprocessing, known=network in NAMES)
    if out is not None:
        check_place(out, ".npz", reads=[checkpoint, network, shaping.labels, shaping.class_index])
    inputs = read_inputs(Path(data), split, None, shaping)
    images = division(len(inputs.images.labels), calibrate, limit)
    classifier = open_classifier(network, checkpoint, inputs.sample, inputs.classes, output)
    with folded(classifier, inputs.sample(classifier.channels)) if fold else nullcontext():
        noise, n = replace(_followed(classifier, inputs, images, draws, seed), fold=fold), images.evaluated
    accuracy = float(np.mean(decide(noise.logits) == noise.labels))
    say(f"accuracy {accuracy:.2%} on the first {n} images")
    if out is not None:
        write_noise(out, noise)
    return noise


def _followed(classifier: TorchClassifier, inputs: Inputs, images: Division, draws: int, seed: int) -> Noise:
    model, n = classifier.model.float(), images.evaluated
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    first = Trace(model)
    with first.watch:
        classifier.logits(inputs.batch(slice(0, 1), classifier.channels))
    first.watch.check(classifier.name)
    weights = weights_of(first.operations, model)
    if not weights:
        raise InputError(f"{classifier.name}: expected convolutions or linear layers, found none whose weight is a parameter")
    logits = logits_of(classifier, inputs, slice(0, n), None)
    labels = labels_of(inputs, n, logits.shape[1], classifier.name)
    candidates, outside = _candidates(logits, labels)
    C = candidates.shape[1]
    entering = entering_of(first.operations)
    generator = torch.Generator().manual_seed(seed)
    errors = {w.name: (2 * torch.rand((*w.values.shape, draws), generator=generator) - 1) * 3**0.5 for w in weights}
    largest = max(max(w.values.size for w in weights), max(entering.values()))
    size = max(1, min(inputs.batch_size, MOST_JACOBIAN // (C * largest)))
    T, S = len(weights) + len(entering), len(SCALES)
    grams = np.zeros((S, T, n, C, C), np.float32)
    shifted = np.zeros((S, draws, T, n, C), np.float16)
    for start in progress(range(0, n, size), total=-(-n // size), what="images", unit="batch"):
        part = slice(start, min(start + size, n))
        batch = inputs.batch(part, classifier.channels)
        gram, moved, own = _chunk(classifier, batch, torch.from_numpy(candidates[part]), weights, errors)
        grams[:, : len(weights), part], shifted[:, :, : len(weights), part], grams[0, len(weights) :, part] = gram, moved, own
    rng = np.random.default_rng([seed, 6])
    for t in range(len(weights), T):
        shifted[0, :, t] = (_roots(grams[0, t]) @ rng.standard_normal((draws, n, C, 1)))[..., 0]
    rates = _gain_rates(classifier, inputs, weights, errors, logits, candidates, grams[0, : len(weights)])
    low, high = input_ranges(classifier, inputs, slice(images.calibrating, None), list(entering))
    return Noise(
        logits=logits,
        labels=labels,
        candidates=candidates,
        tensors=Tensors(
            names=(*(w.name for w in weights), *entering),
            kinds=("weight",) * len(weights) + ("input",) * len(entering),
            sizes=np.array([*(w.values.size for w in weights), *entering.values()]),
            rows=np.array([*(len(w.values) for w in weights), *(1 for _ in entering)]),
            low=np.array([*(w.values.min() for w in weights), *low]),
            high=np.array([*(w.values.max() for w in weights), *high]),
        ),
        grams=dict(zip(SCALES, grams, strict=True)),
        draws=dict(zip(SCALES, shifted, strict=True)),
        gain_rates=rates,
        provenance={
            "source": "linearize",
            "network": classifier.name,
            "files_sha256": classifier.files,
            **inputs.images.source,
            **inputs.preprocessing.as_dict(),
            "evaluated": n,
            "posterior_not_followed": outside,
            "draws": draws,
            "seed": seed,
            "date": datetime.date.today().isoformat(),
            "by": f"simulate.linearize {version()}",
        },
    )


def _candidates(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, float]:
    """(n, C) the classes whose logits are followed, ascending: all of few, else the likeliest of each image, so many that the
    others have a posterior of at most LEFT_OUT on average; and that posterior."""
    n, K = logits.shape
    if K <= ALL_CANDIDATES:
        return np.tile(np.arange(K), (n, 1)), 0.0
    posterior = softmax(logits / fitted_scale(logits, labels).temperature, 1)
    order = np.argsort(-posterior, 1, kind="stable")
    outside = np.maximum(1 - np.cumsum(np.take_along_axis(posterior, order, 1), 1).mean(0), 0.0)  # after 1, 2, ... classes
    C = max(FEWEST_CANDIDATES, 1 + int(np.argmax(outside <= LEFT_OUT)))
    return np.sort(order[:, :C], 1), float(outside[C - 1])


def _gain_rates(
    classifier: TorchClassifier,
    inputs: Inputs,
    weights: list[Weight],
    errors: dict[str, torch.Tensor],
    logits: np.ndarray,
    candidates: np.ndarray,
    grams: np.ndarray,
) -> np.ndarray:
    """(M,) -ln g_m over v/V of every draw, at REFERENCE_BITS a tensor: g_m = 1 + <q, a>/<a, a>, where a are the centred clean
    logits of the candidates of GAIN_IMAGES images and q is the even part of what the draw and its opposite do to them."""
    scheme, n = SCHEMES["symmetric"], min(len(logits), GAIN_IMAGES)
    assert isinstance(scheme, Uniform)  # it has a grid
    ends = [(np.array([[w.values.min()]]), np.array([[w.values.max()]])) for w in weights]
    steps = [float(scheme.grid(low, high, REFERENCE_BITS, MAX_ABS_PARTS)[0][0, 0]) for low, high in ends]
    followed = np.take_along_axis(logits[:n], candidates[:n], 1)
    clean = followed - followed.mean(1, keepdims=True)
    covariance = np.tensordot(np.square(steps) / 12, grams[:, :n].astype(np.float64), 1)
    ratio = noise_ratio(followed, covariance)
    rates = []
    for m in range(errors[weights[0].name].shape[-1]):
        even = -clean
        for sign in (1.0, -1.0):
            changed = {
                w.name: (w, w.values + sign * step / 12**0.5 * errors[w.name][..., m].double().numpy())
                for w, step in zip(weights, steps, strict=True)
            }
            with Replaced(classifier.model, changed):
                changed_logits = logits_of(classifier, inputs, slice(0, n), None)
                even = even + np.take_along_axis(changed_logits, candidates[:n], 1) / 2
        even = even - even.mean(1, keepdims=True)
        gain = 1 + float(np.sum(even * clean) / np.sum(clean**2))
        rates.append(-np.log(max(gain, 1e-6)) / max(ratio, 1e-300))
    return np.array(rates)


def _roots(grams: np.ndarray) -> np.ndarray:
    """L with L L' = G for Grams (..., C, C), which single precision may leave without full rank."""
    values, vectors = np.linalg.eigh(grams.astype(np.float64))
    return vectors * np.sqrt(np.maximum(values, 0))[..., None, :]


def _chunk(
    classifier: TorchClassifier,
    images: np.ndarray,
    candidates: torch.Tensor,
    weights: list[Weight],
    errors: dict[str, torch.Tensor],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of some images and their candidates (n, C) the Grams (S, weights, n, C, C) and shifts (S, M, weights, n, C) of weights,
    and the Grams (inputs, n, C, C) of inputs."""
    trace, n = Trace(classifier.model), len(images)
    with trace.watch:
        logits = classifier.logits(images)
    taken, given = trace.gradients(logits, candidates)
    jacobians: dict[str, torch.Tensor] = {}
    for operation, gradient in zip(trace.operations, given, strict=True):
        own = jacobian(operation, gradient, n)
        jacobians[operation.tensor] = jacobians[operation.tensor] + own if operation.tensor in jacobians else own
    grams, moved, entering = [], [], []
    for weight in weights:
        J, scales = jacobians.pop(weight.name), torch.from_numpy(weight.ranges).float()
        grams.append(row_grams(J, scales**2).numpy())
        moved.append(shifts(J, errors[weight.name], scales).numpy())
    for gradient in entering_gradients(trace.operations, taken).values():
        J = gradient.reshape(len(gradient), n, -1).transpose(0, 1)
        entering.append((J @ J.transpose(1, 2)).numpy())
    return np.stack(grams, 1), np.stack(moved, 2), np.stack(entering)
