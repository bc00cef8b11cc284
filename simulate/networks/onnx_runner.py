"""A network in an ONNX file on the bench: its initializers replaced. Its operations cannot be disturbed while they run."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simulate.networks.inputs import Inputs
from simulate.networks.network import pick_output, sha256
from simulate.networks.onnx_networks import Graph
from simulate.networks.runner import Disturbance, Runner, finite_logits
from simulate.networks.weights import Rows, Weight
from theory.setting.errors import InputError, listed

MONOTONE = ("Softmax", "LogSoftmax", "Sigmoid")
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True, kw_only=True)
class OnnxRunner(Runner):
    """``graph``: the one that was read. ``decision``: the array that decides."""

    framework = "ONNX"
    graph: Graph
    decision: str

    def find_weights(self, inputs):
        found: dict[str, Weight] = {}
        unknown = []
        for node in self.graph.model.graph.node:
            if node.op_type not in WEIGHTED:
                continue
            name = node.input[1]
            held = self.graph.stored.get(name)
            if held is None:
                if node.op_type != "MatMul":  # of two results it is none of weights
                    unknown.append(name)
            elif held.ndim < 2 or held.dtype.kind != "f" or (node.op_type == "MatMul" and held.ndim != 2):
                unknown.append(name)
            else:
                rows = self._rows(node)
                found.setdefault(name, Weight(name=name, values=rows.of(held).astype(np.float64), rows=rows))
        if unknown:
            raise InputError(f"{self.name}: expected weights that are initializers of floats, got others: {listed(unknown)}")
        return found

    def _rows(self, node) -> Rows:
        given = {one.name: self.graph.helper.get_attribute_value(one) for one in node.attribute}
        if node.op_type == "ConvTranspose":
            return Rows(1, int(given.get("group", 1)))
        turned = node.op_type == "Conv" or (node.op_type == "Gemm" and given.get("transB", 0))
        return Rows(0 if turned else 1)

    def run(self, inputs: Inputs, part: slice, disturbance: Disturbance | None = None) -> np.ndarray:
        if disturbance is not None and disturbance.errors:
            raise InputError(f"errors: expected 'actual' for an ONNX network, got random ones for {self.name}")
        found, size = [], inputs.batch_size
        for first in range(part.start, part.stop, size):
            images = inputs.batch(slice(first, min(first + size, part.stop)), self.channels)
            output = np.asarray(self.graph.values(images)[self.decision], np.float64).reshape(len(images), -1)
            found.append(np.concatenate([np.zeros_like(output), output], 1) if output.shape[1] == 1 else output)
        return finite_logits(found, self.name)

    @contextmanager
    def replaced(self, values: Mapping[str, np.ndarray]) -> Iterator[None]:
        new = {}
        for name, rows in values.items():
            held = self.graph.stored[name]
            new[name] = np.ascontiguousarray(self.weights[name].rows.back(rows, held)).astype(held.dtype)
        with self.graph.with_initializers(new):
            yield


def open_onnx_runner(file: Path | str, inputs: Inputs, output: str | None) -> OnnxRunner:
    """The network of an ONNX file.

    Raises:
        InputError: as :func:`simulate.networks.onnx_networks.open_onnx`; probabilities of which no softmax is seen.
    """
    graph = Graph(file, inputs.sample)
    images = inputs.sample(graph.channels)
    found = graph.values(images)
    arrays = {name: found[name] for name in graph.outputs if found[name].dtype.kind in "fiu"}
    floats = {name: array for name, array in arrays.items() if array.dtype.kind == "f"}
    chosen = pick_output(floats or arrays, inputs.classes, output, str(file))
    makers = [node for node in graph.model.graph.node if chosen in node.output and node.op_type in MONOTONE]
    decision = makers[0].input[0] if makers else chosen
    values = np.asarray(found[chosen], np.float64).reshape(len(images), -1)
    if not makers and values.shape[1] > 1 and np.all(values >= 0) and np.allclose(values.sum(1), 1, atol=1e-4):
        raise InputError(f"{file}: expected logits, or what a softmax makes of them, got probabilities from elsewhere")
    graph.watch([decision])
    return OnnxRunner(name=Path(file).name, files=sha256(file), channels=graph.channels, graph=graph, decision=decision)
