"""Reading, validating and writing the project's files: plain NumPy ``.npz``, never a pickle.

What kind a file is, its arrays say: ``features`` makes a features file, ``means`` a statistics file.
"""

import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Float, Float64, Int64

from theory.setting.errors import InputError
from theory.setting.problem import Components, Problem, check_classes, decide, two_rows

FLOATS = (np.float16, np.float32, np.float64)
AGREEMENT = 0.999  # share of rows where W z + b must decide as the stored logits do
STATISTICS = ("weights", "bias", "priors", "means", "covariances")
COMPONENTS = ("classes", "shares", "means", "covariances")  # each "component_..." in the file


@dataclass(frozen=True, kw_only=True)
class Features:
    """Labelled inputs of a last layer.

    Attributes:
        features: (n, d) as stored (float16, 32 or 64).
        labels: (n,) int64 in 0..K-1; all -1 where none are known.
        weights: (K, d) or (1, d) float64; bias: (K,) or (1,) float64.
        logits: (n, K) or None.
        class_names: K names or None.
        source_bits: bits a weight took in the file.
        provenance: where they come from.
    """

    features: Float[np.ndarray, "n d"]
    labels: Int64[np.ndarray, " n"]
    weights: Float64[np.ndarray, "rows d"]
    bias: Float64[np.ndarray, " rows"]
    logits: Float64[np.ndarray, "n rows"] | None = None
    class_names: tuple[str, ...] | None = None
    source_bits: int = 32
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def classes(self) -> int:
        return max(2, len(self.weights))

    @property
    def labelled(self) -> bool:
        return bool(self.labels[0] >= 0)

    @property
    def mean_feature(self) -> Float64[np.ndarray, " d"]:
        return self.features.astype(np.float64).mean(0)

    def head_logits(self) -> Float64[np.ndarray, "n K"]:
        """(n, K) W z + b in float64; a head with one output as two, the first 0."""
        weights, bias = two_rows(self.weights, self.bias)
        return self.features.astype(np.float64) @ weights.T + bias

    def take(self, rows: np.ndarray) -> "Features":
        """The samples with the given indices."""
        return Features(
            features=self.features[rows],
            labels=self.labels[rows],
            weights=self.weights,
            bias=self.bias,
            logits=None if self.logits is None else self.logits[rows],
            class_names=self.class_names,
            source_bits=self.source_bits,
            provenance=self.provenance,
        )

    def restrict(self, classes) -> "Features":
        """The samples of the given classes and the rows of W that belong to them, relabelled 0, 1, ..."""
        if classes is None:
            return self
        chosen = check_classes(classes, self.classes, len(self.weights))
        if len(self.weights) == 1:
            return self
        if not self.labelled:
            raise InputError("classes: expected labels, which say whose samples these are, got features without")
        position = np.full(self.classes, -1)
        position[chosen] = np.arange(len(chosen))
        rows = np.flatnonzero(position[self.labels] >= 0)
        if not len(rows):
            raise InputError(f"labels: expected samples of the classes {' '.join(map(str, chosen))}, got none")
        names = None if self.class_names is None else tuple(self.class_names[k] for k in chosen)
        return Features(
            features=self.features[rows],
            labels=position[self.labels[rows]],
            weights=self.weights[chosen],
            bias=self.bias[chosen],
            logits=None if self.logits is None else self.logits[np.ix_(rows, chosen)],
            class_names=names,
            source_bits=self.source_bits,
            provenance={**self.provenance, "classes": [int(k) for k in chosen]},
        )


