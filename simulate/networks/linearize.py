"""``simulate linearize``: what errors of every tensor of a real network do to its logits, to first order, image by image."""

import datetime
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from simulate.networks.compressed import open_runner
from simulate.networks.follower import MOST_JACOBIAN, Follower
from simulate.networks.inputs import Division, Inputs, division, labels_of, preprocessing_of, read_inputs
from simulate.networks.network import NAMES
from simulate.networks.posteriors import fitted_scale
from simulate.networks.runner import Runner
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
MOST_CANDIDATES = 24  # at most: networks trained with smoothed labels have posteriors whose tail never ends, and never wins
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
    runner = open_runner(network, checkpoint, inputs, output)
    with runner.folded(inputs) if fold else nullcontext():
        noise, n = replace(_followed(runner, inputs, images, draws, seed), fold=fold), images.evaluated
    accuracy = float(np.mean(decide(noise.logits) == noise.labels))
    say(f"accuracy {accuracy:.2%} on the first {n} images")
    if out is not None:
        write_noise(out, noise)
    return noise


def _follower(runner: Runner, inputs: Inputs) -> Follower:
    """Of a network, its weights found.

    Raises:
        InputError: no weights, or an ONNX network, which has no gradients.
    """
    runner = replace(runner, weights=runner.find_weights(inputs))
    if not runner.weights:
        raise InputError(f"{runner.name}: expected convolutions or linear layers, found none whose weight is a parameter")
    if runner.framework == "PyTorch":
        from simulate.networks.torch_follower import torch_follower

        return torch_follower(runner, inputs)  # pyright: ignore[reportArgumentType]
    if runner.framework == "Keras":
        from simulate.networks.keras_follower import keras_follower

        return keras_follower(runner, inputs)  # pyright: ignore[reportArgumentType]
    raise InputError(f"network: expected a PyTorch or Keras network to linearize, got {runner.name}")


def _followed(runner: Runner, inputs: Inputs, images: Division, draws: int, seed: int) -> Noise:
    follower, n = _follower(runner, inputs), images.evaluated
    runner, entering = follower.runner, follower.entering
    weights = list(runner.weights.values())
    logits = runner.run(inputs, slice(0, n))
    labels = labels_of(inputs, n, logits.shape[1], runner.name)
    candidates, outside = _candidates(logits, labels)
    C = candidates.shape[1]
    rng = np.random.default_rng([seed, 7])
    errors = {w.name: (2 * rng.random((*w.values.shape, draws), np.float32) - 1) * np.float32(3**0.5) for w in weights}
    size = max(1, min(inputs.batch_size, MOST_JACOBIAN // (C * follower.largest)))
    T, S = len(weights) + len(entering), len(SCALES)
    grams = np.zeros((S, T, n, C, C), np.float32)
    shifted = np.zeros((S, draws, T, n, C), np.float16)
    for start in progress(range(0, n, size), total=-(-n // size), what="images", unit="batch"):
        part = slice(start, min(start + size, n))
        found = follower.follow(inputs.batch(part, runner.channels), candidates[part], errors)
        grams[:, : len(weights), part], shifted[:, :, : len(weights), part] = found.grams, found.shifts
        grams[0, len(weights) :, part] = found.entering
    rng = np.random.default_rng([seed, 6])
    for t in range(len(weights), T):
        shifted[0, :, t] = (_roots(grams[0, t]) @ rng.standard_normal((draws, n, C, 1)))[..., 0]
    rates = _gain_rates(runner, inputs, errors, logits, candidates, grams[0, : len(weights)])
    total = len(inputs.images.labels)
    low, high = runner.ranges(inputs, slice(images.calibrating if images.calibrating < total else 0, total))
    ends = dict(zip(runner.weights, zip(low, high, strict=True), strict=True))
    return Noise(
        logits=logits,
        labels=labels,
        candidates=candidates,
        tensors=Tensors(
            names=(*(w.name for w in weights), *entering),
            kinds=("weight",) * len(weights) + ("input",) * len(entering),
            sizes=np.array([*(w.values.size for w in weights), *entering.values()]),
            rows=np.array([*(len(w.values) for w in weights), *(1 for _ in entering)]),
            low=np.array([*(w.values.min() for w in weights), *(ends[name][0] for name in entering)]),
            high=np.array([*(w.values.max() for w in weights), *(ends[name][1] for name in entering)]),
        ),
        grams=dict(zip(SCALES, grams, strict=True)),
        draws=dict(zip(SCALES, shifted, strict=True)),
        gain_rates=rates,
        provenance={
            "source": "linearize",
            "network": runner.name,
            "files_sha256": runner.files,
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
    others have a posterior of at most LEFT_OUT on average, but MOST_CANDIDATES at most; and that posterior."""
    n, K = logits.shape
    if K <= ALL_CANDIDATES:
        return np.tile(np.arange(K), (n, 1)), 0.0
    posterior = softmax(logits / fitted_scale(logits, labels).temperature, 1)
    order = np.argsort(-posterior, 1, kind="stable")
    outside = np.maximum(1 - np.cumsum(np.take_along_axis(posterior, order, 1), 1).mean(0), 0.0)  # after 1, 2, ... classes
    C = int(np.clip(1 + np.argmax(outside <= LEFT_OUT), FEWEST_CANDIDATES, MOST_CANDIDATES))
    if outside[C - 1] > LEFT_OUT:
        left = f"{outside[C - 1]:.2g} on average"
        say(f"the {C} likeliest classes of each image are followed: the others have a posterior of {left}")
    return np.sort(order[:, :C], 1), float(outside[C - 1])


def _gain_rates(
    runner: Runner,
    inputs: Inputs,
    errors: dict[str, np.ndarray],
    logits: np.ndarray,
    candidates: np.ndarray,
    grams: np.ndarray,
) -> np.ndarray:
    """(M,) -ln g_m over v/V of every draw, at REFERENCE_BITS a tensor: g_m = 1 + <q, a>/<a, a>, where a are the centred clean
    logits of the candidates of GAIN_IMAGES images and q is the even part of what the draw and its opposite do to them."""
    scheme, n = SCHEMES["symmetric"], min(len(logits), GAIN_IMAGES)
    assert isinstance(scheme, Uniform)  # it has a grid
    weights = list(runner.weights.values())
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
                w.name: w.values + sign * step / 12**0.5 * errors[w.name][..., m].astype(np.float64)
                for w, step in zip(weights, steps, strict=True)
            }
            with runner.replaced(changed):
                changed_logits = runner.run(inputs, slice(0, n))
            even = even + np.take_along_axis(changed_logits, candidates[:n], 1) / 2
        even = even - even.mean(1, keepdims=True)
        gain = 1 + float(np.sum(even * clean) / np.sum(clean**2))
        rates.append(-np.log(max(gain, 1e-6)) / max(ratio, 1e-300))
    return np.array(rates)


def _roots(grams: np.ndarray) -> np.ndarray:
    """L with L L' = G for Grams (..., C, C), which single precision may leave without full rank."""
    values, vectors = np.linalg.eigh(grams.astype(np.float64))
    return vectors * np.sqrt(np.maximum(values, 0))[..., None, :]
