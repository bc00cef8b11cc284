"""``python -m simulate.experiments.power``: are the tests behind ``simulate check`` right? False alarms where a hypothesis is
true, and how often it is rejected the further it is from true.

Three classes, 16 features, 100 samples each; errors of a layer of 10 rows (of the noise they make, 1,000) and 64 features.
Level 0.05, no correction.
"""

import sys
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import beta, binom

from simulate.experiments import hypotheses as names
from simulate.experiments import hypothesis_tests as tests
from simulate.experiments.halves import read_table, write_table
from simulate.experiments.hypothesis_tests import Test
from simulate.generator import synthetic
from simulate.sampling.paired_counting import draw
from theory.setting.command_line import Parser, add_json, add_seed, print_json, print_table, progress, run, whole_number
from theory.setting.problem import Problem

LEVEL = 0.05
CLASSES, FEATURES, EACH = 3, 16, 100
ROWS, COLUMNS = 10, 64
FILE = "power.csv"

Case = Callable[[np.random.Generator, float], Test | None]


def _sampled(rng: np.random.Generator, layer: str = "optimal") -> tuple[Problem, np.ndarray, np.ndarray]:
    problem = synthetic(classes=CLASSES, features=FEATURES, separation=2.0, layer=layer, seed=int(rng.integers(2**31)))
    return problem, *draw(problem, CLASSES * EACH, rng)


def _radii(rng: np.random.Generator, x: float):
    """Gaussian features, each vector's deviation from its class mean times exp(x N(0, 1))."""
    problem, z, y = _sampled(rng)
    return problem, problem.means[y] + (z - problem.means[y]) * np.exp(x * rng.standard_normal((len(z), 1))), y


def gaussian_features(rng, x):
    _, z, y = _radii(rng, x)
    return tests.gaussian_features(z, y)


def gaussian_margins(rng, x):
    problem, z, y = _radii(rng, x)
    return tests.gaussian_margins(z, y, problem.weights, problem.bias)


def equal_covariances(rng, x):
    problem, z, y = _sampled(rng)
    return tests.equal_covariances(problem.means[y] + (z - problem.means[y]) * (1 + x * y[:, None]), y, rng)


def bayes_layer(rng, x):
    problem, z, y = _sampled(rng)
    W = problem.weights + x * np.abs(problem.weights).mean() * rng.standard_normal(problem.weights.shape)
    return tests.bayes_layer(z, y, z @ W.T + problem.bias, rng)


def same_law(rng, x):
    problem, z, y = _sampled(rng)
    other, labels = draw(problem, CLASSES * EACH, rng)
    return tests.same_law(z, y, (1 + x) * other, labels, rng)


def _rounded(rng, x):
    """Errors in steps and weights in steps; x = 0: independent uniform errors, else Gaussian weights of deviation 1/x steps."""
    if x == 0:
        return rng.random((ROWS, COLUMNS)) - 0.5, rng.standard_normal((ROWS, COLUMNS))
    weights = rng.standard_normal((ROWS, COLUMNS)) / x
    return np.round(weights) - weights, weights


def uniform_errors(rng, x):
    return tests.uniform_errors(_rounded(rng, x)[0].reshape(-1))


def error_variance(rng, x):
    return tests.error_variance(_rounded(rng, x)[0].reshape(-1))


def uncorrelated(rng, x):
    return tests.uncorrelated(*(part.reshape(-1) for part in _rounded(rng, x)))


def _copied(rng, x: float, axis: int) -> np.ndarray:
    """Uniform errors, a share x of them copied from the first row (axis 0) or the first column (axis 1)."""
    E = rng.random((ROWS, COLUMNS)) - 0.5
    return np.where(rng.random(E.shape) < x, np.broadcast_to(np.take(E, [0], axis), E.shape), E)


def independent_rows(rng, x):
    return tests.independent_rows(_copied(rng, x, 0))


