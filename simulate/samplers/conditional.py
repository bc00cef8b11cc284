"""Known or random layers: samples on random lines, the position on the line integrated out."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from simulate.estimates import averaged
from simulate.request import PAIRS, Request, check_wanted
from simulate.samplers.base import Sampler
from simulate.samplers.random_networks import in_groups
from simulate.sampling.conditional_lines import Lines, blocks_of, count_lines
from theory.setting.record import Record

FIRST = 16  # blocks, before it is known how many are needed


@dataclass(frozen=True, kw_only=True)
class Conditional(Sampler):
    """Its standard error falls with the distortion."""

    def refuses(self, request):
        if request.question.activation_bits is not None:
            return "inputs that are not quantized"
        if request.problem.components is not None:
            return "Gaussian classes, not mixtures"
        if request.networks is not None:
            return "no --networks: a line has a network of its own"
        return None

    def estimate(self, request):
        return self._alike(request) if request.errors == "actual" else in_groups(request, self._alike)

    def _alike(self, request: Request) -> list[Record]:
        """Of known layers, or of random ones whose rows are tied in the same way."""
        sums = _enough(request)
        return [averaged(sums, i, request, self.name) for i in range(len(request.layers))]


def _enough(request: Request) -> Lines:
    """Blocks of lines: those that n asks for, or until the standard error is met (default: that of PAIRS counted pairs)."""
    problem, n = request.problem, request.n
    subject: dict[str, Any] = {"layers": np.stack(request.weights)}
    if request.errors == "expected":
        subject = {"errors": request.uniform_errors}
    done = blocks_of(n, problem.classes) if n is not None else FIRST
    sums = count_lines(problem, seed=request.seed, first=0, last=done, **subject)
    while n is None:
        mean = np.stack([sums.shift @ problem.priors, sums.flips @ problem.priors], 1) / sums.lines
        variance = sums.squares[:, 0] / sums.lines - mean[:, 0] ** 2
        target = np.maximum(mean[:, 1] - mean[:, 0] ** 2, 1e-12) / PAIRS
        if request.standard_error is not None:
            target = request.standard_error**2
        wanted = math.ceil(np.max(variance / target) / sums.lines * done)
        check_wanted(sums.lines / done * wanted * problem.classes, request)
        wanted = min(wanted, 16 * done)  # the variance itself is an estimate: in stages
        if wanted <= done:
            break
        sums, done = count_lines(problem, seed=request.seed, first=done, last=wanted, onto=sums, **subject), wanted
    return sums


SAMPLERS = (
    Conditional(
        name="conditional",
        summary="along random lines, the position integrated out",
        errors=("actual", "expected"),
        rank=None,
    ),
)