def read_arrays(path: Path | str) -> dict[str, np.ndarray]:
    """All arrays of an ``.npz`` file, without unpickling anything."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: expected an .npz file, found {'a folder' if path.is_dir() else 'nothing'}")
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise InputError(f"{path}: expected an .npz archive of named arrays, got a single array")
            return {name: archive[name] for name in archive.files}
    # RuntimeError: what zipfile raises for an encrypted archive or a compression it does not know
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        why = "it holds Python objects" if "allow_pickle" in str(error) and zipfile.is_zipfile(path) else str(error)
        if "allow_pickle" in why:
            why = "it is not a NumPy file"
        raise InputError(f"{path}: expected an .npz archive of plain arrays, cannot read it: {why}") from None


def problem_of(source: "Problem | Path | str") -> Problem:
    """The problem itself, or the one a statistics file holds."""
    return source if isinstance(source, Problem) else read_statistics(_path(source, "a Problem or a statistics file"))


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


def read_either(source: "Problem | Features | Path | str") -> "Problem | Features":
    """A problem or features, from either kind of file."""
    if isinstance(source, Problem | Features):
        return source
    path = _path(source, "a Problem, Features or a file of either")
    names: list[str] = []
    if path.is_file() and zipfile.is_zipfile(path):  # else the reader says what is wrong
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    return (
        read_features(path, labelled=False) if "features.npy" in names and "means.npy" not in names else read_statistics(path)
    )


def read_statistics(path: Path | str) -> Problem:
    """Read and validate a statistics file.

    Raises:
        InputError: one line naming the file, the array, what was expected and what came.
    """
    arrays = read_arrays(path)
    if "features" in arrays and "means" not in arrays:
        raise InputError(f"{path}: means: expected a statistics file, got a features file: run `python -m simulate fit` on it")
    _require(path, arrays, STATISTICS, "statistics")
    weights, bias = _head(path, arrays)
    K, d = max(2, len(weights)), weights.shape[1]
    priors = _float(path, arrays, "priors", (K,))
    if priors.min() < 0 or abs(priors.sum() - 1) > 1e-6:
        raise InputError(
            f"{path}: priors: expected non-negative numbers that sum to 1, got sum {priors.sum():.6g}, least {priors.min():.6g}"
        )
    means = _float(path, arrays, "means", (K, d))
    shape = np.shape(arrays["covariances"])
    covariances = _float(path, arrays, "covariances", (d, d) if len(shape) == 2 else (K, d, d))
    return Problem(
        weights=weights,
        bias=bias,
        priors=priors / priors.sum(),
        means=means,
        covariances=_semi_definite(path, covariances),
        counts=_counts(path, arrays, K),
        components=_components(path, arrays, priors, d),
        misfit=_misfit(path, arrays),
        feature_range=_range(path, arrays),
        source_bits=8 * arrays["weights"].dtype.itemsize,
        provenance=_provenance(path, arrays),
    )


def _range(path: Path | str, arrays: dict[str, np.ndarray]) -> np.ndarray | None:
    if "feature_range" not in arrays:
        return None
    ends = _float(path, arrays, "feature_range", (2,))
    if ends[0] > ends[1]:
        raise InputError(f"{path}: feature_range: expected the least feature before the largest, got {ends[0]:g}, {ends[1]:g}")
    return ends


def read_features(path: Path | str, *, labelled: bool = True) -> Features:
    """Read and validate a features file; where it need not be ``labelled`` and is not, labels are all -1.

    Raises:
        InputError: as :func:`read_statistics`; also a head that does not decide as the stored logits do.
    """
    arrays = read_arrays(path)
    if "means" in arrays and "features" not in arrays:
        raise InputError(f"{path}: features: expected a features file, got a statistics file")
    _require(path, arrays, ("features", *(["labels"] if labelled else []), "weights", "bias"), "features")
    weights, bias = _head(path, arrays)
    K, d = max(2, len(weights)), weights.shape[1]
    values = arrays["features"]
    if values.ndim != 2 or values.shape[1] != d or not len(values):
        raise InputError(
            f"{path}: features: expected shape (n, {d}) to go with weights {weights.shape}, n at least 1, got {values.shape}"
        )
    _finite(path, "features", values)
    n = len(values)
    labels = arrays.get("labels", np.full(n, -1))
    if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"{path}: labels: expected {n} integers, got {labels.dtype} of shape {labels.shape}")
    if "labels" in arrays and (labels.min() < 0 or labels.max() >= K):
        row = int(np.argmax((labels < 0) | (labels >= K)))
        raise InputError(f"{path}: labels: expected 0 to {K - 1}, got {labels[row]} at row {row}")
    logits = None
    if "logits" in arrays:
        logits = _float(path, arrays, "logits", (n, len(weights)))
        same = np.mean(decide(values.astype(np.float64) @ weights.T + bias) == decide(logits))
        if same < AGREEMENT:
            raise InputError(
                f"{path}: logits: expected W z + b to decide as they do for {AGREEMENT:.1%} of the rows, got "
                f"{same:.1%}: a transposed or foreign head"
            )
    names = arrays.get("class_names")
    if names is not None and names.shape != (K,):
        raise InputError(f"{path}: class_names: expected {K} names, got shape {names.shape}")
    return Features(
        features=values,
        labels=labels.astype(np.int64),
        weights=weights,
        bias=bias,
        logits=logits,
        class_names=None if names is None else tuple(map(str, names)),
        source_bits=8 * arrays["weights"].dtype.itemsize,
        provenance=_provenance(path, arrays),
    )


def write_arrays(path: Path | str, arrays: Mapping[str, Any]) -> None:
    """Write an ``.npz``: never half a file."""
    check_place(path, ".npz")
    write_whole(path, lambda file: np.savez(file, **arrays))


def check_place(path: Path | str, suffix: str = "") -> Path:
    """Where a file is to be written: refused if it can't be, before the work that fills it."""
    path = Path(path)
    if suffix and path.suffix != suffix:
        raise InputError(f"{path}: expected a file name that ends in {suffix}")
    if not path.parent.is_dir():
        raise InputError(f"{path}: expected an existing folder, found no {path.parent}")
    if path.is_dir():
        raise InputError(f"{path}: expected a file name, got a folder")
    return path


