"""What is done to a PyTorch network while it runs: weights replaced, inputs rounded, errors shown with random signs."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from simulate.networks.inputs import Inputs
from simulate.networks.operations import Operation, Watch
from simulate.networks.runner import Grid, finite_logits
from simulate.networks.torch_networks import TorchClassifier
from simulate.networks.weights import Weight

SPATIAL = {"convolution", "transposed convolution"}


class Replaced:
    """Parameters with other values inside a ``with`` block; the old ones are back after it."""

    def __init__(self, model: torch.nn.Module, weights: Mapping[str, tuple[Weight, np.ndarray]]):
        self.parameters = dict(model.named_parameters())
        self.weights = weights
        self.kept: dict[str, torch.Tensor] = {}

    def __enter__(self) -> None:
        for name, (weight, values) in self.weights.items():
            parameter = self.parameters[name]
            self.kept[name] = parameter.detach().clone()
            parameter.data.copy_(weight.rows.back(torch.from_numpy(values), parameter))

    def __exit__(self, *_: object) -> None:
        for name, values in self.kept.items():
            self.parameters[name].data.copy_(values)


class Disturbed(Watch):
    """Rounds the inputs of operations to their grids, and adds r * (E (s * x)) to those whose weight has errors E: r and s are
    random signs of the output and input channels, of each image and tensor its own; ``start`` draws them anew for a batch."""

    def __init__(
        self,
        model: torch.nn.Module,
        errors: Mapping[str, torch.Tensor],
        grids: Mapping[str, Grid],
        generator: torch.Generator,
    ):
        super().__init__(model, self._disturbed)
        self.errors, self.grids, self.generator = errors, grids, generator
        self.images = 1
        self.drawn: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def start(self, images: int) -> None:
        self.images, self.drawn = images, {}

    def _disturbed(self, operation: Operation) -> torch.Tensor:
        x = operation.inputs
        if operation.tensor in self.grids:
            step, zero, bits = self.grids[operation.tensor]
            x = step * (torch.clamp(torch.round(x / step) + zero, 0, 2**bits - 1) - zero)
        result, error = operation(x), self.errors.get(operation.tensor)
        if error is None:
            return result
        axis = 1 if operation.kind in SPATIAL else -1
        if operation.tensor not in self.drawn:
            self.drawn[operation.tensor] = (self._signs(x.shape[axis]), self._signs(result.shape[axis]))
        taken, given = (
            _along(signs, like, axis) for signs, like in zip(self.drawn[operation.tensor], (x, result), strict=True)
        )
        return result + operation(x * taken, error.T if operation.turned else error, bias=False) * given

    def _signs(self, channels: int) -> torch.Tensor:
        return 2.0 * torch.randint(0, 2, (self.images, channels), generator=self.generator) - 1


def _along(signs: torch.Tensor, like: torch.Tensor, axis: int) -> torch.Tensor:
    """Signs (images, channels) as what multiplies a tensor whose channels lie on an axis; an image may be several rows."""
    own = signs.repeat_interleave(len(like) // len(signs), 0).to(like.dtype)
    shape = [1] * like.ndim
    shape[0], shape[axis] = own.shape
    return own.reshape(shape)


def input_ranges(
    classifier: TorchClassifier, inputs: Inputs, part: slice, names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest entry of what enters the layers, over the images of a part, or all where it has none."""
    total = len(inputs.images.labels)
    indices = range(total)[part] or range(total)
    low, high = dict.fromkeys(names, np.inf), dict.fromkeys(names, -np.inf)

    def note(operation: Operation) -> torch.Tensor:
        if operation.tensor in low:
            low[operation.tensor] = min(low[operation.tensor], float(operation.inputs.min()))
            high[operation.tensor] = max(high[operation.tensor], float(operation.inputs.max()))
        return operation()

    for start in range(indices.start, indices.stop, inputs.batch_size):
        images = inputs.batch(slice(start, min(start + inputs.batch_size, indices.stop)), classifier.channels)
        with torch.inference_mode(), Watch(classifier.model, note):
            classifier.logits(images)
    return np.array(list(low.values())), np.array(list(high.values()))


def logits_of(classifier: TorchClassifier, inputs: Inputs, part: slice, watch: Disturbed | None) -> np.ndarray:
    """(n, K) of the images of a part."""
    found, size = [], inputs.batch_size
    for first in range(part.start, part.stop, size):
        images = inputs.batch(slice(first, min(first + size, part.stop)), classifier.channels)
        with torch.inference_mode():
            if watch is None:
                logits = classifier.logits(images)
            else:
                watch.start(len(images))
                with watch:
                    logits = classifier.logits(images)
        found.append(logits.double().numpy())
    return finite_logits(found, classifier.name)
