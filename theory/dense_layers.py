"""Risk, distortion and flip rate of a dense network with rectifiers whose layers all have random errors.

Given an input the errors of a layer are the only noise, a sum of many independent terms: pre-activations are nearly Gaussian,
with full covariance, and their moments pass through errors (``noisy_layer``) and rectifiers (``rectified_mean``,
``rectified_square``, ``rectified_covariance``) in closed form, layer by layer (Wright et al., AISTATS 2024). Which class wins
is one orthant a rival; labels are the exact posteriors of the Gaussian inputs, and the mean is over quasi-random
inputs, of whose law through the layers nothing is assumed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtri

from theory.budget import Budget
from theory.effect import Draws
from theory.integrals.decisions import wins
from theory.integrals.orthant import SCRAMBLINGS, estimate
from theory.integrals.points import sobol
from theory.integrals.two_classes import formula
from theory.interval import Asked, interval
from theory.setting.dense import DenseNetwork, forward
from theory.setting.errors import InputError
from theory.setting.plan import Plan
from theory.setting.problem import decide
from theory.setting.question import plans_of
from theory.setting.record import Record, class_fields, tensor_fields, version
from theory.setting.schemes import Compressed

METHOD = "layer_moments"
ALL_ON, ALL_OFF = 8.0, 12.0  # deviations from 0 beyond which a rectifier passes everything, or nothing
TINY = 1e-30  # variance of a unit without noise, in single precision
ENTRIES = 2**16  # of the covariances that are worked on together: small ones side by side
NETWORKS = 128  # drawn for the spread of single ones


def predict_dense(
    network: DenseNetwork,
    *,
    scheme: str,
    bits: Sequence[int] | int | None,
    asked: Asked,
    budget: Budget,
    method: str | None = None,
    **options: Any,
) -> list[Record]:
    """The records of :func:`theory.predict` for a dense network."""
    if method not in (None, METHOD):
        raise InputError(f"method: expected {METHOD} for a network of several layers, got {method!r}")
    plans = plans_of(network, scheme, bits, **options)
    for plan in plans:
        plan.check_stepped()
    inputs = _inputs(network, budget, asked.seed)
    return [_predicted(network, one, inputs, asked) for one in plans]


def _inputs(network: DenseNetwork, budget: Budget, seed: int) -> np.ndarray:
    """(SCRAMBLINGS, points, d) inputs of the mixture of all classes, independent in the first axis."""
    law, d = network.inputs, network.inputs.features
    work = sum(2 * len(bias) ** 2 * weights.shape[1] for weights, bias in network.layers)  # of one input, multiplications
    most = max(2.0, budget.dense_work / work / SCRAMBLINGS)
    points = int(2 ** np.floor(np.log2(min(most, budget.dense_inputs / SCRAMBLINGS))))
    factors = [np.linalg.cholesky(law.covariance(k)) for k in range(law.classes)]
    edges, sets = np.cumsum(law.priors), []
    for scrambling in range(SCRAMBLINGS):
        cube = np.clip(sobol(d + 1, np.random.default_rng([seed, 8, scrambling])).random(points), 1e-12, 1 - 1e-12)
        classes = np.minimum(np.searchsorted(edges, cube[:, 0], side="right"), law.classes - 1)
        normals = ndtri(cube[:, 1:])
        sets.append(np.stack([law.means[k] + factors[k] @ g for k, g in zip(classes, normals, strict=True)]))
    return np.stack(sets)


def _predicted(network: DenseNetwork, plan: Plan, inputs: np.ndarray, asked: Asked) -> Record:
    tensors = network.compressed(plan)
    flat = inputs.reshape(-1, inputs.shape[-1])
    n, K = len(flat), network.classes
    clean, posterior = network.logits(flat), network.posterior(flat)
    own = decide(clean)
    top = posterior[np.arange(n), own]
    stake = top[:, None] - posterior
    means, covariances = logit_moments(network, tensors, flat)
    (chance,), _ = wins(means, covariances, own, replicates=1, seed=asked.seed)

    def averaged(values: np.ndarray):
        """Of values (n,) mean and error, that of the inputs."""
        return estimate(values.reshape(SCRAMBLINGS, -1).mean(1))

    lost, flips, risk = averaged((chance * stake).sum(1)), averaged(chance.sum(1)), averaged(1 - top)
    D, F = float(lost.value), min(1.0, float(flips.value))
    draws = _networks(network, tensors, flat, stake, own, asked.seed)
    ends, sources = interval(draws, D, 0.0, asked)
    prior = np.maximum(posterior.mean(0), 1e-300)
    before = np.bincount(own, weights=top, minlength=K) / n / prior
    gone = np.bincount(own, weights=top * chance.sum(1), minlength=K) / n / prior
    gained = (chance * posterior).mean(0) / prior
    return Record(
        **tensor_fields(plan, tensors),
        errors="expected",
        method=METHOD,
        risk_before=float(risk.value),
        risk_after=float(risk.value) + D,
        distortion=D,
        interval=ends,
        confidence=asked.confidence,
        interval_sources=sources,
        flip_rate=max(F, abs(D)),
        per_class=class_fields(network.inputs.priors, before, before - gone + gained),
        numerical_error=float(lost.error),
        risk_before_error=float(risk.error),
        flip_rate_error=float(flips.error),
        provenance={
            "by": f"theory.predict {version()}",
            "statistics": network.provenance,
            "inputs": n,
            "networks": NETWORKS,
            "drawn_mean": float(draws.distortion.mean()),  # on the same inputs, beside the distortion predicted
            "drawn_standard_error": float(draws.distortion.std(ddof=1) / np.sqrt(NETWORKS)),
            "test_size": asked.test_size,
            "seed": asked.seed,
        },
    )


def logit_moments(
    network: DenseNetwork, tensors: Mapping[str, Compressed], inputs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean (n, K) and covariance (n, K, K) of the logits of inputs (n, d) over uniform errors in +-step/2 of the tensors."""
    layers = tuple(
        tuple(jnp.asarray(x, jnp.float32) for x in (weights, bias, _variances(tensors.get(name), weights)))
        for name, (weights, bias) in zip(network.names, network.layers, strict=True)
    )
    means, covariances = _moments(layers, jnp.asarray(inputs, jnp.float32))
    return np.asarray(means, np.float64), np.asarray(covariances, np.float64)


