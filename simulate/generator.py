"""Synthetic problems with Gaussian features: nothing symmetric that could hide a sign or a transpose."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from simulate.logistic import samples_of, trained_layer
from theory.setting.archive import check_readable
from theory.setting.checks import seed_of, whole
from theory.setting.errors import InputError, in_short
from theory.setting.problem import Problem
from theory.setting.record import version

COVARIANCES = ("shared", "unequal")
PRIORS = ("equal", "unequal")
LAYERS = ("optimal", "perturbed", "trained")
RANGE = 4.0  # standard deviations of a feature about the mean of its class in the feature range
MOST_ENTRIES = 2**28  # of the covariances of all classes, and of the means: 2 GiB
Array = np.ndarray | Path | str


def synthetic(
    *,
    classes: int | None = None,
    features: int | None = None,
    separation: float | None = None,
    distance: float | None = None,
    means: Array | None = None,
    covariance: Array = "shared",
    priors: Array = "equal",
    layer: str = "optimal",
    seed: int = 0,
) -> Problem:
    """A random problem with correlated Gaussian features of unequal scales, or one of given means, covariances and priors.

    The shared covariance is D (A A' + 0.3 I) D with A (d, d) of N(0, 1/d) entries and D = diag exp U(-0.5, 0.5); class
    means are N(0, D^2), scaled so that the mean over classes of sqrt(mu_k' Sigma^-1 mu_k) is ``separation``.

    Args:
        classes, features: K >= 2 and d >= 1; not with ``means``, whose shape says them.
        separation: mean Mahalanobis distance of a class mean from the origin, > 0. distance: in its place the mean Mahalanobis
            distance between two class means. One of them, or none where ``means`` are given and taken as they are.
        means: (K, d), or a .npy, .csv or .txt file of them.
        covariance: ``unequal`` multiplies the shared one by U(0.7, 1.4) per class; or (d, d) or (K, d, d), or their file.
        priors: ``unequal`` draws them from Dirichlet(8, ..., 8); or (K,), or their file.
        layer: ``optimal`` is the Bayes rule w_k = Sigma^-1 mu_k, b_k = -mu_k' Sigma^-1 mu_k/2 + log pi_k of the shared
            covariance (of the prior-weighted mean of unequal ones, then no longer optimal); ``perturbed`` adds
            0.15 mean|W| N(0, 1) to its weights; ``trained`` is multinomial logistic regression on 20 d samples, mean
            cross-entropy plus (1e-3/2) |W|^2.
        seed: of all of it.

    Returns:
        The problem, its statistics known exactly.

    Raises:
        InputError: an option out of range.
    """
    if layer not in LAYERS:
        raise InputError(f"layer: expected one of {', '.join(LAYERS)}, got {layer!r}")
    given_means = None if means is None else _numbers("means", means, 2)
    given_covariance = _given("covariance", covariance, COVARIANCES, (2, 3))
    given_priors = _given("priors", priors, PRIORS, (1,))
    K, d, seed = *_shape(classes, features, given_means), seed_of(seed)
    _check_distances(separation, distance, given_means)
    rng = np.random.default_rng(seed)
    scale = np.exp(rng.uniform(-0.5, 0.5, d))
    A = rng.standard_normal((d, d)) / np.sqrt(d)
    shared = (A @ A.T + 0.3 * np.eye(d)) * np.outer(scale, scale)
    shared = (shared + shared.T) / 2
    mu = rng.standard_normal((K, d)) * scale if given_means is None else given_means
    pi = np.full(K, 1 / K) if given_priors is None else given_priors
    if isinstance(priors, str) and priors == "unequal":
        pi = rng.dirichlet(np.full(K, 8.0))
    unequal = isinstance(covariance, str) and covariance == "unequal"
    if unequal and K * d * d > MOST_ENTRIES:
        raise InputError(f"covariance: expected at most {MOST_ENTRIES} numbers for unequal ones, got {K} x {d} x {d}")
    factors = rng.uniform(0.7, 1.4, K) if unequal else np.ones(K)
    covariances = factors[:, None, None] * shared if unequal else shared
    if given_covariance is not None:
        covariances = given_covariance
    # shapes and values of what is given are checked here, by the constructor
    plain = Problem(weights=np.ones((K, d)), bias=np.zeros(K), priors=pi, means=mu, covariances=covariances)
    middle = plain.covariances if plain.shared else np.tensordot(pi, plain.covariances, 1)
    mu = mu * _stretch(mu, shared if unequal else middle, separation, distance)
    weights = _solved(middle, mu)
    bias = -0.5 * np.einsum("kd,kd->k", weights, mu) + np.log(np.maximum(pi, 1e-300))
    if layer == "perturbed":
        weights = weights + 0.15 * np.abs(weights).mean() * rng.standard_normal(weights.shape)
    if layer == "trained":
        weights, bias = trained_layer(weights, bias, *samples_of(rng, replace(plain, means=mu), 20 * d))
    own = [plain.covariance(k) for k in range(1 if plain.shared else K)]
    deviations = np.sqrt(np.max([np.diagonal(one) for one in own], 0))
    return Problem(
        weights=weights,
        bias=bias,
        priors=pi,
        means=mu,
        covariances=covariances,
        feature_range=np.array([(mu - RANGE * deviations).min(), (mu + RANGE * deviations).max()]),
        source_bits=64,
        provenance={
            "source": "synthetic",
            "classes": K,
            "features": d,
            "separation": separation,
            **({} if distance is None else {"distance": distance}),
            **({} if given_means is None else {"means": "given"}),
            "covariance": covariance if given_covariance is None else "given",
            "priors": priors if given_priors is None else "given",
            "layer": layer,
            "seed": seed,
            "by": f"simulate.synthetic {version()}",
        },
    )


def _given(name: str, value: Array, known: tuple[str, ...], dimensions: tuple[int, ...]) -> np.ndarray | None:
    """What is given in the place of a law known by name, None where it is such a name."""
    if isinstance(value, str) and value in known:
        return None
    return _numbers(name, value, *dimensions, known=known)


def _numbers(name: str, value: Array, *dimensions: int, known: tuple[str, ...] = ()) -> np.ndarray:
    """An array of numbers of so many dimensions, or that of a file."""
    if isinstance(value, np.ndarray):
        array = value
    else:
        names = f"one of {', '.join(known)}, or " if known else ""
        path = check_readable(value, f"{names}a .npy, .csv or .txt file of {name}")
        try:
            if path.suffix == ".npy":
                array = np.load(path, allow_pickle=False)
            else:
                array = np.loadtxt(path, delimiter="," if path.suffix == ".csv" else None, ndmin=1 if 1 in dimensions else 2)
        except Exception as error:  # NumPy's readers raise many kinds
            raise InputError(f"{path}: {name}: expected numbers, cannot read them: {in_short(error)}") from None
    if array.dtype.kind not in "fiu" or array.ndim not in dimensions:
        shapes = {1: "(K,)", 2: "(K, d)" if name == "means" else "(d, d)", 3: "(K, d, d)"}
        expected = " or ".join(shapes[n] for n in dimensions)
        raise InputError(f"{name}: expected numbers of shape {expected}, got {array.dtype} {array.shape}")
    return array.astype(np.float64)


def _shape(classes: int | None, features: int | None, means: np.ndarray | None) -> tuple[int, int]:
    """K and d."""
    if means is not None:
        if classes is not None or features is not None:
            raise InputError("classes, features: expected none with means, whose shape says them")
        K, d = means.shape
        return whole("means: their number", K, 2), whole("means: their features", d, 1)
    if classes is None or features is None:
        raise InputError("classes, features: expected both, or means")
    K, d = whole("classes", classes, 2), whole("features", features, 1)
    if K * d > MOST_ENTRIES or d * d > MOST_ENTRIES:
        raise InputError(f"classes, features: expected arrays of at most {MOST_ENTRIES} numbers, got {K} x {d} and {d} x {d}")
    return K, d


def _check_distances(separation: float | None, distance: float | None, means: np.ndarray | None) -> None:
    if separation is not None and distance is not None:
        raise InputError("separation, distance: expected one of the two, got both")
    if separation is None and distance is None and means is None:
        raise InputError("separation: expected a positive number, or a distance, got none")
    for name, value in (("separation", separation), ("distance", distance)):
        if value is not None and not 0 < value < np.inf:
            raise InputError(f"{name}: expected a positive number, got {value}")


def _solved(covariance: np.ndarray, means: np.ndarray) -> np.ndarray:
    """(K, d) Sigma^-1 mu of means (K, d)."""
    try:
        return np.linalg.solve(covariance, means.T).T
    except np.linalg.LinAlgError:
        raise InputError("covariance: expected one that can be inverted, got a singular one") from None


def _stretch(means: np.ndarray, covariance: np.ndarray, separation: float | None, distance: float | None) -> float:
    """What the means are multiplied by to have that mean Mahalanobis distance from the origin, or from each other."""
    if separation is None and distance is None:
        return 1.0
    solved = _solved(covariance, means)
    squares = np.einsum("kd,kd->k", means, solved)
    if separation is not None:
        return separation / float(np.sqrt(squares).mean())
    first, other = np.triu_indices(len(means), 1)
    between = squares[first] + squares[other] - 2 * (means @ solved.T)[first, other]
    assert distance is not None
    return distance / float(np.sqrt(np.maximum(between, 0)).mean())
