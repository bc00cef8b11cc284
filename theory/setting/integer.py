"""Integer arithmetic: what quantized inputs, and sums at the product of the steps, make of a layer.

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018: inputs
are affine codes p of ``activation_bits`` bits on the feature range, weights codes q, the bias a 32-bit integer at the product
of the steps; the sums q p + bias are compared, those of rows with steps of their own times these.

The clean layer reads z, the compressed one other inputs u: both together are one layer of the inputs (z, u, 1), clean weights
(W, 0, b) and compressed ones (0, What, bhat). So everything that is said of a layer is said of this one.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from theory.setting.errors import InputError
from theory.setting.features import Features
from theory.setting.problem import Problem
from theory.setting.schemes import Compressed
from theory.setting.schemes.uniform import affine_codes, affine_grid
from theory.setting.stored_layer import products

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
    u = z + n, n independent of variance step^2/12 (inputs beyond the range are not clipped)."""
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
    noise = input_grid(problem, bits)[0] ** 2 / 12 * np.eye(problem.features)
    zbar = problem.mean_feature if corrected else np.zeros(problem.features)
    means, bias = problem.means - zbar, problem.bias + problem.weights @ zbar
    return replace(problem, means=means, covariances=problem.covariances + noise, bias=bias)


def clipped(problem: Problem, bits: int) -> float:
    """The largest share, over features and classes, of the Gaussian law of a feature beyond the range."""
    from scipy.special import ndtr

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

    def means(mu: np.ndarray) -> np.ndarray:
        return np.concatenate([mu, mu - origin, np.ones((len(mu), 1))], 1)

    def law(S: np.ndarray) -> np.ndarray:
        noise = step**2 / 12 * np.eye(S.shape[-1])
        both = np.concatenate([np.concatenate([S, S], -1), np.concatenate([S, S + noise], -1)], -2)
        return np.pad(both, [(0, 0)] * (S.ndim - 2) + [(0, 1), (0, 1)])

    components = subject.components
    if components is not None:
        components = replace(components, means=means(components.means), covariances=law(components.covariances))
    return replace(
        subject,
        weights=weights,
        bias=none,
        means=means(subject.means),
        covariances=law(subject.covariances),
        components=components,
    )