def _variances(tensor: Compressed | None, weights: np.ndarray) -> np.ndarray:
    """Of the errors, entry by entry."""
    return np.zeros(weights.shape) if tensor is None else np.broadcast_to(tensor.steps**2 / 12, weights.shape).copy()


@jax.jit
def _moments(layers, inputs):
    def through(x):
        mean, covariance = x, jnp.zeros(len(x), x.dtype)  # (M,): independent units, as they are up to the second layer
        for number, (weights, bias, variances) in enumerate(layers):
            # `noisy_layer` row by row: the errors of an entry have the variance of its step
            own = covariance if covariance.ndim == 1 else jnp.diagonal(covariance)
            noise = variances @ (mean**2 + own)
            mean = weights @ mean + bias
            if number:
                passed = weights * covariance[None] if covariance.ndim == 1 else weights @ covariance
                covariance = passed @ weights.T + jnp.diag(noise)
            else:
                covariance = noise
            if number + 1 < len(layers):
                mean, covariance = rectified(mean, covariance)
        return mean, covariance

    together = max(1, ENTRIES // max(bias.size**2 for _, bias, _ in layers))
    return jax.lax.map(through, inputs, batch_size=together)


def rectified(mean: jax.Array, covariance: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean (M,) and covariance of max(u, 0), u Gaussian with these; of independent ones variances (M,) in its place."""
    independent = covariance.ndim == 1
    deviation = jnp.sqrt(jnp.maximum(covariance if independent else jnp.diagonal(covariance), TINY))
    passed = formula("rectified_mean")(m=mean, s=deviation)
    bounded = jnp.clip(mean / deviation, -ALL_OFF, ALL_ON)  # beyond, all of the variance is passed, or none
    one = jnp.ones_like(bounded)
    variance = formula("rectified_square")(m=bounded, s=one) - formula("rectified_mean")(m=bounded, s=one) ** 2
    variance = jnp.maximum(variance, 0.0) * deviation**2
    if independent:
        return passed, variance
    product = deviation[:, None] * deviation[None]
    shared = formula("rectified_covariance")(t=bounded[:, None], t_other=bounded[None], rho=covariance / product) * product
    return passed, jnp.where(jnp.eye(len(mean), dtype=bool), variance[:, None], shared)


def _networks(
    network: DenseNetwork, tensors: Mapping[str, Compressed], inputs: np.ndarray, stake: np.ndarray, own: np.ndarray, seed: int
) -> Draws:
    """Single networks drawn, on the same inputs."""
    rng, lost, changed = np.random.default_rng([seed, 9]), [], []
    for _ in range(NETWORKS):
        layers = []
        for name, (weights, bias) in zip(network.names, network.layers, strict=True):
            tensor = tensors.get(name)
            error = 0.0 if tensor is None else rng.uniform(-0.5, 0.5, weights.shape) * tensor.steps
            layers.append((weights + error, bias))
        after = decide(forward(layers, inputs))
        lost.append(float(np.mean(np.take_along_axis(stake, after[:, None], 1))))
        changed.append(float(np.mean(after != own)))
    losses = np.array(lost)
    return Draws("networks drawn", losses, np.maximum(changed, np.abs(losses)), np.zeros(NETWORKS))
