"""Single numbers about random layers of Gaussian classes, without a record: means for given steps, the law of networks."""

import numpy as np

from theory.integrals import two_classes
from theory.integrals.contrasts import has_orthants, orthant_pairs
from theory.integrals.network_draws import draw_networks, margin_errors, sobol_average
from theory.methods import answers
from theory.methods.base import Case
from theory.methods.margin_quadrature import precise, quadrature
from theory.methods.older_formulas import average_by
from theory.setting.error_law import independent_errors
from theory.setting.precision import in_float64
from theory.setting.problem import Problem
from theory.setting.question import question
from theory.setting.schemes import Compressed


def random_case(problem: Problem, steps: np.ndarray, seed: int = 0) -> Case:
    """The case of independent uniform errors of these steps, (rows, 1) or (rows, d)."""
    layer = Compressed(scheme="symmetric", bits=None, weights=problem.weights, steps=steps, rate_breakdown={})
    return Case(
        question=question("symmetric"),
        errors="expected",
        given=problem,
        layers=(layer,),
        ask=answers,
        tied=False,
        seed=seed,
    )


@in_float64
def expected_distortion(problem: Problem, *, v: float, k4: float, k6: float) -> float:
    """Expected distortion of two classes by the margin quadrature, for errors of the margin's weights with independent
    symmetric entries of variance ``v`` and fourth and sixth cumulants ``k4 v^2`` and ``k6 v^3``."""
    pair = two_classes.pair_of(problem)
    moments = two_classes.moments(pair)
    value = two_classes.quadrature(two_classes.margin(pair), moments, np.asarray(v), np.asarray(k4), np.asarray(k6))
    return float(np.asarray(value.distortion) @ pair.priors)


@in_float64
def average_of_two(
    problem: Problem, steps: np.ndarray, method: str | None = None, *, seed: int = 0
) -> tuple[str, float, float]:
    """The method, by name or the best, the expected distortion of two classes under independent uniform errors, its error."""
    case = random_case(problem, steps, seed)
    if method in two_classes.OLDER:
        closed = average_by(method, case)
        return method, float(closed.distortion @ problem.priors), closed.error
    average = case.once(quadrature)
    if method == "margin_quadrature" or (method is None and precise(case, average)):
        return "margin_quadrature", float(average.distortion @ problem.priors), average.error
    average = sobol_average(*case.random_margin(), seed)
    return "sobol_average", float(average.distortion @ problem.priors), average.error


@in_float64
def mean_distortion(problem: Problem, steps: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    """Expected distortion under independent uniform errors of these steps, by the best method, and its 95 % error; of more
    classes without the flips and the law of single networks, which would take longer."""
    if problem.classes == 2:
        return average_of_two(problem, steps, seed=seed)[1:]
    if has_orthants(problem):
        recalls, error, _ = orthant_pairs(problem, independent_errors(steps), seed=seed)
        return float((recalls[:, :, :1] - recalls[:, :, 1:]).mean((0, 1, 2)) @ problem.priors), error
    (effect,) = answers(random_case(problem, steps, seed))
    return float(effect.distortion @ problem.priors), effect.error


@in_float64
def network_law(problem: Problem, steps: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """(16384,) draws of the predicted law of the distortion of two classes over single networks W + E, E independent and
    uniform in +-steps/2, the statistics taken as exact."""
    errors = margin_errors(independent_errors(steps))
    pair = two_classes.pair_of(problem).scaled(errors.columns)
    return draw_networks(pair, two_classes.margin(pair), errors, None, seed).distortion
