"""Methods of prediction, one a file, found here by its ``METHODS``; and the choice among them."""

import importlib
import pkgutil
from collections.abc import Iterable

import numpy as np

from theory.effect import Effect
from theory.methods.base import Case, Method
from theory.setting.errors import InputError


def _found() -> Iterable[Method]:
    for module in pkgutil.iter_modules(__path__):
        yield from getattr(importlib.import_module(f"{__name__}.{module.name}"), "METHODS", ())


def registry(methods: Iterable[Method]) -> dict[str, Method]:
    """Methods by name, in the order in which they are asked, those asked only by name last.

    Raises:
        ValueError: two of one name.
    """
    ranked = sorted(methods, key=lambda method: (method.rank is None, method.rank or 0))
    found: dict[str, Method] = {}
    for method in ranked:
        if found.setdefault(method.name, method) is not method:
            raise ValueError(f"two methods are called {method.name!r}")
    return found


METHODS: dict[str, Method] = registry(_found())


def refusal(method: Method, case: Case) -> str | None:
    """Why a method can't answer, None where it can."""
    if case.errors not in method.errors:
        return f"{' or '.join(method.errors)} errors"
    return method.refuses(case)


def answers(case: Case, name: str | None = None) -> list[Effect]:
    """What each layer of the case does, by the method of that name, or by the best.

    Raises:
        InputError: the method asked for refuses, or there is none of that name.
    """
    if name is not None and name not in METHODS:
        raise InputError(f"method: expected one of {', '.join(METHODS)}, got {name!r}")
    if name is not None:
        why = refusal(METHODS[name], case)
        if why is not None:
            others = ", ".join(method.name for method in METHODS.values() if refusal(method, case) is None)
            raise InputError(f"method: {name} needs {why}; expected one of {others or 'no method at all'} here")
        effects = METHODS[name].answer(case)
        if not all(np.isfinite([effect.error, effect.flips_error]).all() for effect in effects):
            raise InputError(f"method: {name} needs a margin that varies in both classes, got weights that give a constant one")
        return effects
    able = [method for method in METHODS.values() if method.rank is not None and refusal(method, case) is None]
    if not able:
        asked = [method for method in METHODS.values() if case.errors in method.errors and method.rank is not None]
        reasons = sorted({f"{method.name} needs {method.refuses(case)}" for method in asked})
        raise InputError(f"errors: no method answers for {case.errors} errors here: {'; '.join(reasons)}")
    settled: dict[int, Effect] = {}
    tried: dict[int, list[Effect]] = {i: [] for i in range(len(case.layers))}
    for method in able:
        left = [i for i in tried if i not in settled]
        if not left:
            break
        for i, effect in zip(left, method.answer(case.only(left)), strict=True):
            tried[i].append(effect)
            if method.suffices(case, effect):
                settled[i] = effect
    return [settled.get(i) or min(effects, key=lambda effect: effect.error) for i, effects in tried.items()]
