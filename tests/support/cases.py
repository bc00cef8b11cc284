"""What known and random layers do by the methods themselves, without a door: layers need not come from a scheme."""

from collections.abc import Sequence

import numpy as np

from theory.budget import DEFAULT, Budget
from theory.effect import Effect
from theory.methods import METHODS, answers
from theory.methods.base import Case
from theory.setting.features import Features
from theory.setting.precision import in_float64
from theory.setting.problem import Problem
from theory.setting.question import Question, question
from theory.setting.schemes import Compressed


def compressed(asked: Question, subject: Problem | Features, bits: Sequence[int] | None) -> list[Compressed]:
    """The layers at each width, the step chosen."""
    from theory.choose.step import with_chosen_steps
    from theory.setting.plan import layers_of

    return layers_of(with_chosen_steps(asked.plans(bits), subject), subject.weights)


def layer_of(weights: np.ndarray, steps: np.ndarray) -> Compressed:
    """A layer of these weights (rows, d) and steps, (rows,) or (rows, 1)."""
    return Compressed(scheme="symmetric", bits=None, weights=weights, steps=steps.reshape(len(weights), -1), rate_breakdown={})


def case_of(problem: Problem, layers: Sequence[Compressed], errors: str, *, seed: int = 0, budget: Budget = DEFAULT) -> Case:
    return Case(
        question=question("symmetric"),
        errors=errors,
        given=problem,
        layers=tuple(layers),
        ask=answers,
        tied=False,
        seed=seed,
        budget=budget,
    )


@in_float64
def known(
    problem: Problem, layers: np.ndarray, *, method: str | None = None, seed: int = 0, budget: Budget = DEFAULT
) -> list[Effect]:
    """What known layers (B, rows, d) do by orthants or lines, of two classes too."""
    case = case_of(problem, [layer_of(W, np.ones(len(W))) for W in layers], "actual", seed=seed, budget=budget)
    names = [method] if method is not None else ["orthants", "lines"]
    able = [METHODS[name] for name in names if name == "lines" or _has_orthants(problem)]
    found = [one.answer(case) for one in able]
    return [min(effects, key=lambda effect: effect.error) for effects in zip(*found, strict=True)]


def _has_orthants(problem: Problem) -> bool:
    from theory.integrals.contrasts import has_orthants

    return has_orthants(problem)


@in_float64
def expected(
    problem: Problem, steps: np.ndarray, *, method: str | None = None, seed: int = 0, budget: Budget = DEFAULT
) -> Effect:
    """What random layers of independent uniform errors of these steps (rows,) do on average."""
    (effect,) = answers(case_of(problem, [layer_of(problem.weights, steps)], "expected", seed=seed, budget=budget), method)
    return effect
