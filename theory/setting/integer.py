"""Integer arithmetic: what quantized inputs, and sums at the product of the steps, make of a layer.

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018: inputs
are affine codes p of ``activation_bits`` bits on the feature range, weights codes q, the bias a 32-bit integer at the product
of the steps; the sums q p + bias are compared, those of rows with steps of their own times these.

The clean layer reads z, the compressed one other inputs u: both together are one layer of the inputs (z, u, 1), clean weights
(W, 0, b) and compressed ones (0, What, bhat). So everything that is said of a layer is said of this one.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from theory.setting.errors import InputError
from theory.setting.features import Features
from theory.setting.problem import Problem
from theory.setting.schemes import Compressed
from theory.setting.schemes.uniform import affine_codes, affine_grid
from theory.setting.stored_layer import products

WIDE = 0.6  # standard deviation over step from which a rounded feature's error is uniform, independent: to 1e-3
LEVELS = 6  # on either side of the mean of a narrower one: eight deviations
CLIPPED = 1e-3  # of the law of a feature that is worth a sentence


def input_grid(subject: Problem | Features, bits: int) -> tuple[float, float]:
    """Step and zero point of the inputs, on the feature range of a problem or the range of features themselves.

    Raises:
        InputError: a problem without a feature range, or a range that is one point, 0.
    """
    ends = subject.input_range()
    step, zero = affine_grid(np.minimum(ends[:1], 0.0), np.maximum(ends[1:], 0.0), bits)
    if not step[0] > 0:
        raise InputError("feature_range: expected a range of more than the point 0")
    return float(step[0]), float(zero[0])


def codes(subject: Problem | Features, z: np.ndarray, bits: int) -> np.ndarray:
    """(n, d) the integers p, less the zero point, of inputs (n, d)."""
    step, zero = input_grid(subject, bits)
    return affine_codes(z, np.array(step), np.array(zero), bits)


def sums(subject: Problem | Features, layer: Compressed, p: np.ndarray, bits: int, corrected: bool) -> np.ndarray:
    """(n, rows) the integer sums q p + bias, exactly, those of rows with steps of their own times these."""
    total = p.astype(np.int64) @ layer.parts["codes"].T + whole_bias(subject, layer, bits, corrected).astype(np.int64)
    if np.abs(total).max(initial=0) >= 2**31:
        raise InputError(
            f"activation_bits: expected codes whose sums 32 bits hold, got up to {np.abs(total).max():.3g} with {bits} bits"
        )
    return total if np.ptp(layer.steps) == 0 else total * products(layer.steps[:, 0], 1.0)


def whole_bias(subject: Problem | Features, layer: Compressed, bits: int, corrected: bool) -> np.ndarray:
    """(rows,) the bias as integers at the product of the steps."""
    bias = subject.bias + (subject.weights - layer.weights) @ subject.mean_feature if corrected else subject.bias
    whole = np.rint(bias / products(layer.steps[:, 0], input_grid(subject, bits)[0]))
    if np.abs(whole).max() >= 2**31:
        raise InputError(f"bias: expected one that 32 bits at the product of the steps hold, got {np.abs(bias).max():.3g}")
    return whole


def actual(
    subject: Problem | Features, layers: Sequence[Compressed], bits: int, corrected: bool
) -> tuple[Problem | Features, list[Compressed]]:
    """The layer of the inputs (z, u, 1) with its compressed weights; of features u are the inputs as quantized; of a problem
    u = z + n, n independent of variance step^2/12; where a feature hardly varies beside the step what rounding makes of it
    (:func:`rounded`). Inputs beyond the range are not clipped."""
    step, zero = input_grid(subject, bits)
    lifted = []
    for layer in layers:
        constant = whole_bias(subject, layer, bits, corrected) * products(layer.steps[:, 0], step)
        parts = [0 * subject.weights, layer.weights, constant[:, None]]
        lifted.append(replace(layer, weights=np.concatenate(parts, 1)))
    return _lifted(subject, step, zero, bits, np.zeros(subject.weights.shape[1])), lifted


def expected(subject: Problem | Features, bits: int, corrected: bool) -> tuple[Problem | Features, np.ndarray]:
    """The layer of the inputs (z, u - zbar, 1), u the inputs as quantized, zbar the mean feature where the bias is corrected
    and else 0: random errors of the weights act on its middle part. And the constant (K,) that goes with W: b + W zbar."""
    step, zero = input_grid(subject, bits)
    zbar = subject.mean_feature if corrected else np.zeros(subject.weights.shape[1])
    return _lifted(subject, step, zero, bits, zbar), subject.bias + subject.weights @ zbar


def unrounded(problem: Problem, bits: int) -> tuple[Problem, np.ndarray]:
    """The layer of the inputs (z, u, 1) as in :func:`actual`, and the clean weights W in the place of What (rows, 2 d + 1)."""
    step, zero = input_grid(problem, bits)
    lifted = _lifted(problem, step, zero, bits, np.zeros(problem.features))
    assert isinstance(lifted, Problem)  # as the problem is
    return lifted, np.concatenate([0 * problem.weights, problem.weights, problem.bias[:, None]], 1)


def noisy(problem: Problem, bits: int, corrected: bool) -> Problem:
    """The clean layer on Gaussian inputs of mean and covariance of the quantized ones, less zbar where corrected."""
    step, _ = input_grid(problem, bits)
    zbar = problem.mean_feature if corrected else np.zeros(problem.features)
    law = rounded(problem.means, problem.covariances, step)
    means, bias = problem.means + law.shift - zbar, problem.bias + problem.weights @ zbar
    return replace(problem, means=means, covariances=law.covariance(problem.covariances)[1], bias=bias)


class Rounded(NamedTuple):
    """What rounding to a step makes of Gaussian features: the mean of the error (M, d); the slope of the rounded feature in the
    feature and the variance of what is left of it, (d,) where covariances are shared, else (M, d)."""

    shift: np.ndarray
    slope: np.ndarray
    rest: np.ndarray

    def covariance(self, S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of features of covariance S (..., d, d): Cov(z, u) and Cov(u), u the rounded ones."""
        cross = S * self.slope[..., None, :]
        own = cross * self.slope[..., :, None] + self.rest[..., None] * np.eye(S.shape[-1])
        return cross, own