def independent_entries(rng, x):
    _, z, _ = _sampled(rng)
    z = np.abs(np.tile(z, COLUMNS // FEATURES))  # positive features: what entries have in common adds up
    return tests.independent_entries(_copied(rng, x, 1), z.T @ z / len(z))


def gaussian_noise(rng, x):
    """x = 0: Gaussian errors; else uniform ones, and features the first of which has the share x of the power."""
    z = rng.standard_normal((50, COLUMNS))
    if x == 0:
        return tests.gaussian_noise(rng.standard_normal((1000, COLUMNS)) / np.sqrt(12), z, rng)
    z[:, 1:] *= np.sqrt((1 - x) / x * z[:, :1] ** 2 / np.sum(z[:, 1:] ** 2, 1, keepdims=True))
    return tests.gaussian_noise(rng.random((1000, COLUMNS)) - 0.5, z, rng)


CASES: dict[str, tuple[Case, str, tuple[float, ...]]] = {
    names.GAUSSIAN: (gaussian_features, "deviation of log radius", (0.0, 0.05, 0.1, 0.15, 0.2, 0.3)),
    names.MARGINS: (gaussian_margins, "deviation of log radius", (0.0, 0.1, 0.2, 0.3, 0.4, 0.6)),
    names.COVARIANCES: (equal_covariances, "growth of deviations by class", (0.0, 0.05, 0.1, 0.15, 0.2, 0.3)),
    names.BAYES: (bayes_layer, "perturbation over mean |w|", (0.0, 0.1, 0.2, 0.3, 0.5, 0.8)),
    names.TRAINING: (same_law, "features stretched by", (0.0, 0.05, 0.1, 0.15, 0.2, 0.3)),
    names.UNIFORM: (uniform_errors, "step over weight deviation", (0.0, 1.5, 2.0, 2.5, 3.0, 4.0)),
    names.VARIANCE: (error_variance, "step over weight deviation", (0.0, 1.5, 2.0, 2.5, 3.0, 4.0)),
    names.WEIGHTS: (uncorrelated, "step over weight deviation", (0.0, 1.5, 2.0, 2.5, 3.0, 4.0)),
    names.ROWS: (independent_rows, "share copied from a row", (0.0, 0.05, 0.1, 0.15, 0.2, 0.3)),
    names.ENTRIES: (independent_entries, "share copied from a column", (0.0, 0.05, 0.1, 0.15, 0.2, 0.3)),
    names.NOISE: (gaussian_noise, "power of one feature", (0.0, 0.2, 0.4, 0.6, 0.8, 0.95)),
}


def rejections(name: str, x: float, *, sets: int, seed: int) -> int:
    """How many of so many data sets the test of the hypothesis rejects at LEVEL."""
    case, rngs = CASES[name][0], (np.random.default_rng([seed, i, round(1000 * x)]) for i in range(sets))
    found = [case(rng, x) for rng in rngs]
    return sum(test is not None and test.p_value < LEVEL for test in found)


def power(*, sets: int = 1000, seed: int = 0) -> list[dict[str, Any]]:
    """A row per hypothesis and distance from it: share rejected of ``sets`` data sets where it is true, of a tenth as many
    elsewhere, with its 95 % interval (Clopper and Pearson's)."""
    rows = []
    cells = [(name, x) for name, (_, _, distances) in CASES.items() for x in distances]
    for name, x in progress(cells, what="testing the tests", unit="cell"):
        n = sets if x == 0 else max(1, sets // 10)
        k = rejections(name, x, sets=n, seed=seed)
        low, high = _between(k, n)
        line = {"hypothesis": name, "distance": x, "unit": CASES[name][1], "sets": n}
        rows.append(line | {"rejected": k / n, "low": low, "high": high})
    return rows


def _between(k: int, n: int) -> tuple[float, float]:
    low = 0.0 if k == 0 else float(beta.ppf(0.025, k, n - k + 1))
    return low, 1.0 if k == n else float(beta.ppf(0.975, k + 1, n - k))


def most_false_alarms(sets: int, rate: float = 1e-4) -> int:
    """What a test of the right size exceeds with this probability."""
    return int(binom.ppf(1 - rate, sets, LEVEL))


def shipped() -> list[dict]:
    """The table this command made, 1,000 data sets where the hypothesis is true, seed 0."""
    with (resources.files("simulate") / "data" / FILE).open(encoding="utf-8") as file:
        return read_table(file)


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="simulate.experiments.power", description=__doc__)
    parser.add_argument(
        "--sets", type=whole_number(10), default=1000, help="data sets where a hypothesis is true (default 1000)"
    )
    parser.add_argument("--out", metavar="DIR", help=f"write {FILE} there")
    add_seed(parser)
    add_json(parser)

    def work(a) -> None:
        rows = power(sets=a.sets, seed=a.seed)
        if a.out:
            write_table(Path(a.out) / FILE, rows)
        print_json(rows) if a.json else print_table(rows, list(rows[0]))

    parser.set_defaults(run=work)
    return run(parser, argv)


if __name__ == "__main__":
    sys.exit(main())
