"""A classifier in a Keras 3 file (.keras, .h5), run on Keras's JAX backend; the calls of its layers are seen as they run."""

import contextlib
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from simulate.networks.network import (
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
from theory.setting.errors import InputError

NHWC = (0, 2, 3, 1)


def open_keras(file: Path | str, sample: Sample, classes: int = 0, output: str | None = None) -> Network:
    """The classifier of a Keras file, its head found on a batch of normalized images (n, channels, H, W), which it sees
    channels last unless its input has three channels, or one, first.

    Args:
        file: of the network. sample: the images. classes: of the data. output: which of several outputs.

    Raises:
        InputError: the extra is absent, another backend is loaded, the file is not readable or needs code of its own, no linear
            head.
    """
    keras, model = loaded(file)
    layers = [
        layer
        for layer in model._flatten_layers(include_self=False)  # those inside others too
        if isinstance(layer, keras.layers.Dense | keras.layers.Conv2D | keras.layers.EinsumDense)
    ]
    seen: list[tuple] = []
    for layer in layers:
        _watch(layer, seen)
    last, channels, rank = layout_of(model, sample)
    images = sample(channels)
    chosen: list[str] = []

    def operations(x: np.ndarray) -> tuple[list[tuple], np.ndarray]:
        seen.clear()
        try:
            with usual_jax():
                returned = model(of_rank(x.transpose(NHWC) if last else x, rank), training=False)
        except Exception as error:
            raise InputError(f"{file}: expected a network that takes images {x.shape[1:]}, got {first_line(error)}") from None
        arrays = {name: np.asarray(array).astype(np.float64) for name, array in by_name(returned).items()}
        if not chosen:
            chosen.append(pick_output(arrays, classes, output, str(file)))
        return list(seen), arrays[chosen[0]]

    found, logits = operations(images)
    lines = [(i, one) for i, call in enumerate(found) if (one := _linear(*call)) is not None]
    head = find_head([one for _, one in lines], logits, str(file), precision := _precision(model))
    place = lines[-1 - head.place][0] - len(found)

    def run_batch(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found, logits = operations(x)
        one = _linear(*found[place])
        assert one is not None  # it was there before
        return one.inputs, logits.reshape(len(x), -1)

    bits = 16 if head.weights.dtype == np.float16 else 32
    return Network(Path(file).name, head, run_batch, bits, {}, sha256(file), channels, precision)


def loaded(file: Path | str) -> tuple[Any, Any]:
    """Keras on its JAX backend, and the model of a file."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    try:
        import keras
    except ImportError:
        raise InputError(f"{file}: reading it needs keras: pip install 'compressed-network-theory[keras]'") from None
    if keras.backend.backend() != "jax":
        raise InputError(f"{file}: expected Keras on its JAX backend, got {keras.backend.backend()}: set KERAS_BACKEND=jax")
    check_readable(file, "a Keras file")
    if str(file).endswith(".weights.h5"):
        raise InputError(f"{file}: expected a model, got its weights alone: load them into the model, save it as .keras")
    try:
        model: Any = keras.models.load_model(str(file), compile=False, safe_mode=True)
    except Exception as error:  # Keras raises many kinds; whichever it is, the file is not used
        raise InputError(
            f"{file}: expected a Keras model without code of its own, cannot read it: {first_line(error)}"
        ) from None
    return keras, model


def _linear(layer, x) -> Linear | None:
    """The linear operation of one call of a layer, or None."""
    kernel, x = as_numpy_float(layer.kernel.numpy()), as_numpy_float(x)
    data_format = getattr(layer, "data_format", None)  # convolutions alone have one
    if data_format is not None:
        channels = -1 if data_format == "channels_last" else 1
        if kernel.shape[:2] != (1, 1) or layer.groups != 1:
            return None
        kernel, x = kernel[0, 0], np.moveaxis(x, channels, -1)
    if kernel.ndim != 2 or x.shape[-1] != len(kernel):
        return None
    bias = getattr(layer, "bias", None)
    held = None if bias is None else bias.numpy().astype(np.float32)
    return Linear(x.reshape(len(x), -1, x.shape[-1]).mean(1), kernel.T, held if held is None or held.ndim == 1 else None)


def as_numpy_float(tensor) -> np.ndarray:
    """An array that NumPy computes with: bfloat16 as float32."""
    array = np.asarray(tensor)
    return array if array.dtype in (np.float16, np.float32, np.float64) else array.astype(np.float32)


def by_name(returned: Any) -> dict[str, Any]:
    """What a model returns, by name; a single output is called "output", those without a name are numbered."""
    if isinstance(returned, list | tuple):
        return {str(i): array for i, array in enumerate(returned)}
    return {str(key): array for key, array in returned.items()} if isinstance(returned, dict) else {"output": returned}


def layout_of(model, sample: Sample) -> tuple[bool, int, int]:
    """Whether a model takes channels last, how many channels, and how many axes its input has."""
    inputs = getattr(model, "inputs", None)
    shape = tuple(inputs[0].shape) if inputs else ()
    if len(shape) != 4:
        return True, channels_taken(shape, sample), len(shape)
    last = not (shape[1] in (1, 3) and shape[3] not in (1, 3))
    return last, (shape[3] if last else shape[1]) or 3, 4


def _precision(model) -> float:
    """The rounding of what the model computes in."""
    kinds = {
        str(getattr(getattr(layer, "dtype_policy", None), "compute_dtype", "float32")) for layer in model._flatten_layers()
    }
    return max([{"float16": 2.0**-10, "bfloat16": 2.0**-7}.get(kind, SINGLE) for kind in kinds] or [SINGLE])


@contextlib.contextmanager
def usual_jax():
    """JAX as Keras expects it, whatever its flags are."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def _watch(layer, seen: list[tuple]) -> None:
    """Note the inputs of every call of a layer. A softmax inside the layer stays in its output."""
    call = layer.call

    def watched(x, *args, **kwargs):
        seen.append((layer, x))
        return call(x, *args, **kwargs)

    layer.call = watched