def rounded(means: np.ndarray, covariances: np.ndarray, step: float) -> Rounded:
    """Rounding of Gaussian features to the multiples of a step.

    A feature that varies by WIDE steps or more has an error of mean 0 and variance step^2/12, independent of it; of one that
    varies less the moments are summed over the levels near it (of a constant one the error is known).

    Args:
        means: (M, d). covariances: (d, d) shared, or (M, d, d).
    """
    variance = np.broadcast_to(np.diagonal(covariances, axis1=-2, axis2=-1), means.shape) / step**2
    mean, sd = means / step, np.sqrt(np.maximum(variance, 0.0))
    shift, slope, rest = np.zeros(means.shape), np.ones(means.shape), np.full(means.shape, 1 / 12)
    narrow = sd < WIDE
    if narrow.any():
        m, s = mean[narrow][:, None], np.maximum(sd[narrow], 1e-9)[:, None]
        levels = np.rint(m) + np.arange(-LEVELS, LEVELS + 1)
        low, high = (levels - 0.5 - m) / s, (levels + 0.5 - m) / s
        share = ndtr(high) - ndtr(low)
        moment = s * (np.exp(-(low**2) / 2) - np.exp(-(high**2) / 2)) / np.sqrt(2 * np.pi)  # E[(z - m); this level]
        first = np.sum(share * (levels - m), 1)
        along = np.sum(moment * (levels - m), 1)
        shift[narrow], slope[narrow] = first, np.where(sd[narrow] > 1e-9, along / s[:, 0] ** 2, 0.0)
        spread = np.sum(share * (levels - m) ** 2, 1) - first**2
        rest[narrow] = np.maximum(spread - (slope[narrow] * sd[narrow]) ** 2, 0.0)
    if covariances.ndim == 2:  # one covariance serves all: their mean
        slope, rest = slope.mean(0), rest.mean(0)
    return Rounded(step * shift, slope, step**2 * rest)


def clipped(problem: Problem, bits: int) -> float:
    """The largest share, over features and classes, of the Gaussian law of a feature beyond the range."""
    step, zero = input_grid(problem, bits)
    low, high = -(zero + 0.5) * step, (2**bits - 0.5 - zero) * step
    deviations = np.sqrt(np.stack([np.maximum(np.diagonal(problem.covariance(k)), 1e-300) for k in range(problem.classes)]))
    return float(np.max(ndtr((low - problem.means) / deviations) + ndtr((problem.means - high) / deviations)))


def beyond_range(problem: Problem, bits: int) -> str | None:
    """The sentence on a Gaussian law of the features that reaches beyond their range, as far as it ends the same everywhere."""
    share = clipped(problem, bits)
    if share <= CLIPPED:
        return None
    return f"by the Gaussian law {share:.2%} of some feature in some class lies beyond the feature range (as after a rectifier)"


def _lifted(subject: Problem | Features, step: float, zero: float, bits: int, origin: np.ndarray) -> Problem | Features:
    """The inputs (z, u - origin, 1)."""
    W, bias = subject.weights, subject.bias
    weights, none = np.concatenate([W, 0 * W, bias[:, None]], 1), np.zeros_like(bias)
    if isinstance(subject, Features):
        z = subject.features.astype(np.float64)
        u = affine_codes(z, np.array(step), np.array(zero), bits) * step - origin
        return replace(subject, features=np.concatenate([z, u, np.ones((len(z), 1))], 1), weights=weights, bias=none)

    def law(mu: np.ndarray, S: np.ndarray, of: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Means and covariances of (z, u - origin, 1); ``of`` is the covariance that each of the means has, where they are
        fewer."""
        if of is None:
            made = rounded(mu, S, step)
        else:
            each = rounded(mu, S[of], step)
            groups = [np.flatnonzero(of == k) for k in range(len(S))]
            slope, rest = (
                np.stack([x[g].mean(0) if len(g) else np.ones(x.shape[1]) for g in groups]) for x in (each.slope, each.rest)
            )
            made = Rounded(each.shift, slope, rest)
        cross, own = made.covariance(S)
        both = np.concatenate([np.concatenate([S, cross], -1), np.concatenate([cross.swapaxes(-1, -2), own], -1)], -2)
        return {
            "means": np.concatenate([mu, mu + made.shift - origin, np.ones((len(mu), 1))], 1),
            "covariances": np.pad(both, [(0, 0)] * (S.ndim - 2) + [(0, 1), (0, 1)]),
        }

    components = subject.components
    if components is not None:
        of = None if len(components.covariances) == len(components.classes) else components.classes
        components = replace(components, **law(components.means, components.covariances, of))
    return replace(subject, weights=weights, bias=none, components=components, **law(subject.means, subject.covariances))
