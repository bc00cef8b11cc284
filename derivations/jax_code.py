"""The only door from SymPy to numbers: a result becomes generated code, and that a vectorized function in JAX or NumPy.

Traps it closes: ``lambdify`` resolves an unknown ``erf`` to the scalar ``math.erf``; constants do not broadcast; an
undefined function fails only when called. Here every special function is mapped explicitly, anything else is refused by
name.
"""

import inspect
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import mpmath
import sympy

from derivations.compiled import compiled_code, vectorized
from derivations.result import Result

PLAIN = (sympy.exp, sympy.log, sympy.sin, sympy.cos, sympy.acos, sympy.atan, sympy.Piecewise, sympy.Abs)
KNOWN = ("Phi", "OwensT")  # special functions that the house has


def compile_result(
    result: Result, *, backend: str = "jax", cse: bool = True, functions: dict[str, Callable] | None = None
) -> Callable[..., Any]:
    """A vectorized function of ``result.arguments`` by keyword, as :func:`derivations.compiled.function` makes it from the
    generated code.

    Args:
        result: the derived result.
        backend: ``"jax"`` or ``"numpy"``.
        cse: share common subexpressions; changes rounding only.
        functions: implementations of special functions by SymPy name; ``Phi`` is known.

    Raises:
        ValueError: the formula holds a function that has no implementation here.
    """
    entry = _entry(result, code(result, backend=backend, cse=cse, known=("Phi", *(functions or {}))))
    compiled = compiled_code(entry["code"], backend, functions)
    return vectorized(result.name, compiled, backend, entry)


def code(result: Result, *, backend: str = "jax", cse: bool = True, known: Sequence[str] = KNOWN) -> str:
    """The source of the generated function: plain names of array functions, the same for JAX and NumPy.

    Raises:
        ValueError: the formula holds a function that is not among the known.
    """
    for part in result.parts:
        for node in sympy.preorder_traversal(part):
            if isinstance(node, sympy.Function) and not isinstance(node, PLAIN) and type(node).__name__ not in known:
                raise ValueError(f"{result.name}: no {backend} implementation of {type(node).__name__}")
    stand_ins = dict.fromkeys(known, abs)  # the code names them; whoever runs it says what they are
    return inspect.getsource(sympy.lambdify(result.arguments, list(result.parts), [stand_ins, backend], cse=cse))


def generate(results: Iterable[Result]) -> str:
    """The text of ``generated.json``: every result whose functions are known."""
    entries = {}
    for result in results:
        try:
            entries[result.name] = _entry(result, code(result))
        except ValueError:
            continue  # a statement that is verified and never evaluated
    return json.dumps(entries, indent=1) + "\n"


def _entry(result: Result, source: str) -> dict[str, Any]:
    names = [str(symbol) for symbol in result.arguments]
    statement = (
        f"{result.statement}\n\nArguments: {', '.join(names)}. Kind: {result.kind}. Assumes: "
        f"{'; '.join(result.assumptions)}. Source: {result.source}."
    )
    return {"arguments": names, "tuple": isinstance(result.formula, tuple), "statement": statement, "code": source}


def for_mpmath(arguments: Sequence[sympy.Symbol], expression: sympy.Expr) -> Callable[..., mpmath.mpf]:
    """A function of single numbers at mpmath's precision, for the numeric steps of the derivations."""
    return sympy.lambdify(arguments, expression, [{"Phi": mpmath.ncdf}, "mpmath"])
