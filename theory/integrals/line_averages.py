"""What layers of any number of Gaussian classes do, averaged over lines (:mod:`theory.integrals.lines`): known layers, pairs of
random ones, and single random networks.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from theory.budget import DEFAULT, Budget
from theory.integrals import lines
from theory.integrals.contrasts import MOST_RIVALS, centred, root, roots
from theory.integrals.orthant import SCRAMBLINGS, estimate
from theory.setting.error_law import UniformErrors
from theory.setting.problem import Problem

SETS = 8  # of lines, each independent
WALKED = 8  # lines of which one goes through all decisions, for the flips, where classes are more than MOST_RIVALS
TOGETHER = 25  # classes that share points there


class LineAverage(NamedTuple):
    """By class (K,): risk before, change of risk, flips, share whose correctness changes; the 95 % errors of the first three,
    weighted by the priors."""

    before: np.ndarray
    distortion: np.ndarray
    flips: np.ndarray
    changed: np.ndarray
    before_error: float
    error: float
    flips_error: float

    def numbers(self) -> dict[str, Any]:
        """Those that an effect has too, by name."""
        return {name: value for name, value in self._asdict().items() if name != "changed"}


def average_of(sets: np.ndarray, priors: np.ndarray) -> LineAverage:
    """Over sets of lines and the layers in them: (4, sets, layers, K) right, made, mended and flipped."""
    right, made, mended, flipped = sets
    errors = [float(estimate(x.mean(1) @ priors).error) for x in (right, made - mended, flipped)]
    values = (1 - right, made - mended, flipped, made + mended)
    return LineAverage(*(x.mean((0, 1)) for x in values), *errors)


def known_lines(
    problem: Problem, layers: np.ndarray, *, seed: int, budget: Budget = DEFAULT, share: float = 1.0
) -> list[LineAverage]:
    """Of each of the known layers (B, K, d), along common lines, this share of the budget's."""
    sets = along_lines(problem, layers, seed=seed, work=share * budget.line_work)
    return [average_of(sets[:, :, [i]], problem.priors) for i in range(len(layers))]


def along_lines(
    problem: Problem, layers: np.ndarray, *, seed: int, work: float, sets: Sequence[int] = range(SETS)
) -> np.ndarray:
    """(4, sets, B, K): right, made, mended and flipped of the compressed layers (B, K, d); the more layers, the fewer lines."""
    K, heads = problem.classes, centred(np.concatenate([problem.weights[None], layers]))
    least = 6 if K > MOST_RIVALS and len(heads) == 2 else 4  # there the distortion comes from them
    n = int(2 ** np.clip(np.round(np.log2(work / SETS / K**2 / len(heads))), least, 13))
    if problem.shared:
        shared = lines.law(heads, problem.bias, problem.means, root(problem.covariances))
        laws = [lambda: shared]
    else:
        nevers = np.array([lines.never(head, problem.bias) for head in heads])
        own = functools.partial(lines.law, heads, problem.bias, nevers=nevers)
        laws = [functools.partial(own, problem.means[[k]], one) for k, one in enumerate(roots(problem))]
    many = K > MOST_RIVALS
    return lines.class_change(
        laws,
        n=n,
        seeds=[(seed, 4, r) for r in sets],
        together=TOGETHER if many else 1,
        walked=n // WALKED if many else n,
    )


def random_lines(
    problem: Problem, errors: UniformErrors, *, seed: int, budget: Budget = DEFAULT, precision: float | None = None
) -> np.ndarray:
    """(4, SCRAMBLINGS, K): right, made, mended and flipped of random layers, each pair along one line a class, until the error
    of the flips over these is the precision (that of the budget)."""
    precision = budget.flips_precision if precision is None else precision
    K, d = problem.weights.shape
    factors = [root(problem.covariances)] if problem.shared else roots(problem)
    heads = lines.heads_of(centred(problem.weights), problem.bias, problem.means, factors)
    cost = 60 * K + 8 * d + d**2 / 30  # operations a line, with its part of the network
    networks = int(np.clip(budget.random_line_work / (SCRAMBLINGS * K * cost), 1, 2**14))
    walked = -(-networks // WALKED) if K > MOST_RIVALS else networks
    sums, rounds = np.zeros((4, SCRAMBLINGS, K)), 0
    while rounds < budget.random_line_rounds:
        seeds = [(seed, 5, r, rounds) for r in range(SCRAMBLINGS)]
        parts = [lines.random_change(heads, errors, networks=networks, walked=walked, seed=one) for one in seeds]
        sums, rounds = sums + np.stack(parts, 1), rounds + 1
        flips = estimate(sums[3] @ problem.priors)
        if flips.error <= precision * flips.value:
            break
    return sums / rounds


def networks_on_lines(problem: Problem, errors: UniformErrors, *, seed: int, budget: Budget = DEFAULT) -> np.ndarray:
    """Distortions of single networks less their mean, each seen along two independent sets of lines: what the two have in
    common is the spread over networks, the rest is noise of the lines."""
    K, d = problem.weights.shape
    few = int(2 ** np.clip(np.floor(np.log2(512 / K)), 2, 6))  # networks of a set of lines
    seen = []
    for r in range(SETS // 2):
        E = errors.of(np.random.default_rng([seed, 10, r]).random((few, K, d)) - 0.5)
        layers, sets = problem.weights + np.concatenate([E, -E]), (2 * r, 2 * r + 1)
        _, made, mended, _ = along_lines(problem, layers, seed=seed, sets=sets, work=budget.line_work)
        seen.append((made - mended) @ problem.priors)
    return in_common(np.array(seen))


def in_common(shift: np.ndarray) -> np.ndarray:
    """Deviations of networks' distortions (groups, 2, n), each seen twice, scaled to what the two have in common."""
    centred = shift - shift.mean((0, 2), keepdims=True)
    products = centred[:, 0] * centred[:, 1]
    common = max(float(products.mean()), float(products.std()) / np.sqrt(products.size))  # not below what can be seen
    both = centred.mean(1).reshape(-1)
    return both * np.sqrt(common / max(float(np.mean(both**2)), 1e-300))
