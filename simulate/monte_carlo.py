"""``simulate run``: the distortion of a compressed layer by Monte Carlo on the Gaussian problem."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from simulate import mixtures
from simulate.blocks import BLOCK, CHUNK
from simulate.conditional import Lines, blocks_of, count_lines
from simulate.estimate import averaged, sampled
from simulate.integer_sums import integer_pairs
from simulate.random_networks import count_networks
from simulate.sampler import Tally, count_known
from theory.setting.arguments import seed_of, share, whole
from theory.setting.compression import Compressed
from theory.setting.errors import InputError
from theory.setting.files import problem_of
from theory.setting.problem import Problem
from theory.setting.question import Options, question
from theory.setting.record import Record, version

PAIRS = 10**6  # samples by default: at least as good as a million independent pairs
MOST = 2**16  # samples a network at most: they are held at once
EACH = 32  # samples a network by default
METHODS = {"actual": ("reduced_pairs", "conditional"), "expected": ("random_networks", "conditional")}


def run(
    problem: Problem | Path | str,
    *,
    scheme: str,
    bits: Sequence[int] | None = None,
    errors: str = "actual",
    method: str | None = None,
    classes: Sequence[int] | None = None,
    confidence: float = 0.95,
    test_size: int | None = None,
    n: int | None = None,
    standard_error: float | None = None,
    networks: int | None = None,
    seed: int = 0,
    chunk: int = CHUNK,
    **options: Unpack[Options],
) -> list[Record]:
    """Estimate risk, distortion and flip rate of a compressed layer by counting decisions.

    All widths share the same samples. ``errors="actual"``: the one compressed layer, method ``reduced_pairs``.
    ``errors="expected"``: independent layers W + E, E uniform in +-step/2, method ``random_networks``; the standard error
    is taken over networks, and ``interval_sources["network"]`` is their spread with the sampling noise removed.

    Args:
        problem: a problem or a statistics file.
        scheme, bits, errors, classes, confidence, options: as :func:`theory.predict`.
        method: the sampler by name: counting (``reduced_pairs`` for actual, ``random_networks`` for expected errors, the
            default), or ``conditional``, whose standard error falls with the distortion.
        test_size: also say what a test set of so many samples would add, as ``interval_sources["test_set"]``; the interval
            stays that of the estimate.
        n: feature vectors (each class of a shared normal counted), rounded up to whole blocks; default at least as good
            as a million independent pairs.
        standard_error: go on until the distortion is known this well (all widths).
        networks: independent networks for expected errors, rounded up to whole blocks.
        seed: of the draws; chunk: blocks a compiled call, changes no number.

    Returns:
        One record per width with ``standard_error``, ``flip_rate_standard_error`` and ``n``; the interval is the estimate
        +- z standard errors.

    Raises:
        InputError: bad options.
    """
    if errors not in ("actual", "expected"):
        raise InputError(f"errors: expected 'actual' or 'expected', got {errors!r}")
    if n is not None and standard_error is not None:
        raise InputError("n, standard_error: expected one of the two, got both")
    asked, seed, confidence = question(scheme, **options), seed_of(seed), share("confidence", confidence)
    if n is not None:
        n = whole("n", n, 1)
    if test_size is not None:
        test_size = whole("test_size", test_size, 1)
    if standard_error is not None:
        standard_error = share("standard_error", standard_error)
    if networks is not None and errors == "actual":
        raise InputError(f"networks: expected none with actual errors (there is one network), got {networks}")
    if networks is not None:
        networks = whole("networks", networks, 2)
    problem = asked.of(problem_of(problem).restrict(classes))
    known = METHODS[errors] if problem.components is None else METHODS[errors][:1]
    if method is not None and method not in known:
        raise InputError(f"method: expected one of {', '.join(known)} for {errors} errors, got {method!r}")
    if method == "conditional" and networks is not None:
        raise InputError(
            f"networks: expected none with the method conditional (a line has a network of its own), got {networks}"
        )
    K = problem.classes
    layers = asked.layers(problem, bits)
    if asked.activation_bits is not None:
        for name, value in (("method", method), ("networks", networks), ("standard_error", standard_error)):
            if value is not None:
                raise InputError(f"{name}: expected none for scheme integer, whose samples are counted, got {value}")
        return integer_pairs(
            problem,
            layers,
            activation_bits=asked.activation_bits,
            corrected=asked.bias_correction,
            errors=errors,
            n=PAIRS if n is None else n,
            confidence=confidence,
            seed=seed,
            provenance={"by": f"simulate.run {version()}", "statistics": problem.provenance, "seed": seed},
        )
    if errors == "expected" and not layers[0].stepped:
        raise InputError(f"errors: expected 'actual' for scheme {scheme}, whose errors are known, got 'expected'")
    if method == "conditional":
        sums = _conditional(problem, layers, errors, n, standard_error, seed)
        provenance = {"by": f"simulate.run {version()}", "statistics": problem.provenance, "seed": seed}
        return [
            averaged(sums, i, layer, problem.priors, problem.source_bits, confidence, errors, test_size, provenance)
            for i, layer in enumerate(layers)
        ]
    samples = PAIRS if n is None else math.ceil(n / K)
    if errors == "actual":

        def count(first: int, last: int, onto: Tally | None) -> Tally:
            compressed = [layer.weights for layer in layers]
            count = count_known if problem.components is None else mixtures.count_known
            return count(problem, compressed, seed=seed, first=first, last=last, chunk=chunk, onto=onto)

        block, each = BLOCK, 1
    else:
        if networks is not None and samples > networks * MOST:
            raise InputError(
                f"networks: expected at least {math.ceil(samples / MOST)} for n = {samples * K}, got {networks}: "
                f"a network takes at most {MOST} samples"
            )
        each = EACH if networks is None else 2 ** max(0, math.ceil(math.log2(samples / networks)))
        steps = np.stack([layer.steps for layer in layers])

        def count(first: int, last: int, onto: Tally | None) -> Tally:
            return count_networks(problem, steps, each=each, seed=seed, first=first, last=last, chunk=chunk, onto=onto)

        block = max(each, BLOCK)
    wanted = samples if networks is None else networks * each
    promised = n is None and networks is None
    tally = _enough(count, math.ceil(wanted / block), problem.priors, standard_error, promised=promised)
    provenance = {
        "by": f"simulate.run {version()}",
        "statistics": problem.provenance,
        "seed": seed,
        "networks": tally.units if errors == "expected" else 1,
    }
    return [
        sampled(tally, i, layer, problem.priors, problem.source_bits, confidence, errors, known[0], test_size, provenance)
        for i, layer in enumerate(layers)
    ]


def _conditional(
    problem: Problem, layers: list[Compressed], errors: str, n: int | None, standard_error: float | None, seed: int
) -> Lines:
    """Blocks of lines: those that n asks for, or until the standard error is met (default: that of PAIRS counted pairs)."""
    subject: dict[str, Any] = {"layers": np.stack([layer.weights for layer in layers])}
    if errors == "expected":
        subject = {"steps": np.stack([layer.steps for layer in layers])}
    done = blocks_of(n, problem.classes) if n is not None else 16
    sums = count_lines(problem, seed=seed, first=0, last=done, **subject)
    while n is None:
        mean = np.stack([sums.shift @ problem.priors, sums.flips @ problem.priors], 1) / sums.lines
        variance = sums.squares[:, 0] / sums.lines - mean[:, 0] ** 2
        target = np.maximum(mean[:, 1] - mean[:, 0] ** 2, 1e-12) / PAIRS if standard_error is None else standard_error**2
        wanted = min(math.ceil(np.max(variance / target) / sums.lines * done), 16 * done)
        if wanted <= done:
            break
        sums, done = count_lines(problem, seed=seed, first=done, last=wanted, onto=sums, **subject), wanted
    return sums


def _enough(count: Callable[..., Tally], blocks: int, priors: np.ndarray, target: float | None, *, promised: bool) -> Tally:
    """Count ``blocks`` blocks, then as many more as the standard error needs.

    It must reach ``target`` where one is given; else, where ``promised``, what PAIRS independent pairs would reach:
    networks that share their errors count for less.
    """
    tally, done = count(0, blocks, None), blocks
    while target is not None or promised:
        # the second moment, an event more than seen: a width without any is not taken as exactly known
        squared = (tally.squares[:, 0] + (target is not None) / (tally.samples // tally.units) ** 2) / tally.units**2
        if target is not None:
            wanted = math.ceil(done * np.max(squared) / target**2)
        else:
            distortion = (tally.made - tally.mended) @ priors / tally.samples
            pairs = tally.flips @ priors / tally.samples - distortion**2
            wanted = math.ceil(done * np.max((squared - distortion**2 / tally.units) / np.maximum(pairs / PAIRS, 1e-300)))
        if wanted <= done:
            break
        wanted = min(wanted, 16 * done)  # the variance itself is an estimate: in stages
        tally, done = count(done, wanted, tally), wanted
    return tally
