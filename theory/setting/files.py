"""The project's files: what kind an ``.npz`` is, its arrays say: ``features`` makes a features file, ``means`` a statistics
file, ``gram`` a noise file. Read, validated, written.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from theory.setting.archive import check_place, check_readable, member_names, read_arrays, write_arrays, write_whole
from theory.setting.checks import head, semi_definite, shaped
from theory.setting.dense import HIDDEN, DenseNetwork
from theory.setting.errors import InputError, in_short, listed
from theory.setting.features import Features
from theory.setting.noise import SCALES, Noise, Tensors
from theory.setting.plan import Plan, plan_of
from theory.setting.problem import Components, Problem, decide

AGREEMENT = 0.999  # share of rows where W z + b must decide as the stored logits do
STATISTICS = ("weights", "bias", "priors", "means", "covariances")
COMPONENTS = ("classes", "shares", "means", "covariances")  # each "component_..." in the file
OPTIONAL = ("counts", "misfit", "changed_ratio", "feature_range", "provenance", *(f"component_{name}" for name in COMPONENTS))
FEATURES = ("features", "labels", "weights", "bias", "logits", "class_names", "provenance")
TENSORS = tuple(f"tensor_{name}" for name in ("names", "kinds", "sizes", "rows", "low", "high"))
NOISE = (
    "logits",
    "labels",
    "candidates",
    *TENSORS,
    *(f"{what}{scale}" for what in ("gram", "draws") for scale in SCALES),
    "gain_rates",
    "fold",
    "provenance",
)
GRAM_BITS, DRAW_BITS = 15, 7  # of the fractions in a noise file: relative errors of 2e-5 and 4e-3
LARGEST_PLAN = 2**24  # bytes
DEEPEST = 50  # levels of a provenance
MOST_SAMPLES = 2**53  # of a class: what float64 counts
ANY = "a problem, features or a file (.npz)"
MOST_LAYERS = 64  # hidden ones of a dense network
Subject = Problem | Features | Noise | DenseNetwork
Arrays = dict[str, np.ndarray]


@contextmanager
def _of_file(path: Path | str) -> Iterator[None]:
    """Errors name the file."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def problem_of(source: "Problem | Path | str") -> Problem:
    """The problem itself, or the one a statistics file holds."""
    return source if isinstance(source, Problem) else read_statistics(_path(source, "a Problem or a statistics file"))


def read_run(source: "Problem | DenseNetwork | Path | str") -> Problem | DenseNetwork:
    """What can be sampled: a problem or a dense network, or their file."""
    if isinstance(source, DenseNetwork):
        return source
    if isinstance(source, str | os.PathLike) and HIDDEN[0].format(1) in member_names(source):
        return read_dense(source)
    return problem_of(source)


def features_of(source: "Features | Path | str") -> Features:
    """The labelled features themselves, or those a features file holds."""
    features = source if isinstance(source, Features) else read_features(_path(source, "Features or a features file"))
    if not features.labelled:
        raise InputError("labels: missing, expected of the samples of features")
    return features


def _path(source, expected: str) -> Path:
    if not isinstance(source, str | os.PathLike):
        raise InputError(f"expected {expected}, got a {type(source).__name__}")
    return Path(source)


def read_any(source: "Subject | Path | str") -> Subject:
    """A problem, features, the noise of a network's logits or a dense network, from any kind of file."""
    if isinstance(source, Noise | DenseNetwork):
        return source
    if not isinstance(source, Problem | Features):
        names = member_names(_path(source, ANY))
        if "gram" in names:
            return read_noise(source)
        if HIDDEN[0].format(1) in names:
            return read_dense(source)
    return read_either(source)


def read_either(source: "Problem | Features | Path | str") -> "Problem | Features":
    """A problem or features, from either kind of file."""
    if isinstance(source, Problem | Features):
        return source
    path = _path(source, ANY)
    names = member_names(path)
    return read_features(path, labelled=False) if "features" in names and "means" not in names else read_statistics(path)


def read_statistics(path: Path | str) -> Problem:
    """Read and validate a statistics file.

    Raises:
        InputError: one line naming the file, the array, what was expected and what came.
    """
    _check_kind(path, "means", "features", "a statistics file, got a features file: run `python -m simulate fit` on it")
    if HIDDEN[0].format(1) in member_names(path):
        raise InputError(f"{path}: {HIDDEN[0].format(1)}: expected the statistics of one layer, got a network of several")
    arrays = read_arrays(path, (*STATISTICS, *OPTIONAL))
    with _of_file(path):
        _require(arrays, STATISTICS, "statistics", member_names(path))
        weights, _ = head(arrays["weights"], arrays["bias"])
        moments: dict[str, Any] = {name: arrays[name] for name in STATISTICS}
        problem = Problem(
            **moments,
            counts=_counts(arrays, max(2, len(weights))),
            misfit=_optional_number(arrays, "misfit"),
            changed_ratio=_optional_number(arrays, "changed_ratio"),
            feature_range=_range(arrays),
            source_bits=8 * arrays["weights"].dtype.itemsize,
            provenance=_provenance(path, arrays),
        )
        return replace(problem, components=_components(arrays, problem.priors, problem.features))


