"""How errors of every tensor of a PyTorch network move its logits, to first order: Gram matrices and common draws.

Of each image the gradient of each logit at the outputs of the weighted operations is taken backwards; with the inputs of the
operation it makes the Jacobian J of the logits by the entries of the weight. A convolution's error is common to all positions,
so J is summed over them before it is squared. Kept are J J' and what M draws of errors, common to all images, do.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from simulate.networks.operations import Operation, Watch, rows_of
from simulate.networks.weights import Weight

SPATIAL = {"convolution", "transposed convolution"}


class Trace:
    """The weighted operations of one forward pass, with a probe of zeros added to what each takes and gives: gradients at
    the probes are those at inputs and outputs, whatever later operations do in place."""

    def __init__(self, model: torch.nn.Module):
        self.operations: list[Operation] = []
        self.outputs: list[torch.Tensor] = []
        self.inputs: list[torch.Tensor] = []
        self.watch = Watch(model, self._probe)

    def _probe(self, operation: Operation) -> torch.Tensor:
        taken = torch.zeros_like(operation.inputs, requires_grad=True)
        with torch.enable_grad():
            result = operation(operation.inputs + taken)
            given = torch.zeros_like(result, requires_grad=True)
            self.operations.append(operation)
            self.inputs.append(taken)
            self.outputs.append(given)
            return result + given

    def gradients(self, logits: torch.Tensor, candidates: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """For every operation the gradients (C, *shape) of the candidates' logits at its inputs and at its outputs."""
        probes = [*self.inputs, *self.outputs]
        followed = torch.gather(logits, 1, candidates)
        found: list[list[torch.Tensor]] = []
        for c in range(followed.shape[1]):
            parts = torch.autograd.grad(followed[:, c].sum(), probes, retain_graph=c + 1 < followed.shape[1], allow_unused=True)
            found.append([torch.zeros_like(p) if g is None else g for p, g in zip(probes, parts, strict=True)])
        stacked = [torch.stack(parts) for parts in zip(*found, strict=True)]
        return stacked[: len(self.inputs)], stacked[len(self.inputs) :]


def jacobian(operation: Operation, gradients: torch.Tensor, n: int) -> torch.Tensor:
    """(n, C, rows, columns) of the logits by the weight of an operation, from their gradients (C, *shape) at its output."""
    x, C = operation.inputs.detach(), len(gradients)
    if operation.kind not in SPATIAL:
        x = x.reshape(n, -1, x.shape[-1])
        g = gradients.reshape(C, n, -1, gradients.shape[-1]).transpose(0, 1)
        return g.transpose(2, 3) @ x[:, None]
    groups, kernel = operation.groups, operation.weight.shape[2:]
    if operation.kind == "convolution":
        patches = _patches(x, kernel, operation.options)  # (n, inputs, kernel, positions)
        patches = patches.reshape(n, groups, -1, patches.shape[-1])
        g = gradients.reshape(C, n, groups, -1, patches.shape[-1]).permute(1, 2, 0, 3, 4)
        found = g.reshape(n, groups, -1, g.shape[-1]) @ patches.transpose(2, 3)  # (n, groups, C * outputs, columns)
        return found.reshape(n, groups, C, -1, found.shape[-1]).transpose(1, 2).reshape(n, C, -1, found.shape[-1])
    positions = int(np.prod(x.shape[2:]))
    outputs = gradients.shape[2]
    patches = _patches(gradients.reshape(C * n, *gradients.shape[2:]), kernel, operation.options, x.shape[2:])
    patches = patches.reshape(C, n, groups, outputs // groups, -1, positions)
    values = x.reshape(n, groups, -1, positions)
    found = torch.einsum("cngokp,ngip->ncgoik", patches, values)
    return found.reshape(n, C, outputs, -1)


def _patches(x: torch.Tensor, kernel: Sequence[int], options: dict, most: Sequence[int] | None = None) -> torch.Tensor:
    """(n, channels, kernel, positions) what each position of a convolution sees; ``most`` positions an axis."""
    axes = len(kernel)
    stride, dilation = (_each(options.get(name, 1), axes) for name in ("stride", "dilation"))
    padding = options.get("padding", 0)
    if padding == "same":  # as PyTorch pads: the odd one behind
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        ends = [(t // 2, t - t // 2) for t in total]
    else:
        ends = [(p, p) for p in _each(0 if padding == "valid" else padding, axes)]
    x = F.pad(x, [size for pair in reversed(ends) for size in pair])
    for axis in range(axes):
        window = dilation[axis] * (kernel[axis] - 1) + 1
        x = x.unfold(2 + axis, window, stride[axis])[..., :: dilation[axis]]
        if most is not None:
            x = x.narrow(2 + axis, 0, most[axis])
    places, taps = range(2, 2 + axes), range(2 + axes, 2 + 2 * axes)
    x = x.permute(0, 1, *taps, *places)
    return x.reshape(*x.shape[:2], int(np.prod(kernel)), -1)


def _each(value, axes: int) -> list[int]:
    values = list(value) if isinstance(value, list | tuple) else [value]
    return [int(v) for v in (values * axes if len(values) == 1 else values)]


def row_grams(J: torch.Tensor, squares: torch.Tensor) -> torch.Tensor:
    """(S, n, C, C) sums over rows of J_r J_r' weighed with ``squares`` (S, rows), of a Jacobian (n, C, rows, columns)."""
    by_row = J.transpose(1, 2)
    return torch.einsum("sr,nrcd->sncd", squares, by_row @ by_row.transpose(2, 3))


def shifts(J: torch.Tensor, errors: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """(S, M, n, C) shifts of the logits under errors (rows, columns, M) whose rows are scaled with ``scales`` (S, rows)."""
    n, C, rows, columns = J.shape
    by_row = J.permute(2, 0, 1, 3).reshape(rows, n * C, columns) @ errors
    return torch.einsum("sr,rpm->smp", scales, by_row).reshape(len(scales), -1, n, C)


def weights_of(operations: Sequence[Operation], model: torch.nn.Module) -> list[Weight]:
    """The weights behind the operations of a pass, each once, in the order in which they are first used."""
    parameters = dict(model.named_parameters())
    found = {}
    for operation in operations:
        rows = rows_of(operation)
        values = rows.of(parameters[operation.tensor].detach()).double().numpy()
        found.setdefault(operation.tensor, Weight(name=operation.tensor, values=values, rows=rows))
    return list(found.values())


def _entering(operations: Sequence[Operation]) -> list[str]:
    """For every operation the weight that what enters it is named by: that of the first operation that takes the same."""
    names: dict[tuple[int, tuple[int, ...]], str] = {}
    return [names.setdefault((op.inputs.data_ptr(), tuple(op.inputs.shape)), op.tensor) for op in operations]


def entering_of(operations: Sequence[Operation]) -> dict[str, int]:
    """What enters the operations of a pass of one image, by the weight that first takes it: entries."""
    return {name: op.inputs.numel() for name, op in zip(_entering(operations), operations, strict=True)}


def entering_gradients(operations: Sequence[Operation], gradients: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """The gradients (C, *shape) at what enters, those of several operations that take the same added."""
    found: dict[str, torch.Tensor] = {}
    for name, gradient in zip(_entering(operations), gradients, strict=True):
        found[name] = found[name] + gradient if name in found else gradient
    return found
