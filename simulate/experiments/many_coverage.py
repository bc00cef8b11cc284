"""``python -m simulate.experiments.many_coverage``: how many simulated networks of ten classes the predicted interval holds.

Gaussian features: predicted from the exact statistics. Post-ReLU features: distribution-free, from a sample of labelled ones;
others are simulated. Each network is drawn from the error law and counted on a test set.
"""

import itertools
import sys
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from simulate.generator import synthetic
from simulate.sampling.paired_counting import decisions, factor
from theory.prediction import predict
from theory.setting.command_line import progress, rows_command
from theory.setting.features import Features
from theory.setting.problem import Problem
from theory.setting.schemes import compress

CLASSES, FEATURES, BITS, KINDS = 10, (16, 64, 512), (2, 3, 4, 5, 6, 7, 8), ("Gaussian", "post-ReLU")
SAMPLES, SAMPLE = 100, 4_000  # times that features are drawn to predict from, and how many
SETS, NETWORKS, TEST = 200, 10, 20_000  # test sets, networks counted on each, images in a set
SEPARATION = {"Gaussian": 3.5, "post-ReLU": 5.0}
Sampler = Callable[[int, np.random.Generator], tuple[np.ndarray, np.ndarray]]


def many_coverage(
    *,
    features: Sequence[int] = FEATURES,
    bits: Sequence[int] = BITS,
    kinds: Sequence[str] = KINDS,
    sets: int = SETS,
    networks: int = NETWORKS,
    seed: int = 0,
) -> list[dict]:
    """Share of networks inside the predicted 95 % interval of their distortion on a test set, and beyond either end."""
    rows = []
    for kind, d in progress(list(itertools.product(kinds, features)), what="problems"):
        problem = synthetic(classes=CLASSES, features=d, separation=SEPARATION[kind], priors="unequal", seed=seed)
        draw = _gaussian(problem)
        if kind == "post-ReLU":
            problem, draw = _rectified(problem, draw, seed)
        steps = [compress(problem.weights, "symmetric", width).steps[:, 0] for width in bits]
        question: dict = dict(scheme="symmetric", bits=bits, errors="expected", test_size=TEST)
        inside, below, above = (np.zeros(len(bits)) for _ in range(3))
        measured, known, predicted = np.zeros((sets, len(bits), networks)), [], []
        each = sets if kind == "Gaussian" else -(-sets // SAMPLES)  # test sets a prediction
        for i in range(sets):
            rng = np.random.default_rng([seed, 20, i])
            if i % each == 0:
                known = predict(_subject(kind, problem, draw, rng), seed=seed + i, **question)
                predicted.append([one.distortion for one in known])
            z, labels = draw(TEST, rng)
            for j, (record, step) in enumerate(zip(known, steps, strict=True)):
                values = measured[i, j] = _networks(problem, step, z, labels, networks, rng)
                low, high = record.interval
                inside[j] += np.mean((values >= low) & (values <= high)) / sets
                below[j] += np.mean(values < low) / sets
                above[j] += np.mean(values > high) / sets
        for j, record in enumerate(known):
            rows.append(
                {
                    "features": kind,
                    "d": d,
                    "bits": record.bits,
                    "method": record.method,
                    "networks": sets * networks,
                    "inside": float(inside[j]),
                    "below": float(below[j]),
                    "above": float(above[j]),
                    "predicted": float(np.mean(predicted, 0)[j]),
                    "simulated": float(measured[:, j].mean()),
                    "predicted_sd": float(np.hypot(record.interval_sources["network"], record.interval_sources["test_set"])),
                    "simulated_sd": float(measured[:, j].std()),
                }
            )
    return rows


def _gaussian(problem: Problem) -> Sampler:
    root = factor(problem.covariance(0))

    def draw(n: int, rng: np.random.Generator):
        labels = rng.choice(problem.classes, n, p=problem.priors)
        return problem.means[labels] + rng.standard_normal((n, problem.features)) @ root.T, labels

    return draw


def _rectified(latent: Problem, draw: Sampler, seed: int) -> tuple[Problem, Sampler]:
    """Features max(0, x) of a Gaussian x, and the linear discriminant of 20,000 of them. The problem holds its layer alone."""

    def rectified(n: int, rng: np.random.Generator):
        x, labels = draw(n, rng)
        return np.maximum(x, 0), labels

    z, labels = rectified(20_000, np.random.default_rng([seed, 19]))
    means = np.stack([z[labels == k].mean(0) for k in range(latent.classes)])
    residual = z - means[labels]
    covariance = residual.T @ residual / len(z)
    weights = np.linalg.solve(covariance, means.T).T
    bias = -0.5 * np.sum(weights * means, 1) + np.log(latent.priors)
    problem = Problem(weights=weights, bias=bias, priors=latent.priors, means=means, covariances=covariance, source_bits=64)
    return problem, rectified


def _subject(kind: str, problem: Problem, draw: Sampler, rng: np.random.Generator) -> Problem | Features:
    if kind == "Gaussian":
        return problem
    z, labels = draw(SAMPLE, rng)
    return Features(features=z, labels=labels, weights=problem.weights, bias=problem.bias, source_bits=64)


def _networks(problem: Problem, step: np.ndarray, z: np.ndarray, labels: np.ndarray, networks: int, rng) -> np.ndarray:
    """Distortions (networks,) of random layers counted on one test set z (n, d)."""
    logits = jnp.asarray((z @ problem.weights.T + problem.bias).T, jnp.float32)
    columns, found = z.T.astype(np.float32), []
    for _ in range(networks // 10):
        E = ((rng.random((10, *problem.weights.shape)) - 0.5) * step[:, None]).astype(np.float32)
        noise = (E.reshape(-1, E.shape[-1]) @ columns).reshape(10, *logits.shape)
        found.append(np.asarray(_changes(logits, noise, labels), float))
    return np.concatenate(found) / len(labels)


@jax.jit
def _changes(logits, noise, labels):
    right = decisions(logits) == labels
    after = decisions(jnp.moveaxis(jnp.expand_dims(logits, 0) + noise, 1, 0)) == jnp.expand_dims(labels, 0)
    return jnp.sum(right) - jnp.sum(after, -1)


def main(argv: Sequence[str] | None = None) -> int:
    return rows_command("simulate.experiments.many_coverage", __doc__, many_coverage, argv)


if __name__ == "__main__":
    sys.exit(main())