def read_dense(path: Path | str) -> DenseNetwork:
    """Read and validate a statistics file of a dense network of several layers.

    Raises:
        InputError: as :func:`read_statistics`.
    """
    there = member_names(path)
    numbers = range(1, MOST_LAYERS + 1)
    hidden = [tuple(name.format(number) for name in HIDDEN) for number in numbers if HIDDEN[0].format(number) in there]
    arrays = read_arrays(path, (*STATISTICS, "provenance", *(name for pair in hidden for name in pair)))
    with _of_file(path):
        _require(arrays, (*STATISTICS, *(name for pair in hidden for name in pair)), "statistics", there)
        K, d = max(2, len(arrays["weights"])), (arrays["means"].shape or (0,))[-1]
        law: dict[str, Any] = {name: arrays[name] for name in ("priors", "means", "covariances")}
        return DenseNetwork(
            hidden=tuple((arrays[weights], arrays[bias]) for weights, bias in hidden),
            weights=arrays["weights"],
            bias=arrays["bias"],
            inputs=Problem(weights=np.zeros((K, max(d, 1))), bias=np.zeros(K), **law),
            provenance=_provenance(path, arrays),
        )


def read_features(path: Path | str, *, labelled: bool = True) -> Features:
    """Read and validate a features file; where it need not be ``labelled`` and is not, labels are all -1.

    Raises:
        InputError: as :func:`read_statistics`; also a head that does not decide as the stored logits do.
    """
    _check_kind(path, "features", "means", "a features file, got a statistics file")
    arrays = read_arrays(path, FEATURES)
    with _of_file(path):
        _require(arrays, ("features", *(["labels"] if labelled else []), "weights", "bias"), "features", member_names(path))
        features = Features(
            features=arrays["features"],
            labels=arrays.get("labels", np.full(arrays["features"].shape[:1], -1)),
            weights=arrays["weights"],
            bias=arrays["bias"],
            logits=arrays.get("logits"),
            class_names=_class_names(arrays),
            source_bits=8 * arrays["weights"].dtype.itemsize,
            provenance=_provenance(path, arrays),
        )
        if "labels" in arrays and not features.labelled:
            raise InputError(f"labels: expected 0 to {features.classes - 1}, got -1 at row 0")
        _check_logits(features)
        return features


def read_noise(path: Path | str) -> Noise:
    """Read and validate a noise file.

    Raises:
        InputError: as :func:`read_statistics`.
    """
    arrays = read_arrays(path, NOISE)
    with _of_file(path):
        _require(arrays, ("logits", "candidates", *TENSORS, "gram"), "noise", member_names(path))
        own: dict[str, Any] = {name.removeprefix("tensor_"): arrays[name] for name in TENSORS}
        for name in ("names", "kinds"):
            if own[name].ndim != 1 or own[name].dtype.kind != "U":
                raise InputError(f"tensor_{name}: expected a list of texts, got {own[name].dtype} of shape {own[name].shape}")
            own[name] = tuple(map(str, own[name]))
        return Noise(
            logits=arrays["logits"],
            labels=arrays.get("labels", np.full(arrays["logits"].shape[:1], -1)),
            candidates=arrays["candidates"],
            tensors=Tensors(**own),
            grams={scale: arrays[f"gram{scale}"] for scale in SCALES if f"gram{scale}" in arrays},
            draws={scale: arrays[f"draws{scale}"] for scale in SCALES if f"draws{scale}" in arrays},
            gain_rates=arrays.get("gain_rates"),
            fold=bool(arrays["fold"]) if arrays.get("fold", np.zeros(())).shape == () else False,
            provenance=_provenance(path, arrays),
        )


def write_noise(path: Path | str, noise: Noise) -> None:
    """Write a noise file, compressed."""
    tensors = noise.tensors
    arrays: Arrays = {"logits": noise.logits.astype(np.float32), "candidates": noise.candidates.astype(np.int32)}
    if noise.labelled:
        arrays["labels"] = noise.labels
    arrays |= {name: np.array(getattr(tensors, name.removeprefix("tensor_"))) for name in TENSORS}
    arrays |= {f"gram{scale}": trimmed(gram.astype(np.float32), GRAM_BITS) for scale, gram in noise.grams.items()}
    arrays |= {f"draws{scale}": trimmed(draws.astype(np.float16), DRAW_BITS) for scale, draws in noise.draws.items()}
    if noise.gain_rates is not None:
        arrays["gain_rates"] = noise.gain_rates
    arrays |= {"fold": np.array(noise.fold), "provenance": np.array(json.dumps(noise.provenance))}
    write_arrays(path, arrays, compressed=True)


