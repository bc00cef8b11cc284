"""Random layers: networks drawn from the error law, decisions counted."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from simulate.estimates import sampled
from simulate.request import PAIRS, Request
from simulate.samplers.base import Sampler
from simulate.samplers.reduced_pairs import counted_enough
from simulate.sampling.blocks import BLOCK
from simulate.sampling.paired_counting import Tally
from simulate.sampling.random_networks import count_networks
from theory.setting.errors import InputError
from theory.setting.record import Record

MOST = 2**16  # samples a network at most: they are held at once
EACH = 32  # samples a network by default


@dataclass(frozen=True, kw_only=True)
class RandomNetworks(Sampler):
    """Each network with samples of its own; nothing is integrated out. The standard error is that over networks."""

    def refuses(self, request):
        return None if request.question.activation_bits is None else "inputs that are not quantized"

    def estimate(self, request):
        return in_groups(request, self._alike)

    def _alike(self, request: Request) -> list[Record]:
        """Of layers whose rows are tied in the same way."""
        problem, K, networks = request.problem, request.problem.classes, request.networks
        samples = PAIRS if request.n is None else math.ceil(request.n / K)
        if networks is not None and samples > networks * MOST:
            raise InputError(
                f"networks: expected at least {math.ceil(samples / MOST)} for n = {samples * K}, got {networks}: "
                f"a network takes at most {MOST} samples"
            )
        each = EACH if networks is None else 2 ** max(0, math.ceil(math.log2(samples / networks)))
        errors = request.uniform_errors

        def count(first: int, last: int, onto: Tally | None) -> Tally:
            return count_networks(problem, errors, each=each, seed=request.seed, first=first, last=last, onto=onto)

        wanted = samples if networks is None else networks * each
        tally = counted_enough(count, math.ceil(wanted / max(each, BLOCK)), request)
        request = replace(request, provenance={**request.provenance, "networks": tally.units})
        return [sampled(tally, i, request, self.name) for i in range(len(request.layers))]


def in_groups(request: Request, estimate: Callable[[Request], list[Record]]) -> list[Record]:
    """The records of all layers, those whose rows are tied in the same way together."""
    found: dict[int, Record] = {}
    for indices in request.by_ties():
        found |= dict(zip(indices, estimate(request.only(indices)), strict=True))
    return [found[i] for i in range(len(request.layers))]


SAMPLERS = (
    RandomNetworks(
        name="random_networks",
        summary="random layers, decisions counted",
        errors=("expected",),
    ),
)
