"""A classifier in a Keras 3 file (.keras, .h5), run on Keras's JAX backend; the calls of its layers are seen as they run."""

import contextlib
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from simulate.networks.network import Linear, Network, find_head, first_line, sha256
from theory.setting.errors import InputError

NHWC = (0, 2, 3, 1)


def open_keras(file: Path | str, images: np.ndarray) -> Network:
    """The classifier of a Keras file, its head found on a batch of normalized images (n, 3, H, W), which it sees as
    (n, H, W, 3) unless its input has three channels first.

    Raises:
        InputError: the extra is absent, another backend is loaded, the file is not readable or needs code of its own, no linear
            head.
    """
    os.environ.setdefault("KERAS_BACKEND", "jax")
    try:
        import keras
    except ImportError:
        raise InputError(f"{file}: reading it needs keras: pip install 'compressed-network-theory[keras]'") from None
    if keras.backend.backend() != "jax":
        raise InputError(f"{file}: expected Keras on its JAX backend, got {keras.backend.backend()}: set KERAS_BACKEND=jax")
    if not Path(file).is_file():
        raise InputError(f"{file}: expected a Keras file, found none")
    try:
        model: Any = keras.models.load_model(str(file), compile=False, safe_mode=True)
    except Exception as error:  # Keras raises many kinds; whichever it is, the file is not used
        raise InputError(
            f"{file}: expected a Keras model without code of its own, cannot read it: {first_line(error)}"
        ) from None
    layers = [
        layer
        for layer in model._flatten_layers(include_self=False)  # those inside others too
        if isinstance(layer, keras.layers.Dense | keras.layers.Conv2D | keras.layers.EinsumDense)
    ]
    seen: list[tuple] = []
    for layer in layers:
        _watch(layer, seen)
    last = not (len(model.inputs[0].shape) == 4 and model.inputs[0].shape[1] == 3) if getattr(model, "inputs", None) else True

    def operations(x: np.ndarray) -> tuple[list[tuple], np.ndarray]:
        seen.clear()
        try:
            with usual_jax():
                output = model(x.transpose(NHWC) if last else x, training=False)
        except Exception as error:
            raise InputError(f"{file}: expected a network that takes images {x.shape[1:]}, got {first_line(error)}") from None
        if isinstance(output, dict):
            output = next(iter(output.values()))
        return list(seen), np.asarray(output[0] if isinstance(output, list | tuple) else output)

    def linear(layer, x) -> Linear | None:
        kernel, x = np.asarray(layer.kernel), np.asarray(x)
        if kernel.ndim == 4:
            channels = -1 if layer.data_format == "channels_last" else 1
            if kernel.shape[:2] != (1, 1) or layer.groups != 1:
                return None
            kernel, x = kernel[0, 0], np.moveaxis(x, channels, -1)
        if kernel.ndim != 2 or x.shape[-1] != len(kernel):
            return None
        return Linear(x.reshape(len(x), -1, x.shape[-1]).mean(1), kernel.T)

    found, output = operations(images)
    lines = [(i, one) for i, call in enumerate(found) if (one := linear(*call)) is not None]
    head = find_head([one for _, one in lines], output, str(file))
    place = lines[-1 - head.place][0] - len(found)

    def run_batch(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found, output = operations(x)
        one = linear(*found[place])
        assert one is not None  # it was there before
        return one.inputs, output.reshape(len(x), -1)

    return Network(Path(file).name, head, run_batch, 16 if "16" in str(head.weights.dtype) else 32, {}, sha256(file))


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
