"""Batch norm of a PyTorch network, seen as it runs: folded into the weights before it, or given the statistics of the images
that calibrate."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from simulate.networks.disturbed import Disturbed
from simulate.networks.inputs import LARGE, Inputs
from simulate.networks.operations import Operation, Watch, rows_of
from simulate.networks.torch_networks import TorchClassifier
from theory.setting.errors import InputError, listed

SIGNATURES: dict[Any, tuple[str, ...]] = {
    F.batch_norm: ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
    torch.batch_norm: ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps"),
}
SMALL_TOGETHER, LARGE_TOGETHER = 2048, 64  # images of at most and above LARGE pixels whose statistics are taken in one pass
UNCHANGED = 1e-3  # of the logits' largest entry: what folding may move them by


@dataclass(frozen=True, kw_only=True)
class Norm:
    """One call of a batch norm: what it takes, and the tensors that it holds."""

    inputs: torch.Tensor
    mean: torch.Tensor
    variance: torch.Tensor
    weight: torch.Tensor | None
    bias: torch.Tensor | None
    epsilon: float

    def __call__(self, mean: torch.Tensor | None = None, variance: torch.Tensor | None = None) -> torch.Tensor:
        """What it gives, with other statistics where they are given."""
        own = self.mean if mean is None else mean, self.variance if variance is None else variance
        return F.batch_norm(self.inputs, *own, self.weight, self.bias, False, 0.0, self.epsilon)


class Norms(TorchFunctionMode):
    """Calls ``work(norm)`` in the place of every batch norm that holds statistics, and gives what that gives."""

    def __init__(self, work: Callable[[Norm], torch.Tensor]):
        super().__init__()
        self.work = work

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        names = SIGNATURES.get(func)
        if names is None:
            return func(*args, **kwargs)
        given = dict(zip(names, args, strict=False)) | kwargs
        if given.get("running_mean") is None or given.get("training"):
            return func(*args, **kwargs)
        return self.work(
            Norm(
                inputs=given["input"],
                mean=given["running_mean"],
                variance=given["running_var"],
                weight=given.get("weight"),
                bias=given.get("bias"),
                epsilon=float(given.get("eps", 1e-5)),
            )
        )


@contextmanager
def folded(classifier: TorchClassifier, images: np.ndarray) -> Iterator[None]:
    """Fold every batch norm that directly follows a convolution or linear layer into its weight, inside a ``with`` block, as
    integer runtimes do. What follows what is found by running.

    W becomes W times gamma/sqrt(variance + epsilon) of its output channel; the batch norm is left with the shift alone.

    Args:
        classifier: whose parameters and buffers are changed in place, and are as before after it.
        images: normalized, to find what follows what.

    Raises:
        InputError: no batch norm follows a weight, or the network's output changes: another operation reads between the two.
    """
    model = classifier.model
    results: list[tuple[torch.Tensor, Operation]] = []
    pairs: list[tuple[Operation, Norm]] = []
    uses: dict[int, int] = {}

    def note(operation: Operation) -> torch.Tensor:
        results.append((operation(), operation))
        return results[-1][0]

    def pair(norm: Norm) -> torch.Tensor:
        uses[norm.mean.data_ptr()] = uses.get(norm.mean.data_ptr(), 0) + 1
        pairs.extend((operation, norm) for result, operation in results if result is norm.inputs)
        return norm()

    with torch.inference_mode(), Norms(pair), Watch(model, note):
        before = classifier.logits(images)
    often = [operation.tensor for _, operation in results]
    parameters, kept, into = dict(model.named_parameters()), {}, []

    def change(tensor: torch.Tensor, values: torch.Tensor) -> None:
        kept.setdefault(tensor.data_ptr(), (tensor, tensor.detach().clone()))
        tensor.data.copy_(values)

    try:
        with torch.no_grad():
            for operation, norm in pairs:
                if often.count(operation.tensor) > 1 or uses[norm.mean.data_ptr()] > 1:
                    continue
                scale = torch.rsqrt(norm.variance + norm.epsilon) * (1.0 if norm.weight is None else norm.weight)
                shift = (0.0 if norm.bias is None else norm.bias) - norm.mean * scale
                rows, parameter = rows_of(operation), parameters[operation.tensor]
                change(parameter, rows.back(rows.of(parameter.data) * scale[:, None], parameter))
                if operation.bias is not None:
                    shift = shift + operation.bias * scale
                    change(operation.bias, torch.zeros_like(operation.bias))
                change(norm.variance, torch.full_like(norm.variance, 1 - norm.epsilon))
                change(norm.mean, -shift)
                for held, neutral in ((norm.weight, 1.0), (norm.bias, 0.0)):
                    if held is not None:
                        change(held, torch.full_like(held, neutral))
                into.append(operation.tensor)
        if not into:
            raise InputError(
                f"fold: expected a batch norm that follows a convolution or linear layer in {classifier.name}, found none"
            )
        with torch.inference_mode():
            moved = float((classifier.logits(images) - before).abs().max() / before.abs().max())
        if not moved < UNCHANGED:
            raise InputError(
                f"fold: expected the logits of {classifier.name} to stay as they are, they move by {moved:.2g} of the largest: "
                f"another operation reads between a weight and its batch norm, among {listed(into, 5)}"
            )
        yield
    finally:
        for tensor, values in kept.values():
            tensor.data.copy_(values)


class Recalibrated:
    """Batch norms with the mean and variance of what enters them over the images of a part, inside a ``with`` block.

    Small images are taken all at once, up to SMALL_TOGETHER; else each batch of the pass is normalized with its own statistics,
    and those of all batches are pooled. ``watch`` rounds inputs in these passes too.
    """

    def __init__(self, classifier: TorchClassifier, inputs: Inputs, part: slice, watch: Disturbed | None = None):
        self.classifier, self.inputs, self.part, self.watch = classifier, inputs, part, watch
        self.kept: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __enter__(self) -> None:
        held: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        sums: dict[int, list] = {}

        def note(norm: Norm) -> torch.Tensor:
            axes = [axis for axis in range(norm.inputs.ndim) if axis != 1]
            variance, mean = torch.var_mean(norm.inputs, axes, unbiased=False)
            count, square = norm.inputs.numel() // norm.inputs.shape[1], variance.double() + mean.double() ** 2
            key = norm.mean.data_ptr()
            held[key] = norm.mean, norm.variance
            total = sums.setdefault(key, [0, 0.0, 0.0])
            for i, term in enumerate((count, count * mean.double(), count * square)):
                total[i] = total[i] + term
            return norm(mean.to(norm.mean.dtype), variance.to(norm.mean.dtype))

        pixels = int(np.prod(self.inputs.images.pixels[0:1].shape[2:]))
        size = SMALL_TOGETHER if pixels <= LARGE else LARGE_TOGETHER
        for first in range(self.part.start, self.part.stop, size):
            images = self.inputs.batch(slice(first, min(first + size, self.part.stop)), self.classifier.channels)
            if self.watch is not None:
                self.watch.start(len(images))
            with torch.inference_mode(), Norms(note), self.watch or nullcontext():
                self.classifier.logits(images)
        if not held:
            raise InputError(f"recalibrate: expected batch norms in {self.classifier.name}, found none")
        for key, tensors in held.items():
            count, mean, square = sums[key]
            new = mean / count, (square / count - (mean / count) ** 2).clamp(min=0)
            for tensor, value in zip(tensors, new, strict=True):
                self.kept.append((tensor, tensor.clone()))
                tensor.data.copy_(value)

    def __exit__(self, *_: object) -> None:
        for tensor, value in self.kept:
            tensor.data.copy_(value)
        self.kept = []