def trimmed(values: np.ndarray, bits: int) -> np.ndarray:
    """Floats rounded to so many bits of their fraction: the rest are zeros, which compress."""
    whole, fraction = {np.dtype(np.float32): (np.uint32, 23), np.dtype(np.float16): (np.uint16, 10)}[values.dtype]
    cut = fraction - bits
    half = whole(1 << (cut - 1))
    return ((np.ascontiguousarray(values).view(whole) + half) & ~whole((1 << cut) - 1)).view(values.dtype)


def read_plan(path: Path | str) -> Any:
    """The JSON document of a plan (:func:`theory.setting.plan.plan_of`)."""
    with _of_file(path):
        existing = check_readable(path, "a plan, a JSON file", named=False)
        if existing.stat().st_size > LARGEST_PLAN:
            raise InputError(f"expected a plan of at most {LARGEST_PLAN} bytes, got {existing.stat().st_size}")
        return read_json("plan", existing.read_text(encoding="utf-8", errors="replace"))


def given_plan(plan: Any, names: Iterable[str], scheme: str, beside: Mapping[str, Any], *, fold: bool = False) -> Plan:
    """The plan of a document or of its file, for a network of these weights, with batch norm folded into them or not. The
    scheme asked for, and options ``beside`` it, may not say otherwise.

    Raises:
        InputError: they do, or it is a plan of another network.
    """
    made = plan_of(read_plan(plan) if isinstance(plan, str | Path) else plan, names)
    tensors = made.tensors.values()
    if scheme not in {tensor.scheme for tensor in tensors}:
        raise InputError(
            f"scheme: expected {' or '.join(sorted({tensor.scheme for tensor in tensors}))} of the plan, got {scheme}"
        )
    for option, value in beside.items():
        agrees = option == "per_channel" and all(tensor.options.get("per_channel") for tensor in tensors)
        if value and not agrees:
            raise InputError(f"{option}: expected none beside a plan, which says it for every weight, got {value!r}")
    if made.fold != fold:
        folded, held = "batch norm folded into the weights", "batch norm as it is"
        raise InputError(f"plan: expected one for {folded if fold else held}, got one for {held if fold else folded} (--fold)")
    return made


def write_plan(path: Path | str, document: dict[str, Any]) -> None:
    check_place(path, ".json")
    write_whole(path, lambda file: file.write((json.dumps(document, indent=1) + "\n").encode()))


def write_statistics(path: Path | str, problem: Problem) -> None:
    arrays = {name: getattr(problem, name) for name in STATISTICS}
    arrays["weights"] = arrays["weights"].astype(f"float{problem.source_bits}")
    if problem.counts is not None:
        arrays["counts"] = problem.counts
    for name in ("misfit", "changed_ratio"):
        if getattr(problem, name) is not None:
            arrays[name] = np.array(getattr(problem, name))
    if problem.feature_range is not None:
        arrays["feature_range"] = problem.feature_range
    if problem.components is not None:
        arrays |= {f"component_{name}": getattr(problem.components, name) for name in COMPONENTS}
    arrays["provenance"] = np.array(json.dumps(problem.provenance))
    write_arrays(path, arrays)


def write_dense(path: Path | str, network: DenseNetwork) -> None:
    """Write a statistics file of a dense network."""
    arrays: Arrays = {"weights": network.weights, "bias": network.bias}
    arrays |= {name: getattr(network.inputs, name) for name in ("priors", "means", "covariances")}
    for number, layer in enumerate(network.hidden, 1):
        arrays |= {name.format(number): array for name, array in zip(HIDDEN, layer, strict=True)}
    write_arrays(path, arrays | {"provenance": np.array(json.dumps(network.provenance))})


def _check_kind(path: Path | str, needed: str, other: str, expected: str) -> None:
    names = member_names(path)
    if other in names and needed not in names:
        raise InputError(f"{path}: {needed}: expected {expected}")


def _require(arrays: Arrays, names: tuple[str, ...], kind: str, there: Sequence[str] = ()) -> None:
    """Refuse what lacks some of these arrays; ``there`` are all that the file has."""
    missing = [name for name in names if name not in arrays]
    if missing:
        hint = " (a layer without one has zeros)" if missing == ["bias"] else ""
        if kind == "statistics" and "labels" in there:
            hint = " (or `features`, of a features file)"
        beside = f"beside {listed(there or arrays, 10)}" if there or arrays else "that holds no array"
        raise InputError(f"{', '.join(missing)}: missing, expected in a {kind} file {beside}{hint}")


