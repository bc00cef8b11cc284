"""The only door from SymPy to numbers: a result becomes a vectorized function in JAX or NumPy.

Traps it closes: ``lambdify`` resolves an unknown ``erf`` to the scalar ``math.erf``; constants do not broadcast; an
undefined function fails only when called. Here every special function is mapped explicitly, anything else is refused by
name, and every argument and every returned part has the common broadcast shape.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import mpmath
import numpy as np
import sympy

from derivations.result import Result

PLAIN = (sympy.exp, sympy.log, sympy.sin, sympy.cos, sympy.Piecewise, sympy.Abs)


def compile_result(
    result: Result, *, backend: str = "jax", cse: bool = True, functions: dict[str, Callable] | None = None
) -> Callable[..., Any]:
    """A vectorized function of ``result.arguments`` by keyword.

    Args:
        result: the derived result.
        backend: ``"jax"`` or ``"numpy"``.
        cse: share common subexpressions; changes rounding only.
        functions: implementations of special functions by SymPy name; ``Phi`` is known.

    Returns:
        A function that broadcasts its keyword arguments and returns one array, or a tuple of arrays where the formula is
        a tuple. Its docstring is the result's statement. With JAX it computes in the precision of its arguments.

    Raises:
        ValueError: the formula holds a function that has no implementation here.
    """
    known = {"Phi": _phi(backend), **(functions or {})}
    for part in result.parts:
        for node in sympy.preorder_traversal(part):
            if isinstance(node, sympy.Function) and not isinstance(node, PLAIN) and type(node).__name__ not in known:
                raise ValueError(f"{result.name}: no {backend} implementation of {type(node).__name__}")
    compiled = sympy.lambdify(result.arguments, list(result.parts), [known, backend], cse=cse)
    names = tuple(str(symbol) for symbol in result.arguments)

    def call(**arguments):
        if set(arguments) != set(names):
            raise TypeError(f"{result.name} takes {', '.join(names)}, got {', '.join(arguments)}")
        xp = _array_module(backend)
        values = [xp.asarray(arguments[name]) for name in names]
        shape = np.broadcast_shapes(*(value.shape for value in values))
        arrays = [xp.broadcast_to(value, shape) for value in values]
        parts = tuple(xp.broadcast_to(xp.asarray(part), shape) for part in compiled(*arrays))
        return parts if isinstance(result.formula, tuple) else parts[0]

    call.__name__ = result.name
    call.__doc__ = (
        f"{result.statement}\n\nArguments: {', '.join(names)}. Kind: {result.kind}. Assumes: "
        f"{'; '.join(result.assumptions)}. Source: {result.source}."
    )
    return call


def for_mpmath(arguments: Sequence[sympy.Symbol], expression: sympy.Expr) -> Callable[..., mpmath.mpf]:
    """A function of single numbers at mpmath's precision, for the numeric steps of the derivations."""
    return sympy.lambdify(arguments, expression, [{"Phi": mpmath.ncdf}, "mpmath"])


@functools.cache
def _array_module(backend: str):
    if backend == "jax":
        import jax.numpy

        return jax.numpy
    if backend == "numpy":
        return np
    raise ValueError(f"backend: expected 'jax' or 'numpy', got {backend!r}")


def _phi(backend: str) -> Callable:
    if backend == "jax":
        from jax.scipy.special import ndtr
    else:
        from scipy.special import ndtr
    return ndtr
