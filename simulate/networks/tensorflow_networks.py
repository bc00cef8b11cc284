"""A classifier in a TensorFlow SavedModel: its serving function with the variables frozen in, read at its matrix products."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from simulate.networks.network import SINGLE, Linear, Network, Sample, find_head, first_line, pick_output, sha256
from theory.setting.errors import InputError

PRODUCTS = ("MatMul", "Conv2D")
LAST = 8  # of them looked at, from the end


def open_saved_model(folder: Path | str, sample: Sample, classes: int = 0, output: str | None = None) -> Network:
    """The classifier of a SavedModel folder, its head found on a batch of normalized images (n, 3, H, W); the network is given
    them channels last where it does not take them as they are.

    Args:
        folder: of the network. sample: the images. classes: of the data. output: which of several outputs.

    Raises:
        InputError: the extra is absent, the folder is not readable, no serving function of one input, no linear head.
    """
    tf, function = _frozen(folder)
    inputs = [one for one in function.inputs if one.dtype != tf.resource]
    if len(inputs) != 1:
        raise InputError(f"{folder}: expected one input, the images, got {len(inputs)}")
    nodes = [one for one in function.graph.get_operations() if one.type in PRODUCTS][-LAST:]
    wanted = [tensor for node in nodes for tensor in node.inputs[:2]]
    outputs = list(function.outputs)
    run = function.prune(inputs, [*outputs, *wanted])
    if inputs[0].shape.rank != 4:
        raise InputError(f"{folder}: expected an input of images, of four axes, got {inputs[0].shape}")
    shape = inputs[0].shape.as_list()
    last = shape[-1] in (1, 3) or shape[1] not in (1, 3)
    channels = (shape[-1] if last else shape[1]) or 3
    images = sample(channels)

    def values(x: np.ndarray) -> list[np.ndarray]:
        given = tf.constant(np.moveaxis(x, 1, -1) if last else x, inputs[0].dtype)
        try:
            return [np.asarray(one) for one in run(given)]
        except Exception as error:
            raise InputError(f"{folder}: expected a network that takes images {x.shape[1:]}, got {first_line(error)}") from None

    def linear(i: int, found: list[np.ndarray]) -> Linear | None:
        at = len(outputs) + 2 * i
        x, weight, node = found[at], found[at + 1], nodes[i]
        if node.type == "Conv2D":
            if weight.shape[:2] != (1, 1) or node.get_attr("data_format") != b"NHWC":
                return None
            return Linear(x.reshape(len(x), -1, x.shape[-1]).mean(1), weight[0, 0].T)
        x = x.T if node.get_attr("transpose_a") else x
        return Linear(x, weight if node.get_attr("transpose_b") else weight.T)

    found = values(images)
    seen = [(i, one) for i in range(len(nodes)) if (one := linear(i, found)) is not None]
    named = {tensor.name: found[i] for i, tensor in enumerate(outputs)}
    first = list(named).index(pick_output(named, classes, output, str(folder)))
    kinds = {"float16": 2.0**-10, "bfloat16": 2.0**-7}
    precision = kinds.get(str(found[first].dtype), SINGLE)
    head = find_head([one for _, one in seen], found[first].astype(np.float64), str(folder), precision)
    place = seen[-1 - head.place][0]

    def run_batch(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = values(x)
        one = linear(place, found)
        assert one is not None  # it was there before
        return one.inputs, found[first].reshape(len(x), -1)

    files: dict[str, str] = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            files |= sha256(path)
    bits = 16 if head.weights.dtype == np.float16 else 32
    return Network(Path(folder).name, head, run_batch, bits, {}, files, channels, precision)


def _frozen(folder: Path | str) -> tuple[Any, Any]:
    """TensorFlow, and the serving function of a SavedModel with its variables as constants."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no word of the instructions it uses
    try:
        import tensorflow as tf  # pyright: ignore[reportMissingImports, reportMissingModuleSource]
        from tensorflow.python.framework.convert_to_constants import (  # pyright: ignore[reportMissingImports]
            convert_variables_to_constants_v2,
        )
    except ImportError:
        raise InputError(
            f"{folder}: reading it needs TensorFlow: pip install 'compressed-network-theory[tensorflow]'"
        ) from None
    try:
        loaded = tf.saved_model.load(str(folder))  # holds the variables
    except Exception as error:  # TensorFlow's own kinds
        raise InputError(f"{folder}: expected a SavedModel, cannot read it: {first_line(error)}") from None
    serve = loaded.signatures
    if not serve:
        raise InputError(f"{folder}: expected a serving function (a signature), found none")
    function = convert_variables_to_constants_v2(serve.get("serving_default") or serve[sorted(serve)[0]])
    return tf, function