def _check_logits(features: Features) -> None:
    """Refuse a head that does not decide as the stored logits do."""
    if features.logits is None:
        return
    same = np.mean(decide(features.head_logits()) == decide(features.logits))
    if same < AGREEMENT:
        raise InputError(
            f"logits: expected W z + b to decide as they do for {AGREEMENT:.1%} of the rows, got {same:.1%}: a transposed or "
            "foreign head"
        )


def _class_names(arrays: Arrays) -> tuple[str, ...] | None:
    names = arrays.get("class_names")
    if names is not None and names.ndim != 1:
        raise InputError(f"class_names: expected a list of names, got shape {names.shape}")
    return None if names is None else tuple(map(str, names))


def _range(arrays: Arrays) -> np.ndarray | None:
    if "feature_range" not in arrays:
        return None
    ends = shaped("feature_range", arrays["feature_range"], (2,))
    if ends[0] > ends[1]:
        raise InputError(f"feature_range: expected the least feature before the largest, got {ends[0]:g}, {ends[1]:g}")
    return ends


def _counts(arrays: Arrays, K: int) -> np.ndarray | None:
    if "counts" not in arrays:
        return None
    counts = arrays["counts"]
    if counts.shape != (K,) or not np.issubdtype(counts.dtype, np.integer) or counts.min() < 0:
        raise InputError(f"counts: expected {K} non-negative integers, got {counts.dtype} {counts.shape}")
    if counts.max() > MOST_SAMPLES:
        raise InputError(f"counts: expected at most {MOST_SAMPLES} samples a class, got {counts.max()}")
    return counts.astype(np.int64)


def _components(arrays: Arrays, priors: np.ndarray, d: int) -> Components | None:
    names = [f"component_{name}" for name in COMPONENTS]
    if not any(name in arrays for name in names):
        return None
    _require(arrays, tuple(names), "statistics")
    classes, K = arrays[names[0]], len(priors)
    M = classes.size
    if classes.ndim != 1 or not M or not np.issubdtype(classes.dtype, np.integer) or np.any(classes[1:] < classes[:-1]):
        raise InputError(f"{names[0]}: expected ascending integers, got {classes.dtype} of shape {classes.shape}")
    if classes[0] < 0 or classes[-1] >= K:
        raise InputError(f"{names[0]}: expected 0 to {K - 1}, got {classes[0]} to {classes[-1]}")
    classes = classes.astype(np.int64)
    shares = shaped(names[1], arrays[names[1]], (M,))
    total = np.bincount(classes, weights=shares, minlength=K)
    wrong = np.flatnonzero((np.abs(total - 1) > 1e-6) & (priors > 0))
    if shares.min() < 0 or len(wrong):
        raise InputError(
            f"{names[1]}: expected non-negative numbers that sum to 1 in every class with a prior, got least "
            f"{shares.min():.6g}" + (f", sum {total[wrong[0]]:.6g} in class {wrong[0]}" if len(wrong) else "")
        )
    groups = (*arrays[names[3]].shape, 0)[0]
    if groups not in (M, K):
        raise InputError(f"{names[3]}: expected one of {M} components or of {K} classes each, got {groups}")
    return Components(
        classes=classes,
        shares=shares / np.where(total > 0, total, 1)[classes],
        means=shaped(names[2], arrays[names[2]], (M, d)),
        covariances=semi_definite(names[3], shaped(names[3], arrays[names[3]], (groups, d, d))),
    )


def _optional_number(arrays: Arrays, name: str) -> float | None:
    if name not in arrays:
        return None
    number = float(shaped(name, arrays[name], ()))
    if number < 0:
        raise InputError(f"{name}: expected a number of at least 0, got {number:.6g}")
    return number


def _provenance(path: Path | str, arrays: Arrays) -> dict[str, Any]:
    if "provenance" not in arrays:
        return {"source": str(Path(path).name)}
    value = read_json("provenance", str(arrays["provenance"]))
    return value if isinstance(value, dict) else {"source": value}


def read_json(name: str, text: str) -> Any:
    """The value of one JSON text that every parser reads: no NaN, no Infinity, not too deep.

    Raises:
        InputError: another text.
    """

    def refuse(constant: str):
        raise ValueError(f"{constant}, which is not JSON")

    try:
        value = json.loads(text, parse_constant=refuse)
        layer, depth = [value], 0
        while layer:
            depth += 1
            if depth > DEEPEST:
                raise ValueError(f"more than {DEEPEST} levels")
            inner = [one for one in layer if isinstance(one, dict | list)]
            layer = [child for one in inner for child in (one.values() if isinstance(one, dict) else one)]
        if any(isinstance(one, float) and not np.isfinite(one) for one in _leaves(value)):
            raise ValueError("a number beyond double precision")
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: expected one JSON text, got {in_short(error)}") from None
    return value


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for child in value.values() if isinstance(value, dict) else value:
            yield from _leaves(child)
    else:
        yield value
