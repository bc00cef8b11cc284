"""Known layers: the same features through the clean and the compressed ones, decisions counted."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from simulate.estimates import sampled
from simulate.request import PAIRS, Request, check_wanted
from simulate.samplers.base import Sampler
from simulate.sampling import mixtures
from simulate.sampling.blocks import BLOCK
from simulate.sampling.paired_counting import Tally, count_known


@dataclass(frozen=True, kw_only=True)
class ReducedPairs(Sampler):
    """In as many dimensions as there are logits; nothing is integrated out."""

    def refuses(self, request):
        if request.question.activation_bits is not None:
            return "inputs that are not quantized"
        return None if request.networks is None else "no --networks: there is one network"

    def estimate(self, request):
        problem = request.problem
        count_layers = count_known if problem.components is None else mixtures.count_known

        def count(first: int, last: int, onto: Tally | None) -> Tally:
            return count_layers(problem, request.weights, seed=request.seed, first=first, last=last, onto=onto)

        samples = PAIRS if request.n is None else math.ceil(request.n / problem.classes)
        tally = counted_enough(count, math.ceil(samples / BLOCK), request)
        return [sampled(tally, i, request, self.name) for i in range(len(request.layers))]


def counted_enough(count: Callable[[int, int, Tally | None], Tally], blocks: int, request: Request) -> Tally:
    """Count ``blocks`` blocks, then as many more as the standard error needs.

    It must reach the one that is asked for; where nothing is asked for, what PAIRS independent pairs would reach: networks that
    share their errors count for less.
    """
    tally, done, target, priors = count(0, blocks, None), blocks, request.standard_error, request.problem.priors
    promised = request.n is None and request.networks is None
    while target is not None or promised:
        # the second moment, an event more than seen: a width without any is not taken as exactly known
        squared = (tally.squares[:, 0] + (target is not None) / (tally.samples // tally.units) ** 2) / tally.units**2
        if target is not None:
            wanted = math.ceil(done * np.max(squared) / target**2)
            check_wanted(tally.samples / done * wanted * len(priors), request)
        else:
            distortion = (tally.made - tally.mended) @ priors / tally.samples
            pairs = tally.flips @ priors / tally.samples - distortion**2
            wanted = math.ceil(done * np.max((squared - distortion**2 / tally.units) / np.maximum(pairs / PAIRS, 1e-300)))
        if wanted <= done:
            break
        wanted = min(wanted, 16 * done)  # the variance itself is an estimate: in stages
        tally, done = count(done, wanted, tally), wanted
    return tally


SAMPLERS = (ReducedPairs(name="reduced_pairs", summary="known layers, decisions counted", errors=("actual",)),)
