"""A classifier in a TensorFlow SavedModel: its serving function with the variables frozen in, read at its matrix products."""

import os
from pathlib import Path

import numpy as np

from simulate.networks.network import Linear, Network, find_head, first_line, sha256
from theory.setting.errors import InputError

PRODUCTS = ("MatMul", "Conv2D")
LAST = 8  # of them looked at, from the end


def open_saved_model(folder: Path | str, images: np.ndarray) -> Network:
    """The classifier of a SavedModel folder, its head found on a batch of normalized images (n, 3, H, W); the network is given
    them channels last where it does not take them as they are.

    Raises:
        InputError: the extra is absent, the folder is not readable, no serving function of one input, no linear head.
    """
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
    inputs = [one for one in function.inputs if one.dtype != tf.resource]
    if len(inputs) != 1 or len(function.outputs) != 1:
        raise InputError(f"{folder}: expected one input and one output, got {len(inputs)} and {len(function.outputs)}")
    nodes = [one for one in function.graph.get_operations() if one.type in PRODUCTS][-LAST:]
    wanted = [tensor for node in nodes for tensor in node.inputs[:2]]
    run = function.prune(inputs, [function.outputs[0], *wanted])
    shape = inputs[0].shape.as_list()
    last = shape[-1] in (1, 3) or shape[1] not in (1, 3)

    def values(x: np.ndarray) -> list[np.ndarray]:
        given = tf.constant(np.moveaxis(x, 1, -1) if last else x, inputs[0].dtype)
        try:
            return [np.asarray(one) for one in run(given)]
        except Exception as error:
            raise InputError(f"{folder}: expected a network that takes images {x.shape[1:]}, got {first_line(error)}") from None

    def linear(i: int, found: list[np.ndarray]) -> Linear | None:
        x, weight, node = found[1 + 2 * i], found[2 + 2 * i], nodes[i]
        if node.type == "Conv2D":
            if weight.shape[:2] != (1, 1) or node.get_attr("data_format") != b"NHWC":
                return None
            return Linear(x.reshape(len(x), -1, x.shape[-1]).mean(1), weight[0, 0].T)
        x = x.T if node.get_attr("transpose_a") else x
        return Linear(x, weight if node.get_attr("transpose_b") else weight.T)

    found = values(images)
    seen = [(i, one) for i in range(len(nodes)) if (one := linear(i, found)) is not None]
    head = find_head([one for _, one in seen], found[0].astype(np.float32), str(folder))
    place = seen[-1 - head.place][0]

    def run_batch(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = values(x)
        one = linear(place, found)
        assert one is not None  # it was there before
        return one.inputs, found[0].reshape(len(x), -1)

    files: dict[str, str] = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            files |= sha256(path)
    return Network(Path(folder).name, head, run_batch, 16 if head.weights.dtype == np.float16 else 32, {}, files)
