"""Samplers behind ``simulate run``, one a file, found here by their ``SAMPLERS``; and the choice among them."""

import importlib
import pkgutil

from simulate.request import Request
from simulate.samplers.base import Sampler
from theory.setting.errors import InputError


def _registry() -> dict[str, Sampler]:
    modules = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    samplers = [sampler for module in modules for sampler in getattr(module, "SAMPLERS", ())]
    ranked = sorted(samplers, key=lambda sampler: (sampler.rank is None, sampler.rank or 0))
    return {sampler.name: sampler for sampler in ranked}


SAMPLERS: dict[str, Sampler] = _registry()


def refusal(sampler: Sampler, request: Request) -> str | None:
    """Why a sampler can't sample, None where it can."""
    if request.errors not in sampler.errors:
        return f"{' or '.join(sampler.errors)} errors"
    return sampler.refuses(request)


def sampler_of(request: Request, name: str | None = None) -> Sampler:
    """The sampler of that name, or the first that does not refuse.

    Raises:
        InputError: it refuses, or there is none.
    """
    able = [sampler for sampler in SAMPLERS.values() if refusal(sampler, request) is None]
    if name is not None:
        if name not in SAMPLERS:
            raise InputError(f"method: expected one of {', '.join(SAMPLERS)}, got {name!r}")
        why = refusal(SAMPLERS[name], request)
        if why is not None:
            others = ", ".join(sampler.name for sampler in able) or "no sampler at all"
            raise InputError(f"method: {name} needs {why}; expected one of {others} here")
        return SAMPLERS[name]
    for sampler in able:
        if sampler.rank is not None:
            return sampler
    reasons = {refusal(sampler, request) for sampler in SAMPLERS.values() if request.errors in sampler.errors}
    raise InputError(
        f"errors: no sampler draws {request.errors} errors here; needed: {'; or '.join(sorted(map(str, reasons)))}"
    )
