"""Integer layers: full feature vectors, their codes, sums of products of codes; nothing is integrated out."""

import math
from dataclasses import dataclass, replace

import numpy as np

from simulate.estimates import NORMAL_95, Decisions, counted, interval_of, network_spread, remarks_of, test_noise
from simulate.measurement import decisions
from simulate.request import PAIRS, Request
from simulate.samplers.base import Sampler
from simulate.sampling.paired_counting import draw
from theory.setting import integer
from theory.setting.command_line import progress
from theory.setting.error_law import uniform_errors
from theory.setting.errors import InputError
from theory.setting.features import Features
from theory.setting.problem import decide
from theory.setting.record import Record, compression_fields
from theory.setting.schemes import Compressed

CHUNK = 2**15  # samples drawn at once
EACH = 256  # samples a network
MOST = 10**8  # samples: their decisions are held at once


@dataclass(frozen=True, kw_only=True)
class IntegerSums(Sampler):
    """Counts."""

    def refuses(self, request):
        if request.question.activation_bits is None:
            return "quantized inputs"
        for name, value in (("networks", request.networks), ("standard-error", request.standard_error)):
            if value is not None:
                return f"no --{name}: samples are counted"
        return None

    def estimate(self, request):
        if (request.n or 0) > MOST:
            raise InputError(f"n: expected at most {MOST:.0e} with quantized inputs, got {request.n:.3g}")
        return integer_pairs(request, PAIRS if request.n is None else request.n, self.name)


def integer_pairs(request: Request, n: int, method: str) -> list[Record]:
    """The records of n samples (whole chunks) of a Gaussian problem through the clean layer and the integer ones; all layers
    see the same samples. With expected errors a random layer W + E of the step for every EACH samples, in floating point on the
    quantized inputs; the standard error is then that over networks."""
    problem, layers, seed = request.problem, request.layers, request.seed
    activation_bits, corrected = request.question.activation_bits, request.question.bias_correction
    assert activation_bits is not None  # else the sampler refuses
    labels, before = [], []
    after: list[list[np.ndarray]] = [[] for _ in layers]
    for i in progress(range(math.ceil(n / CHUNK)), what="sampling", unit="chunk"):
        rng = np.random.default_rng([seed, i])
        z, y = draw(problem, CHUNK, rng)
        features = Features(features=z, labels=y, weights=problem.weights, bias=problem.bias)
        labels.append(y.astype(np.int32))
        before.append(decisions(features, problem.weights, problem.bias).astype(np.int32))
        codes = integer.codes(problem, z, activation_bits)
        for found, layer in zip(after, layers, strict=True):
            if request.errors == "actual":
                found.append(decide(integer.sums(problem, layer, codes, activation_bits, corrected)).astype(np.int32))
            else:
                found.append(_networks(request, layer, codes, rng).astype(np.int32))
    y, clean = np.concatenate(labels), np.concatenate(before)
    records, beyond = [], None if problem.components is not None else integer.beyond_range(problem, activation_bits)
    clipped = (
        []
        if beyond is None
        else [f"{beyond}: it is clipped here, the prediction clips none; predict from the features themselves"]
    )
    for found, layer in zip(after, layers, strict=True):
        decisions_of = Decisions(y, clean, np.concatenate(found), problem.class_numbers)
        record = counted(decisions_of, compression_fields(layer, problem.source_bits), request.confidence, request.provenance)
        changed = (record.provenance["made"] + record.provenance["mended"]) / len(y)
        sources = record.interval_sources | {"test_set": test_noise(changed, record.distortion, request.test_size)}
        warnings = [*record.warnings, *remarks_of(request, layer), *clipped]
        records.append(replace(record, errors=request.errors, method=method, interval_sources=sources, warnings=warnings))
    if request.errors == "actual":
        return records
    return [_over_networks(record, y, clean, np.concatenate(found)) for record, found in zip(records, after, strict=True)]


def _networks(request: Request, layer: Compressed, codes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Decisions of random layers, one for every EACH samples."""
    problem, bits, corrected = request.problem, request.question.activation_bits, request.question.bias_correction
    assert bits is not None  # else the sampler refuses
    u, zbar = codes * integer.input_grid(problem, bits)[0], problem.mean_feature
    errors, out = uniform_errors(problem.weights, layer, tied=request.tied), np.empty(len(u), np.int64)
    for first in range(0, len(u), EACH):
        some = slice(first, first + EACH)
        What = problem.weights + errors.of(rng.random(problem.weights.shape) - 0.5)
        bias = problem.bias + ((problem.weights - What) @ zbar if corrected else 0.0)
        out[some] = decide(u[some] @ What.T + bias)
    return out


def _over_networks(record: Record, labels: np.ndarray, before: np.ndarray, after: np.ndarray) -> Record:
    change = (after != labels).astype(float) - (before != labels)
    shift = change.reshape(-1, EACH).mean(1)
    network = network_spread(float(np.mean(shift**2)), float(np.mean(change**2)), record.distortion, EACH)
    flips = (after != before).reshape(-1, EACH).mean(1)
    errors = [float(x.std(ddof=1) / np.sqrt(len(x))) for x in (shift, flips)]
    interval, warnings = interval_of(record.distortion, errors[0], record.confidence, int(np.sum(change != 0)), len(shift))
    others = [warning for warning in record.warnings if not warning.startswith("no decision changed its correctness")]
    return replace(
        record,
        standard_error=errors[0],
        flip_rate_standard_error=errors[1],
        flip_rate_error=NORMAL_95 * errors[1],
        interval=interval,
        warnings=[*warnings, *others],
        interval_sources=record.interval_sources | {"network": network},
    )


SAMPLERS = (
    IntegerSums(
        name="integer_sums",
        summary="integer layers, decisions counted",
        errors=("actual", "expected"),
    ),
)
