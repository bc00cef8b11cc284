"""A classifier in an ONNX file: the inputs of its matrix products are read off as further outputs of the graph."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from simulate.networks.network import (
    INTEGER,
    SINGLE,
    Linear,
    Network,
    Sample,
    channels_taken,
    find_head,
    first_line,
    of_rank,
    pick_output,
    sha256,
)
from theory.setting.archive import check_readable
from theory.setting.errors import InputError, listed

PRODUCTS = ("Gemm", "MatMul", "Conv")
LAST = 8  # products looked at, from the end; the head is among them


def open_onnx(file: Path | str, sample: Sample, classes: int = 0, output: str | None = None) -> Network:
    """The classifier of an ONNX file, its head found on a batch of normalized images (n, channels, H, W), which it sees
    channels last where its input is so.

    Args:
        file: of the network. sample: the images. classes: of the data. output: which of several outputs.

    Raises:
        InputError: the extra is absent, the file is not readable, more than one input, no linear head.
    """
    graph = Graph(file, sample)
    found = graph.values(sample(graph.channels))
    arrays = {name: found[name] for name in graph.outputs if found[name].dtype.kind in "fiu"}
    floats = {name: array for name, array in arrays.items() if array.dtype.kind == "f"}
    first = pick_output(floats or arrays, classes, output, str(file))
    seen = [(node, one) for node in graph.nodes if (one := graph.linear(node, found)) is not None]
    logits, precision = found[first], SINGLE
    if logits.dtype.kind == "f":
        logits, precision = logits.astype(np.float64), max(SINGLE, float(np.finfo(logits.dtype).eps))
    head = find_head([one for _, one in seen], logits, str(file), precision, INTEGER if graph.integer else None)
    node = seen[-1 - head.place][0]

    def run_batch(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = graph.values(x)
        one = graph.linear(node, found)
        assert one is not None  # it was there before
        return one.inputs, found[first].reshape(len(x), -1)

    bits = {2: 16, 8: 64}.get(head.weights.dtype.itemsize, 32)
    return Network(Path(file).name, head, run_batch, bits, {}, sha256(file), graph.channels, precision)


class Graph:
    """An ONNX graph that also gives the inputs of its last matrix products."""

    def __init__(self, file: Path | str, sample: Sample):
        try:
            import onnx
            import onnxruntime
        except ImportError:
            raise InputError(f"{file}: reading it needs onnx: pip install 'compressed-network-theory[onnx]'") from None
        check_readable(file, "an ONNX file")
        self.file, self.helper = str(file), onnx.helper
        try:
            model = onnx.load(self.file)
            onnx.checker.check_model(model)
        except Exception as error:  # protobuf and onnx raise their own kinds
            raise InputError(f"{file}: expected an ONNX model, cannot read it: {first_line(error)}") from None
        constants = {one.name for one in model.graph.initializer}
        inputs = [one.name for one in model.graph.input if one.name not in constants]
        if len(inputs) != 1:
            raise InputError(f"{file}: expected one input, the images, got {', '.join(inputs) or 'none'}")
        self.input, self.model = inputs[0], model
        self.nodes = [node for node in model.graph.node if node.op_type in PRODUCTS][-LAST:]
        self.outputs = [one.name for one in model.graph.output]
        for name in dict.fromkeys(name for node in self.nodes for name in node.input[:2]):
            if name not in {*self.outputs, *constants, self.input}:
                model.graph.output.append(onnx.ValueInfoProto(name=name))
        self.stored = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
        for node in model.graph.node:  # constants are held as nodes too
            if node.op_type == "Constant" and [one.name for one in node.attribute] == ["value"]:
                self.stored[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
        self.numpy_helper, self.value_info, self.runtime = onnx.numpy_helper, onnx.ValueInfoProto, onnxruntime
        self.of_images = {self.input}  # arrays computed from the images, not from constants alone
        for node in model.graph.node:  # in the order of computation
            if self.of_images & set(node.input):
                self.of_images |= set(node.output)
        self.session = self._session()
        taken = self.session.get_inputs()[0]
        self.batch, self.last, self.channels = _layout(taken.shape, sample)
        self.rank = len(taken.shape)
        self.integer = any(
            word in node.op_type for node in model.graph.node for word in ("Integer", "QLinear", "quantizeLinear")
        )
        self.as_taken = _taken(taken.type, self.file)

    def _session(self) -> Any:
        options = self.runtime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = self.runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        try:
            return self.runtime.InferenceSession(self.model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own kinds
            raise InputError(f"{self.file}: expected a model that runs, got {first_line(error)}") from None

    def watch(self, names: list[str]) -> None:
        """Make these arrays outputs, in the place of those that are none of the file's own."""
        del self.model.graph.output[len(self.outputs) :]
        for name in names:
            if name not in self.outputs:
                self.model.graph.output.append(self.value_info(name=name))
        self.session = self._session()

    @contextmanager
    def with_initializers(self, values: Mapping[str, np.ndarray]) -> Iterator[None]:
        """Other constants, by name, inside a ``with`` block.

        Raises:
            InputError: a name is no constant's, or the network does not run with them; the old ones are back.
        """
        places = {one.name: one for one in self.model.graph.initializer}
        places |= {
            node.output[0]: node.attribute[0].t
            for node in self.model.graph.node
            if node.op_type == "Constant" and node.attribute
        }
        unknown = [name for name in values if name not in places]
        if unknown:
            raise InputError(f"{self.file}: expected names of constants, got {listed(unknown)}")
        kept = {name: self.stored[name] for name in values}
        try:
            self._hold(places, values)
            yield
        finally:
            self._hold(places, kept)

    def _hold(self, places: Mapping[str, Any], values: Mapping[str, np.ndarray]) -> None:
        for name, array in values.items():
            places[name].CopyFrom(self.numpy_helper.from_array(array, places[name].name))
        self.stored |= values
        self.session = self._session()

    def values(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Constants, the input, the outputs and the watched arrays by name, for normalized images (n, channels, H, W)."""
        x = self.as_taken(of_rank(np.moveaxis(x, 1, -1) if self.last else x, self.rank))
        names = [one.name for one in self.session.get_outputs()]
        try:
            if isinstance(self.batch, int) and self.batch != len(x):  # exported for batches of one size
                found = self._in_batches(x, names, self.batch)
            else:
                found = self.session.run(names, {self.input: x})
        except Exception as error:
            raise InputError(
                f"{self.file}: expected a network that takes images {x.shape[1:]}, got {first_line(error)}"
            ) from None
        return self.stored | {self.input: x} | {name: np.asarray(one) for name, one in zip(names, found, strict=True)}

    def _in_batches(self, x: np.ndarray, names: list[str], size: int) -> list[Any]:
        padded = [x[i : i + size] for i in range(0, len(x), size)]
        padded = [np.concatenate([part, part[:1].repeat(size - len(part), 0)]) for part in padded]
        parts = [self.session.run(names, {self.input: part}) for part in padded]
        return [
            np.concatenate(arrays)[: len(x)] if name in self.of_images and np.ndim(arrays[0]) else arrays[0]
            for name, arrays in zip(names, zip(*parts, strict=True), strict=True)
        ]

    def linear(self, node, found: dict[str, np.ndarray]) -> Linear | None:
        """The linear operation of a node, or None."""
        x, weight = (found.get(name) for name in node.input[:2])
        if x is None or weight is None:
            return None
        given = {one.name: self.helper.get_attribute_value(one) for one in node.attribute}
        if node.op_type == "Conv":
            if weight.ndim != 4 or weight.shape[2:] != (1, 1) or given.get("group", 1) != 1:
                return None
            return Linear(x.reshape(*x.shape[:2], -1).mean(2), weight[:, :, 0, 0], self._bias(node, found))
        if weight.ndim != 2 or x.ndim < 2:
            return None
        if node.op_type == "Gemm":
            x = x.T if given.get("transA", 0) else x
            weight = (weight if given.get("transB", 0) else weight.T) * weight.dtype.type(given.get("alpha", 1.0))
        else:
            weight = weight.T
        if x.shape[-1] != weight.shape[1]:
            return None
        plain = given.get("alpha", 1.0) == given.get("beta", 1.0) == 1.0
        return Linear(x.reshape(len(x), -1, x.shape[-1]).mean(1), weight, self._bias(node, found) if plain else None)

    def _bias(self, node, found: dict[str, np.ndarray]) -> np.ndarray | None:
        """The bias that a node, or the Add behind a MatMul, holds."""
        if len(node.input) > 2:
            held = found.get(node.input[2])
        else:
            adds = [one for one in self.model.graph.node if one.op_type == "Add" and node.output[0] in one.input]
            held = next((found[name] for one in adds for name in one.input if name in self.stored), None)
        return held if held is not None and held.ndim == 1 else None


def _layout(shape: list, sample: Sample) -> tuple[int | str | None, bool, int]:
    """Of an input (batch, ...): the batch, whether channels are last, how many there are."""
    if len(shape) != 4:
        return (shape[0] if shape else None), False, channels_taken(tuple(shape), sample)
    last = shape[3] in (1, 3) and shape[1] not in (1, 3)
    channels = shape[3] if last else shape[1]
    return shape[0], last, channels if isinstance(channels, int) else 3


def _taken(kind: str, name: str) -> Callable[[np.ndarray], np.ndarray]:
    """From normalized images to the number format of the input."""
    kinds = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
    if kind in kinds:
        return lambda x: x.astype(kinds[kind])
    if kind != "tensor(uint8)":
        raise InputError(f"{name}: expected an input of floats or of pixels, got {kind}")

    def pixels(x: np.ndarray) -> np.ndarray:
        if x.min() < 0 or x.max() > 1:
            raise InputError(f"{name}: expected no --mean and --std for an input of raw pixels, got normalized images")
        return np.rint(255 * x).astype(np.uint8)

    return pixels