def write_whole(path: Path | str, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file beside its place and rename it there."""
    path = check_place(path)
    handle, partial = tempfile.mkstemp(suffix=path.suffix, prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        os.chmod(partial, 0o666 & ~_umask())
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def write_statistics(path: Path | str, problem: Problem) -> None:
    arrays = {name: getattr(problem, name) for name in STATISTICS}
    arrays["weights"] = arrays["weights"].astype(f"float{problem.source_bits}")
    if problem.counts is not None:
        arrays["counts"] = problem.counts
    if problem.misfit is not None:
        arrays["misfit"] = np.array(problem.misfit)
    if problem.feature_range is not None:
        arrays["feature_range"] = problem.feature_range
    if problem.components is not None:
        arrays |= {f"component_{name}": getattr(problem.components, name) for name in COMPONENTS}
    arrays["provenance"] = np.array(json.dumps(problem.provenance))
    write_arrays(path, arrays)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _require(path, arrays, names, kind: str) -> None:
    missing = [name for name in names if name not in arrays]
    if missing:
        raise InputError(
            f"{path}: {', '.join(missing)}: missing, expected in a {kind} file beside {', '.join(arrays) or 'no array at all'}"
        )


def _finite(path, name: str, array: np.ndarray) -> None:
    if array.dtype.type not in FLOATS:
        raise InputError(f"{path}: {name}: expected float16, float32 or float64, got {array.dtype}")
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        where = ", ".join(f"{axis} {i}" for axis, i in zip(("row", "column", "index"), bad[0], strict=False))
        raise InputError(f"{path}: {name}: expected finite values, got {array[tuple(bad[0])]} at {where}")


def _float(path, arrays, name: str, shape: tuple[int, ...]) -> np.ndarray:
    array = arrays[name]
    if array.shape != shape:
        raise InputError(f"{path}: {name}: expected shape {shape}, got {array.shape}")
    _finite(path, name, array)
    return array.astype(np.float64)


def _head(path, arrays) -> tuple[np.ndarray, np.ndarray]:
    weights = arrays["weights"]
    if weights.ndim != 2 or 0 in weights.shape:
        raise InputError(f"{path}: weights: expected shape (classes, features), got {weights.shape}")
    _finite(path, "weights", weights)
    rows, columns = weights.shape
    if arrays["bias"].shape == (columns,) and rows != columns:
        raise InputError(
            f"{path}: weights: expected shape (classes, features) = ({columns}, {rows}) to go with bias ({columns},), "
            f"got {weights.shape}: transposed?"
        )
    return weights.astype(np.float64), _float(path, arrays, "bias", (rows,))


def _counts(path, arrays, K: int) -> np.ndarray | None:
    if "counts" not in arrays:
        return None
    counts = arrays["counts"]
    if counts.shape != (K,) or not np.issubdtype(counts.dtype, np.integer) or counts.min() < 0:
        raise InputError(f"{path}: counts: expected {K} non-negative integers, got {counts.dtype} {counts.shape}")
    return counts.astype(np.int64)


def _components(path, arrays, priors: np.ndarray, d: int) -> Components | None:
    names = [f"component_{name}" for name in COMPONENTS]
    if not any(name in arrays for name in names):
        return None
    _require(path, arrays, names, "statistics")
    classes, K = arrays[names[0]], len(priors)
    M = classes.size
    if classes.ndim != 1 or not M or not np.issubdtype(classes.dtype, np.integer) or np.any(np.diff(classes) < 0):
        raise InputError(f"{path}: {names[0]}: expected ascending integers, got {classes.dtype} of shape {classes.shape}")
    if classes[0] < 0 or classes[-1] >= K:
        raise InputError(f"{path}: {names[0]}: expected 0 to {K - 1}, got {classes[0]} to {classes[-1]}")
    shares = _float(path, arrays, names[1], (M,))
    total = np.bincount(classes, weights=shares, minlength=K)
    wrong = np.flatnonzero((np.abs(total - 1) > 1e-6) & (priors > 0))
    if shares.min() < 0 or len(wrong):
        raise InputError(
            f"{path}: {names[1]}: expected non-negative numbers that sum to 1 in every class with a prior, got least "
            f"{shares.min():.6g}" + (f", sum {total[wrong[0]]:.6g} in class {wrong[0]}" if len(wrong) else "")
        )
    groups = len(arrays[names[3]])
    if groups not in (M, K):
        raise InputError(f"{path}: {names[3]}: expected one of {M} components or of {K} classes each, got {groups}")
    return Components(
        classes=classes.astype(np.int64),
        shares=shares / np.where(total > 0, total, 1)[classes],
        means=_float(path, arrays, names[2], (M, d)),
        covariances=_semi_definite(path, _float(path, arrays, names[3], (groups, d, d)), names[3]),
    )


def _misfit(path, arrays) -> float | None:
    if "misfit" not in arrays:
        return None
    misfit = float(_float(path, arrays, "misfit", ()))
    if misfit < 0:
        raise InputError(f"{path}: misfit: expected a number of at least 0, got {misfit:.6g}")
    return misfit


def _semi_definite(path, covariances: np.ndarray, called: str = "covariances") -> np.ndarray:
    """The covariances, symmetric and with no negative eigenvalue; what is only rounding is mended, the rest refused."""
    stack = covariances if covariances.ndim == 3 else covariances[None]
    fixed = []
    for k, matrix in enumerate(stack):
        name = f"{called}[{k}]" if covariances.ndim == 3 else called
        scale = np.abs(matrix).max()
        skew = np.abs(matrix - matrix.T).max()
        if skew > 1e-6 * scale:
            raise InputError(f"{path}: {name}: expected a symmetric matrix, got entries that differ by {skew:.3g}")
        matrix = (matrix + matrix.T) / 2
        values, vectors = np.linalg.eigh(matrix)
        if values[0] < -1e-6 * max(values[-1], 0) - 1e-300:
            raise InputError(
                f"{path}: {name}: expected no negative eigenvalue, got {values[0]:.6g} beside the largest {values[-1]:.6g}"
            )
        fixed.append((vectors * np.maximum(values, 0)) @ vectors.T if values[0] < 0 else matrix)
    return np.stack(fixed) if covariances.ndim == 3 else fixed[0]


def _provenance(path, arrays) -> dict[str, Any]:
    if "provenance" not in arrays:
        return {"source": str(Path(path).name)}
    try:
        value = json.loads(str(arrays["provenance"]))
    except ValueError:
        raise InputError(f"{path}: provenance: expected one JSON text") from None
    return value if isinstance(value, dict) else {"source": value}
