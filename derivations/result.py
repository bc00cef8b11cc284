"""The record of a result, and the verification of its steps.

A result carries its formula and a function ``steps`` of that formula: the chain of claims that leads from the
definition to it. The formula is a parameter of its own derivation, so that a test can put a wrong one in its place and
see the derivation refuse it.
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import mpmath
import sympy

DIGITS = 30
KIND = re.compile(r"exact|bound \((upper|lower)\)|asymptotic \(.+\)|approximation( \(.+\))?")


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A claim ``left == right`` between SymPy expressions, settled by simplification, whatever the seed."""

    text: str
    left: sympy.Expr
    right: sympy.Expr

    def holds(self, seed: int = 0) -> bool:
        return sympy.simplify(sympy.expand(self.left - self.right)) == 0


@dataclass(frozen=True, kw_only=True)
class Numeric:
    """A claim checked by mpmath at random points: ``sides(rng)`` computes both sides at one of them."""

    text: str
    sides: Callable[[random.Random], tuple]
    points: int = 3
    tolerance: float = 1e-12

    def __post_init__(self):
        if self.points < 1:
            raise ValueError(f"{self.text}: expected at least one point, got {self.points}")

    def holds(self, seed: int = 0) -> bool:
        """Whether it holds at random points, others for each claim and seed."""
        rng = random.Random(f"{seed}: {self.text}")
        with mpmath.workdps(DIGITS):
            for _ in range(self.points):
                left, right = (
                    mpmath.mpmathify(side) if not isinstance(side, sympy.Basic) else _number(side) for side in self.sides(rng)
                )
                if not abs(left - right) <= self.tolerance * max(abs(left), abs(right)):
                    return False
        return True


Step = Identity | Numeric


@dataclass(frozen=True, kw_only=True)
class Result:
    """A derived formula.

    Attributes:
        name: what the code calls it.
        statement: the claim in words and ASCII mathematics.
        arguments: the formula's free symbols, in the order of the generated function.
        formula: a SymPy expression, or a tuple of them (the coefficients of a polynomial).
        assumptions: hypotheses under which the statement holds, beyond those on the symbols.
        kind: ``exact``, ``bound (upper)`` or ``(lower)``, ``asymptotic (order)``, or ``approximation``, the last without error
            control.
        source: where it comes from.
        steps: from a formula to the chain of claims that proves it.
    """

    name: str
    statement: str
    arguments: tuple[sympy.Symbol, ...]
    formula: sympy.Expr | tuple[sympy.Expr, ...]
    assumptions: tuple[str, ...]
    kind: str
    source: str
    steps: Callable[..., tuple[Step, ...]]

    def __post_init__(self):
        used = set().union(*(sympy.sympify(part).free_symbols for part in self.parts))
        if not KIND.fullmatch(self.kind):
            raise ValueError(f"{self.name}: expected exact, bound, asymptotic or approximation as its kind, got {self.kind!r}")
        if used != set(self.arguments) or len(used) != len(self.arguments):
            raise ValueError(f"{self.name}: declared arguments {self.arguments} differ from the free symbols {used}")

    @property
    def parts(self) -> tuple[sympy.Expr, ...]:
        return self.formula if isinstance(self.formula, tuple) else (self.formula,)

    def failures(self, formula=None, *, seed: int = 0) -> list[str]:
        """The claims that do not hold, for this formula or another one in its place."""
        return failures_of(self.steps(self.formula if formula is None else formula), seed)

    def record(self, seed: int = 0) -> dict:
        """The result as plain data, verified; ``seed``: of the points at which numeric claims are checked."""
        chain = self.steps(self.formula)
        failures = failures_of(chain, seed)
        return {
            "name": self.name,
            "statement": self.statement,
            "arguments": [str(symbol) for symbol in self.arguments],
            "formula": [str(part) for part in self.parts],
            "assumptions": list(self.assumptions),
            "kind": self.kind,
            "source": self.source,
            "steps": [step.text for step in chain],
            "verified": not failures,
            "failures": failures,
        }


def failures_of(chain: tuple[Step, ...], seed: int = 0) -> list[str]:
    """The claims of a chain that do not hold; one without a step proves nothing."""
    return [step.text for step in chain if not step.holds(seed)] if chain else ["there is no step that could fail"]


def collect(*modules: ModuleType) -> dict[str, Result]:
    """All results defined in the modules, by name; a name used twice is an error."""
    results: dict[str, Result] = {}
    for module in modules:
        for value in vars(module).values():
            if isinstance(value, Result) and results.setdefault(value.name, value) is not value:
                raise ValueError(f"two results are called {value.name!r}")
    return results


def _number(expression: sympy.Basic) -> mpmath.mpf:
    return sympy.N(expression, DIGITS)._to_mpmath(mpmath.libmp.dps_to_prec(DIGITS))


def evaluate(expression: sympy.Expr, values: dict) -> mpmath.mpf:
    """The expression at the given values of its symbols, to 30 digits."""
    return _number(expression.subs({symbol: sympy.Float(value, DIGITS) for symbol, value in values.items()}))


def draw(rng: random.Random, **ranges: tuple[float | int, float | int]) -> dict[str, mpmath.mpf]:
    """Random numbers by name, uniform in the given ranges."""
    return {name: mpmath.mpf(rng.uniform(low, high)) for name, (low, high) in ranges.items()}
