"""A classifier in an ONNX file: the inputs of its matrix products are read off as further outputs of the graph."""

from pathlib import Path

import numpy as np

from simulate.networks.network import Linear, Network, find_head, first_line, sha256
from theory.setting.errors import InputError

PRODUCTS = ("Gemm", "MatMul", "Conv")
LAST = 8  # of them looked at, from the end


def open_onnx(file: Path | str, images: np.ndarray) -> Network:
    """The classifier of an ONNX file, its head found on a batch of normalized images (n, 3, H, W).

    Raises:
        InputError: the extra is absent, the file is not readable, more than one input, no linear head.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError:
        raise InputError(f"{file}: reading it needs onnx: pip install 'compressed-network-theory[onnx]'") from None
    if not Path(file).is_file():
        raise InputError(f"{file}: expected an ONNX file, found none")
    try:
        model = onnx.load(str(file))
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf and onnx raise their own kinds
        raise InputError(f"{file}: expected an ONNX model, cannot read it: {first_line(error)}") from None
    constants = {one.name for one in model.graph.initializer}
    inputs = [one.name for one in model.graph.input if one.name not in constants]
    if len(inputs) != 1:
        raise InputError(f"{file}: expected one input, the images, got {', '.join(inputs) or 'none'}")
    nodes = [node for node in model.graph.node if node.op_type in PRODUCTS][-LAST:]
    wanted = list(dict.fromkeys(name for node in nodes for name in node.input[:2]))
    present = {one.name for one in model.graph.output}
    for name in wanted:
        if name not in present | constants | set(inputs):
            model.graph.output.append(onnx.ValueInfoProto(name=name))
    stored = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own kinds
        raise InputError(f"{file}: expected a model that runs, got {first_line(error)}") from None
    names = [one.name for one in session.get_outputs()]
    first = next(one.name for one in session.get_outputs())
    fixed = session.get_inputs()[0].shape[0]

    def values(x: np.ndarray) -> dict[str, np.ndarray]:
        try:
            if isinstance(fixed, int) and fixed != len(x):  # exported for batches of one size
                padded = [x[i : i + fixed] for i in range(0, len(x), fixed)]
                padded = [np.concatenate([part, part[:1].repeat(fixed - len(part), 0)]) for part in padded]
                parts = [session.run(names, {inputs[0]: part}) for part in padded]
                found = [
                    np.concatenate(one)[: len(x)] if np.ndim(one[0]) and len(one[0]) == fixed else one[0]
                    for one in zip(*parts, strict=True)
                ]
            else:
                found = session.run(names, {inputs[0]: x})
        except Exception as error:
            raise InputError(f"{file}: expected a network that takes images {x.shape[1:]}, got {first_line(error)}") from None
        return stored | {inputs[0]: x} | dict(zip(names, map(np.asarray, found), strict=True))

    def linear(node, found: dict[str, np.ndarray]) -> Linear | None:
        x, weight = (found.get(name) for name in node.input[:2])
        if x is None or weight is None:
            return None
        given = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        if node.op_type == "Conv":
            if weight.ndim != 4 or weight.shape[2:] != (1, 1) or given.get("group", 1) != 1:
                return None
            return Linear(x.reshape(*x.shape[:2], -1).mean(2), weight[:, :, 0, 0])
        if weight.ndim != 2 or x.ndim < 2:
            return None
        if node.op_type == "Gemm":
            x = x.T if given.get("transA", 0) else x
            weight = (weight if given.get("transB", 0) else weight.T) * np.float32(given.get("alpha", 1.0))
        else:
            weight = weight.T
        return Linear(x.reshape(len(x), -1, x.shape[-1]).mean(1), weight)

    found = values(images)
    seen = [(node, one) for node in nodes if (one := linear(node, found)) is not None]
    head = find_head([one for _, one in seen], found[first].astype(np.float32), str(file))
    node = seen[-1 - head.place][0]

    def run_batch(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = values(x)
        one = linear(node, found)
        assert one is not None  # it was there before
        return one.inputs, found[first].reshape(len(x), -1)

    return Network(Path(file).name, head, run_batch, 16 if head.weights.dtype == np.float16 else 32, {}, sha256(file))
