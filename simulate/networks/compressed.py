"""``simulate run --network``: real networks all of whose layers are compressed, run on images."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from simulate.networks.bench import MOST_DRAWS, How, bench_of, posterior_scale
from simulate.networks.extract import FILES, check_network
from simulate.networks.inputs import OPTIONS as IMAGE_OPTIONS
from simulate.networks.inputs import Division, Inputs, division, preprocessing_of, read_inputs
from simulate.networks.network import NAMES
from simulate.networks.runner import Runner, input_grids
from theory.setting.checks import seed_of, share, whole
from theory.setting.command_line import say
from theory.setting.errors import InputError
from theory.setting.plan import with_least_squares
from theory.setting.question import Question, question
from theory.setting.record import Record

STANDARD_ERROR = 0.003  # of the mean over errors, by default
OWN_OPTIONS = (
    *("layers", "layer_bits", "plan", "activation_bits", "calibrate", "fold", "recalibrate"),
    *("standard_error", "output", "temperature", "unlabelled", "labelled"),
)


def run_network(
    *,
    network: str,
    data: Path | str,
    scheme: str,
    bits: Sequence[int] | int | None = None,
    checkpoint: Path | str | None = None,
    errors: str = "actual",
    split: str = "test",
    limit: int | None = None,
    confidence: float = 0.95,
    networks: int | None = None,
    seed: int = 0,
    **options: Any,
) -> list[Record]:
    """Run a real network with its weights compressed.

    Args:
        network, data, checkpoint, split: as :func:`simulate.extract`; PyTorch networks.
        scheme, bits, errors, confidence: as :func:`theory.predict`; every convolution and linear weight is compressed, its rows
            the output channels.
        limit: only the first images of those that do not calibrate.
        networks: of expected errors so many networks drawn in the place of random signs; they also give the spread.
        seed: of the draws.
        options: of the scheme; ``layers``, ``layer_bits`` (:func:`theory.setting.plan.network_plans`) or a ``plan``, or its
            file; ``fold``: batch norms are first folded into the weights that they follow; ``activation_bits``: inputs of
            compressed layers are rounded too; ``calibrate``, the last images of the split, left out; ``recalibrate``: batch
            norms of the compressed network have the means and variances of those images; ``standard_error`` of the mean over
            errors; ``output`` and preprocessing as
            :func:`simulate.extract`; ``unlabelled`` reads no label of these images: risks are those of the clean network's
            posteriors, calibrated on the images that calibrate or at a ``temperature``; with ``labelled`` the labels of so many
            of these images correct the rest.

    Returns:
        One record a plan: that of :func:`simulate.measure` for actual errors; else the mean over errors on these very images,
        whose own noise is the source ``test_set``.

    Raises:
        InputError: images or network that can't be read, an unknown weight, a scheme that expected errors do not know.
    """
    if errors not in ("actual", "expected"):
        raise InputError(f"errors: expected one of actual, expected, got {errors!r}")
    own = {name: options.pop(name, None) for name in OWN_OPTIONS}
    shaping = {name: options.pop(name) for name in list(options) if name in IMAGE_OPTIONS}
    asked = question(scheme, **options)
    _check(asked, errors, networks, own)
    how = How(
        confidence=share("confidence", confidence),
        goal=STANDARD_ERROR if own["standard_error"] is None else share("standard_error", own["standard_error"]),
        networks=None if networks is None else whole("networks", networks, 2, MOST_DRAWS + 1),
        seed=seed_of(seed),
    )
    inputs = read_inputs(Path(data), split, None, preprocessing_of(shaping, known=network in NAMES))
    images = division(len(inputs.images.labels), own["calibrate"], limit)
    runner = open_runner(network, checkpoint, inputs, own["output"])
    with runner.folded(inputs) if own["fold"] else nullcontext():
        return _records(runner, inputs, images, asked, bits, errors, how, own)


def open_runner(network: str, checkpoint: Path | str | None, inputs: Inputs, output: str | None) -> Runner:
    """A PyTorch network by name or factory, or the one of a Keras or ONNX file.

    Raises:
        InputError: a network that can't be read, a checkpoint beside a file, or a TensorFlow folder.
    """
    check_network(network, checkpoint)
    suffix = Path(network).suffix.lower()
    if Path(network).is_dir():
        raise InputError(f"network: expected PyTorch, Keras or ONNX, got the SavedModel {network}: give the network before it")
    if suffix not in FILES:
        from simulate.networks.torch_runner import open_torch_runner

        return open_torch_runner(network, checkpoint, inputs, output)
    if suffix == ".onnx":
        from simulate.networks.onnx_runner import open_onnx_runner

        return open_onnx_runner(network, inputs, output)
    from simulate.networks.keras_runner import open_keras_runner

    return open_keras_runner(network, inputs, output)


def _check(asked: Question, errors: str, networks: int | None, own: dict[str, Any]) -> None:
    """Refuse options that do not go together."""
    drawn = errors == "expected"
    for unmet, message in (
        (
            drawn and not asked.scheme.stepped,
            f"errors: expected 'actual' for scheme {asked.scheme.name}, whose errors are known, got 'expected'",
        ),
        (
            networks is not None and not drawn,
            f"networks: expected none with actual errors (there is one network), got {networks}",
        ),
        (
            not own["unlabelled"] and (own["temperature"] is not None or own["labelled"] is not None),
            "temperature, labelled: expected with --unlabelled alone, got them without",
        ),
        (bool(own["unlabelled"]) and drawn, f"unlabelled: expected with actual errors alone, got {errors}"),
        (
            bool(own["recalibrate"] and own["fold"]),
            "recalibrate: expected none with --fold, which leaves no batch norm to recalibrate",
        ),
        (
            bool(own["recalibrate"]) and drawn and networks is None,
            "recalibrate: expected --networks M with expected errors: statistics are those of one network",
        ),
    ):
        if unmet:
            raise InputError(message)


def _records(
    runner: Runner,
    inputs: Inputs,
    images: Division,
    asked: Question,
    bits: Sequence[int] | int | None,
    errors: str,
    how: How,
    own: dict[str, Any],
) -> list[Record]:
    """Of a network that is open, and folded where it is to be."""
    runner = replace(runner, weights=runner.find_weights(inputs))
    given = {name: own[name] for name in ("layers", "layer_bits", "plan")}
    plans = asked.network_plans(runner.weights, bits, fold=bool(own["fold"]), **given)  # before anything is run
    bench = bench_of(runner, inputs, images.evaluated)
    if own["activation_bits"] is not None:
        width = whole("activation_bits", own["activation_bits"], 2, 17)
        bench = replace(bench, grids=input_grids(bench.runner, inputs, images, width))
    if own["recalibrate"]:
        bench = bench.recalibrating_on(images)
    plans = with_least_squares(plans, {name: weight.values for name, weight in bench.weights.items()})
    if own["unlabelled"]:
        scale = posterior_scale(bench, images, own["temperature"])
        return [bench.unlabelled(plan, bench.decided(plan), how, scale, own["labelled"]) for plan in plans]
    say(f"accuracy {np.mean(bench.before == bench.labels):.2%} on the first {images.evaluated} images")
    if errors == "expected":
        return [bench.expected(plan, how) for plan in plans]
    return [bench.actual(plan, bench.decided(plan), how) for plan in plans]
