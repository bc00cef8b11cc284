"""The world that checks the theory: synthetic problems, Monte Carlo, real networks and the experiments on them.

Risk is computed here from samples and argmax alone; nothing is borrowed from :mod:`theory` but its setting. What has to be
chosen of a layer before it is compressed, the step of ``optimal``, is chosen by the theory in the public functions below,
which hand over a plan. They load lazily: ``simulate.run`` needs JAX, ``simulate.train`` the extra ``torch``,
``simulate.extract`` that of the network, each of which has Pillow.
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from theory.setting.errors import InputError

if TYPE_CHECKING:
    from theory.setting.dense import DenseNetwork
    from theory.setting.features import Features
    from theory.setting.problem import Problem
    from theory.setting.record import Record

_HOMES = {
    "synthetic": "simulate.dense_generator",
    "decompress": "simulate.stored_files",
    "fit": "simulate.feature_models.fit",
    "extract": "simulate.networks.extract",
    "linearize": "simulate.networks.linearize",
    "train": "simulate.networks.training",
    "compare": "simulate.experiments.models",
    "check": "simulate.experiments.hypotheses",
    "benchmark": "simulate.experiments.benchmark",
}
__all__ = ["compress", "measure", "run", *_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str):
    if name in _HOMES:
        try:
            return getattr(importlib.import_module(_HOMES[name]), name)
        except ModuleNotFoundError as error:
            missing = {"torch": "PyTorch", "PIL": "Pillow"}.get(error.name or "")
            if missing is None:
                raise
            raise InputError(f"simulate.{name} needs {missing}: pip install 'compressed-network-theory[torch]'") from None
    raise AttributeError(f"module 'simulate' has no attribute {name!r}")


def run(
    problem: "Problem | DenseNetwork | Path | str | None" = None,
    *,
    scheme: str,
    bits: Sequence[int] | int | None = None,
    errors: str = "actual",
    method: str | None = None,
    classes: Sequence[int] | None = None,
    confidence: float = 0.95,
    test_size: int | None = None,
    n: int | None = None,
    standard_error: float | None = None,
    networks: int | None = None,
    seed: int = 0,
    **options: Any,
) -> "list[Record]":
    """Estimate risk, distortion and flip rate of a compressed layer, or of a whole network, by counting decisions.

    All widths share the same samples. ``errors="actual"``: the one compressed layer. ``errors="expected"``: independent layers
    W + E, E uniform in +-step/2; the standard error is taken over networks, and ``interval_sources["network"]`` is their spread
    with the sampling noise removed.

    Args:
        problem: a problem or a statistics file; None with a ``network`` (:func:`simulate.networks.compressed.run_network`).
        scheme, bits, errors, classes, confidence: as :func:`theory.predict`.
        method: the sampler by name (:mod:`simulate.samplers`): counting by default, or ``conditional``, whose standard error
            falls with the distortion.
        test_size: also say what a test set of so many samples would add, as ``interval_sources["test_set"]``; the interval
            stays that of the estimate.
        n: feature vectors (each class of a shared normal counted), rounded up to whole blocks; default at least as good
            as a million independent pairs.
        standard_error: go on until the distortion is known this well (all widths).
        networks: independent networks for expected errors, rounded up to whole blocks.
        seed: of the draws.
        options: of the scheme, ``bias``, ``bias_correction`` and ``row_errors``, as :func:`theory.predict`.

    Returns:
        One record per width with ``standard_error``, ``flip_rate_standard_error`` and ``n``; the interval is the estimate
        +- z standard errors.

    Raises:
        InputError: bad options.
    """
    from simulate.dense import run_dense
    from simulate.request import Request, check_work
    from simulate.samplers import sampler_of
    from theory.choose.step import with_chosen_steps
    from theory.setting.checks import seed_of, share, whole
    from theory.setting.dense import DenseNetwork
    from theory.setting.files import read_run
    from theory.setting.plan import layers_of
    from theory.setting.question import question
    from theory.setting.record import version

    if "network" in options:
        from simulate.networks.compressed import run_network

        row_errors = options.pop("row_errors", "tied")
        _refuse(
            "a network, which is run on images of its own",
            problem=problem,
            method=method,
            classes=classes,
            test_size=test_size,
            n=n,
            row_errors=row_errors != "tied",
        )
        law = {"bits": bits, "errors": errors, "confidence": confidence, "networks": networks, "seed": seed}
        return run_network(scheme=scheme, standard_error=standard_error, **law, **options)
    if problem is None:
        raise InputError("problem: expected a problem, a statistics file or a network, got none")
    given = read_run(problem)
    row_errors = options.pop("row_errors", "tied")
    for name, value, known in (("errors", errors, ("actual", "expected")), ("row_errors", row_errors, ("tied", "independent"))):
        if value not in known:
            raise InputError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
    if n is not None and standard_error is not None:
        raise InputError("n, standard_error: expected one of the two, got both")
    if networks is not None and errors == "actual":
        raise InputError(f"networks: expected none with actual errors (there is one network), got {networks}")
    if isinstance(given, DenseNetwork):
        _refuse("a network of several layers", method=method, classes=classes, row_errors=row_errors != "tied")
        own: dict[str, Any] = dict(bits=bits, errors=errors, confidence=confidence, test_size=test_size)
        work: dict[str, Any] = dict(n=n, standard_error=standard_error, networks=networks, seed=seed)
        return run_dense(given, scheme=scheme, **own, **work, **options)
    asked = question(scheme, **options)
    if errors == "expected" and not asked.scheme.stepped:
        raise InputError(f"errors: expected 'actual' for scheme {scheme}, whose errors are known, got 'expected'")
    subject = asked.of(given.restrict(classes))
    plans = with_chosen_steps(asked.plans(bits), subject)
    request = Request(
        question=asked,
        problem=subject,
        layers=layers_of(plans, subject.weights),
        errors=errors,
        tied=row_errors == "tied",
        confidence=share("confidence", confidence),
        test_size=None if test_size is None else whole("test_size", test_size, 1),
        n=None if n is None else whole("n", n, 1),
        standard_error=None if standard_error is None else share("standard_error", standard_error),
        networks=None if networks is None else whole("networks", networks, 2),
        seed=seed_of(seed),
        provenance={"by": f"simulate.run {version()}", "statistics": subject.provenance, "seed": seed, "networks": 1},
    )
    check_work(request)
    return sampler_of(request, method).estimate(request)


def _refuse(where: str, **given: Any) -> None:
    """Refuse options that do not go with what is asked of: those that are neither None nor False."""
    for name, value in given.items():
        if value is not None and value is not False:
            raise InputError(f"{name}: expected none with {where}")


def measure(
    features: "Features | Path | str",
    *,
    scheme: str,
    bits: Sequence[int] | int | None = None,
    classes: Sequence[int] | None = None,
    confidence: float = 0.95,
    compressed_by: "Problem | Features | Path | str | None" = None,
    **options: Any,
) -> "list[Record]":
    """Count what compressing the layer does to labelled samples: no hypothesis at all, any number of classes.

    Args:
        features: labelled features or a features file.
        scheme, bits, confidence, options: as :func:`theory.predict`.
        classes: the samples and rows of these classes only.
        compressed_by: features or statistics of the same layer, or their file, whose mean feature corrects the bias, whose
            range the inputs of ``integer`` have, by which the step of ``optimal`` is chosen (default: these features).

    Returns:
        One record per width: risks, distortion with its paired standard error, flip rate, recalls. Decisions are taken in
        float64, ties go to the lowest class.

    Raises:
        InputError: a bad file or bad options, or features of another layer than the one that is compressed.
    """
    from dataclasses import replace

    import numpy as np

    from simulate.feature_models.fit import sha256
    from simulate.measurement import measure_layers
    from theory.choose.step import with_chosen_steps
    from theory.setting.checks import share
    from theory.setting.features import Features
    from theory.setting.files import features_of, read_either
    from theory.setting.question import question
    from theory.setting.record import version

    asked, confidence = question(scheme, **options), share("confidence", confidence)
    whole = features_of(features)
    seen = whole.restrict(classes)
    subject = seen if compressed_by is None else read_either(compressed_by).restrict(classes)
    for name in ("weights", "bias"):
        own, other = getattr(seen, name), getattr(subject, name)
        if own.shape != other.shape or not np.array_equal(own, other):
            raise InputError(f"compressed_by: expected statistics or features of the same layer, got other {name}")
    provenance: dict[str, Any] = {"by": f"simulate.measure {version()}", "features": seen.provenance}
    if compressed_by is not None:
        provenance["compressed_by"] = subject.provenance
    plans = with_chosen_steps(asked.plans(bits), asked.of(subject))
    records = measure_layers(seen, subject, asked, plans, confidence=confidence, provenance=provenance)
    fitted = subject.provenance.get("features_sha256")
    if fitted is None and isinstance(subject, Features) and compressed_by is not None:
        fitted = sha256(subject.features)
    depends = asked.bias_correction or asked.activation_bits is not None or asked.scheme.option("criterion") is not None
    if depends and fitted in {sha256(one.features) for one in (whole, seen)}:
        same = "compressed_by holds the very samples that are measured: on others the layer may lose more"
        records = [replace(record, warnings=[*record.warnings, same]) for record in records]
    return records


def compress(
    source: "Problem | Features | Path | str",
    *,
    scheme: str,
    out: Path | str,
    bits: int | Sequence[int] | None = None,
    classes: Sequence[int] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Write the compressed layer of a features or statistics file.

    Args:
        source: features, a problem, or their file. scheme, classes, options: as :func:`theory.predict`. bits: one width.
        out: the file to write.

    Returns:
        ``out``, ``bytes`` and what they are: ``layer_bytes``, ``bias_bytes``, ``header_bytes``; ``rate``, ``rate_breakdown``.

    Raises:
        InputError: a bad file, bad options, or values float32 cannot hold.
    """
    from simulate.stored_files import write_layer
    from theory.choose.step import with_chosen_steps
    from theory.setting.archive import check_place
    from theory.setting.files import read_either
    from theory.setting.question import question

    asked = question(scheme, **options)
    check_place(out, reads=[source])
    given = read_either(source).restrict(classes)
    open_plans = asked.plans([bits] if isinstance(bits, int) else bits)
    if len(open_plans) > 1:
        raise InputError(f"bits: expected one width for one file, got {len(open_plans)}")
    (plan,) = with_chosen_steps(open_plans, asked.of(given))
    return write_layer(given, asked, plan, out)
