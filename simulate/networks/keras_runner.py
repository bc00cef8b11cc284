"""A Keras 3 network on the bench, on its JAX backend: kernels replaced, inputs rounded, errors shown with random signs."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from simulate.networks.inputs import Inputs
from simulate.networks.keras_networks import NHWC, by_name, layout_of, loaded, usual_jax
from simulate.networks.network import first_line, of_rank, pick_output, sha256
from simulate.networks.runner import Disturbance, Grid, Runner, finite_logits
from simulate.networks.weights import Rows, Weight
from theory.setting.command_line import say
from theory.setting.errors import InputError, listed

Call = Callable[..., Any]


@dataclass(frozen=True)
class Depthwise(Rows):
    """A kernel (..., inputs, multiplier), each of whose pairs of the two is an output channel."""

    axis: int = -1

    def of(self, weight: Any) -> Any:
        return weight.reshape(-1, weight.shape[-2] * weight.shape[-1]).swapaxes(0, 1)

    def back(self, rows: Any, like: Any) -> Any:
        return rows.swapaxes(0, 1).reshape(like.shape)


@dataclass(frozen=True, kw_only=True)
class KerasRunner(Runner):
    """``model``: the one that was loaded. ``layers``: those with a kernel, by its path. ``last``: whether images have their
    channels last. ``rank``: axes of its input. ``output``: which of several decides."""

    framework = "Keras"
    model: Any
    layers: dict[str, Any]
    last: bool
    rank: int
    output: str

    def find_weights(self, inputs):
        order: list[str] = []
        with self.watched(lambda path, layer, call, x: order.append(path) or call(x)):
            self.logits(inputs.batch(slice(0, 1), self.channels))
        found = {}
        for path in dict.fromkeys(order):
            rows = rows_of(self.layers[path])
            values = np.asarray(rows.of(kernel_of(self.layers[path])), np.float64)
            found[path] = Weight(name=path, values=values, rows=rows)
        left = [v.path for v in self.model.trainable_variables if len(v.shape) >= 2 and v.path not in found]
        if left:
            say(f"{self.name}: no convolution or dense layer takes {listed(left)}: left as they are")
        return found

    def logits(self, images: np.ndarray) -> Any:
        """(n, K) of normalized images (n, channels, H, W)."""
        x = of_rank(images.transpose(NHWC) if self.last else images, self.rank)
        try:
            with usual_jax():
                returned = self.model(x, training=False)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"{self.name}: expected a network that takes images {x.shape[1:]}, got {first_line(error)}"
            ) from None
        return picked(returned, self.output)

    def run(self, inputs, part, disturbance=None):
        found, size, work = [], inputs.batch_size, None
        if disturbance is not None and (disturbance.grids or disturbance.errors):
            work = _Disturbed(self, disturbance)
        for first in range(part.start, part.stop, size):
            images = inputs.batch(slice(first, min(first + size, part.stop)), self.channels)
            if work is None:
                found.append(np.asarray(self.logits(images)))
                continue
            work.start(len(images))
            with self.watched(work):
                found.append(np.asarray(self.logits(images)))
        return finite_logits(found, self.name)

    @contextmanager
    def replaced(self, values: Mapping[str, np.ndarray]) -> Iterator[None]:
        kept = {path: kernel_of(self.layers[path]) for path in values}
        try:
            for path, rows in values.items():
                self.layers[path].kernel.assign(self.weights[path].rows.back(rows, kept[path]).astype(kept[path].dtype))
            yield
        finally:
            for path, kernel in kept.items():
                self.layers[path].kernel.assign(kernel)

    def ranges(self, inputs, part):
        low, high = dict.fromkeys(self.weights, np.inf), dict.fromkeys(self.weights, -np.inf)

        def note(path: str, layer: Any, call: Call, x: Any) -> Any:
            if path in low:
                low[path], high[path] = min(low[path], float(x.min())), max(high[path], float(x.max()))
            return call(x)

        size = inputs.batch_size
        for first in range(part.start, part.stop, size):
            with self.watched(note):
                self.logits(inputs.batch(slice(first, min(first + size, part.stop)), self.channels))
        return np.array(list(low.values())), np.array(list(high.values()))

    @contextmanager
    def watched(self, work: Callable[[str, Any, Call, Any], Any]) -> Iterator[None]:
        """``work(path, layer, call, x)`` in the place of every call of a layer with a kernel, inside a ``with`` block."""
        kept = {path: layer.call for path, layer in self.layers.items()}
        try:
            for path, layer in self.layers.items():
                layer.call = lambda x, *_, path=path, layer=layer, **__: work(path, layer, kept[path], x)
            yield
        finally:
            for path, layer in self.layers.items():
                layer.call = kept[path]


class _Disturbed:
    """Rounds what enters layers, and adds errors of their kernels with random signs (:mod:`simulate.networks.bench`)."""

    def __init__(self, runner: KerasRunner, disturbance: Disturbance):
        self.runner, self.disturbance = runner, disturbance
        self.rng = np.random.default_rng(disturbance.seed)
        self.images = 1
        self.drawn: dict[str, tuple[Any, Any]] = {}

    def start(self, images: int) -> None:
        self.images, self.drawn = images, {}

    def __call__(self, path: str, layer: Any, call: Call, x: Any) -> Any:
        grid, error = self.disturbance.grids.get(path), self.disturbance.errors.get(path)
        if grid is not None:
            x = rounded(x, grid)
        if error is None:
            return call(x)
        activation, kernel = layer.activation, kernel_of(layer)
        layer.activation = _plain
        try:
            clean = call(x)
            layer.kernel.assign(self.runner.weights[path].rows.back(error, kernel).astype(kernel.dtype))
            axis = channels_axis(layer)
            if path not in self.drawn:
                self.drawn[path] = self._signs(x.shape[axis]), self._signs(clean.shape[axis])
            taken, given = (along(signs, like, axis) for signs, like in zip(self.drawn[path], (x, clean), strict=True))
            noise = call(x * taken) - call(0 * x[:1])  # without the bias
        finally:
            layer.kernel.assign(kernel)
            layer.activation = activation
        result = clean + noise * given
        return result if activation is None else activation(result)

    def _signs(self, channels: int) -> np.ndarray:
        return 2 * self.rng.integers(0, 2, (self.images, channels)).astype(np.float32) - 1


def _plain(x: Any) -> Any:
    return x


def rounded(x: Any, grid: Grid) -> Any:
    return grid.step * (jnp.clip(jnp.round(x / grid.step) + grid.zero, 0, 2**grid.bits - 1) - grid.zero)


def along(signs: np.ndarray, like: Any, axis: int) -> Any:
    """Signs (images, channels) as what multiplies a tensor whose channels lie on an axis."""
    shape = [1] * len(like.shape)
    shape[0], shape[axis] = signs.shape
    return jnp.asarray(signs.reshape(shape), like.dtype)


def kernel_of(layer: Any) -> np.ndarray:
    return np.asarray(layer.kernel.value)


def channels_axis(layer: Any) -> int:
    return 1 if getattr(layer, "data_format", "channels_last") == "channels_first" else -1


def rows_of(layer: Any) -> Rows:
    """How the kernel of a layer lies as rows of output channels."""
    kind, axes = type(layer).__name__, len(layer.kernel.shape)
    if kind.startswith("DepthwiseConv"):
        return Depthwise()
    return Rows(axes - 2 if kind.endswith("Transpose") else axes - 1)


def picked(returned: Any, output: str) -> Any:
    """The output that decides, (n, K); a 0 beside a single one."""
    logits = by_name(returned)[output]
    return jnp.concatenate([jnp.zeros_like(logits), logits], 1) if logits.shape[1] == 1 else logits


def open_keras_runner(file: Path | str, inputs: Inputs, output: str | None) -> KerasRunner:
    """The network of a Keras file; a softmax or sigmoid at its end is taken off.

    Raises:
        InputError: as :func:`simulate.networks.keras_networks.open_keras`; layers with several kernels in one.
    """
    keras, model = loaded(file)
    kinds = keras.layers
    simple = (kinds.Dense, kinds.Conv1D, kinds.Conv2D, kinds.Conv3D, kinds.EinsumDense)
    simple += (kinds.DepthwiseConv1D, kinds.DepthwiseConv2D)
    simple += (kinds.Conv1DTranspose, kinds.Conv2DTranspose, kinds.Conv3DTranspose)
    every = list(model._flatten_layers(include_self=False))
    packed = [one.name for one in every if isinstance(one, kinds.SeparableConv1D | kinds.SeparableConv2D | kinds.RNN)]
    if packed:
        raise InputError(f"{file}: expected layers of one kernel each, got several in one: {listed(packed)}")
    layers = {one.kernel.path: one for one in every if isinstance(one, simple)}
    last, channels, rank = layout_of(model, inputs.sample)
    _take_off_softmax(keras, model)
    images = inputs.sample(channels)
    with usual_jax():
        returned = model(of_rank(images.transpose(NHWC) if last else images, rank), training=False)
    arrays = {key: np.asarray(one).astype(np.float64) for key, one in by_name(returned).items()}
    chosen = pick_output(arrays, inputs.classes, output, str(file))
    values = arrays[chosen]
    if values.shape[1] > 1 and np.all(values >= 0) and np.allclose(values.sum(1), 1, atol=1e-4):
        raise InputError(f"{file}: expected logits, or what a softmax makes of them, got probabilities from elsewhere")
    return KerasRunner(
        name=Path(file).name,
        files=sha256(file),
        channels=channels,
        model=model,
        layers=layers,
        last=last,
        rank=rank,
        output=chosen,
    )


def _take_off_softmax(keras: Any, model: Any) -> None:
    """The last layer without its softmax, log-softmax or sigmoid, which change no decision."""
    end = model.layers[-1]
    monotone = [getattr(keras.activations, name) for name in ("softmax", "log_softmax", "sigmoid")]
    if isinstance(end, keras.layers.Softmax):
        end.call = lambda x, *_, **__: x
    elif getattr(end, "activation", None) in monotone:
        end.activation = keras.activations.linear
