"""The convolutions and linear operations of a PyTorch network, seen as they run, whether modules or functions make them.

Each is known by the parameter that is its weight, so that one tensor used twice is one tensor. Whoever watches may change what
an operation takes and gives: that is how noise is put in and how gradients are taken out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from simulate.networks.weights import Rows
from theory.setting.command_line import say
from theory.setting.errors import InputError, listed

_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
_PRODUCT = ("input", "other")
SIGNATURES: dict[Any, tuple[str, tuple[str, ...]]] = {
    F.linear: ("linear", ("input", "weight", "bias")),
    torch.conv1d: ("convolution", _CONVOLUTION),
    torch.conv2d: ("convolution", _CONVOLUTION),
    torch.conv3d: ("convolution", _CONVOLUTION),
    torch.conv_transpose1d: ("transposed convolution", _TRANSPOSED),
    torch.conv_transpose2d: ("transposed convolution", _TRANSPOSED),
    torch.conv_transpose3d: ("transposed convolution", _TRANSPOSED),
    torch.matmul: ("product", _PRODUCT),
    torch.mm: ("product", ("input", "mat2")),
    torch.Tensor.matmul: ("product", _PRODUCT),
    torch.Tensor.__matmul__: ("product", _PRODUCT),
    torch.Tensor.mm: ("product", ("input", "mat2")),
    torch.addmm: ("product", ("bias", "mat1", "mat2")),
    torch.Tensor.addmm: ("product", ("bias", "mat1", "mat2")),
}
PACKED = {  # several weights in one call, whose parts are not seen
    F.multi_head_attention_forward: "attention with packed weights",
    **{getattr(torch, kind): f"recurrent layer ({kind})" for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu")},
    torch.bilinear: "bilinear layer",
    F.bilinear: "bilinear layer",
}


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One call of an operation with a weight.

    Attributes:
        tensor: name of the parameter that is the weight.
        kind: "linear", "convolution", "transposed convolution" or "product" (the weight as (inputs, outputs)).
        inputs: what it takes, (n, ...). weight: as the call takes it: the parameter, or its transpose.
        options: of a convolution: stride, padding, dilation, groups, output_padding.
        turned: whether the call takes the parameter's transpose.
        bias: what it adds, if anything.
        call: of other inputs and another weight, with or without the bias.
    """

    tensor: str
    kind: str
    inputs: torch.Tensor
    weight: torch.Tensor
    options: dict[str, Any]
    turned: bool
    bias: torch.Tensor | None
    call: Callable[[torch.Tensor, torch.Tensor, bool], torch.Tensor]

    @property
    def groups(self) -> int:
        return int(self.options.get("groups", 1))

    def __call__(
        self, inputs: torch.Tensor | None = None, weight: torch.Tensor | None = None, bias: bool = True
    ) -> torch.Tensor:
        """What it gives, of other inputs or another weight where they are given."""
        return self.call(self.inputs if inputs is None else inputs, self.weight if weight is None else weight, bias)


def rows_of(operation: Operation) -> Rows:
    """How the parameter behind an operation lies as rows of output channels."""
    if operation.kind == "transposed convolution":
        return Rows(1, operation.groups)
    return Rows(int((operation.kind == "product") != operation.turned))


class Watch(TorchFunctionMode):
    """Calls ``work(operation)`` in the place of every operation whose weight is one of the parameters, and gives what that
    gives. ``seen`` are the weights met; ``unknown`` operations whose weight is none of them: computed from others, no parameter
    at all, or packed with others."""

    def __init__(self, model: torch.nn.Module, work: Callable[[Operation], torch.Tensor]):
        super().__init__()
        self.parameters = {name: tensor for name, tensor in model.named_parameters() if tensor.ndim >= 2}
        self.names = {_key(tensor): name for name, tensor in self.parameters.items()}
        self.work = work
        self.unknown: list[str] = []
        self.seen: set[str] = set()

    def check(self, name: str) -> None:
        """Refuse a network (of this name) with weights that are no parameters or not seen: they would silently stay as they
        are. Say which other parameters of two axes or more do."""
        if self.unknown:
            raise InputError(
                f"{name}: expected weights that are parameters, got one computed from others, packed or held otherwise: "
                f"{listed(self.unknown)}"
            )
        left = [name for name in self.parameters if name not in self.seen]
        if left:
            say(f"{name}: no convolution or linear layer takes {listed(left)}: left as they are")

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        operation = self._operation(func, args, kwargs)
        if operation is not None:
            self.seen.add(operation.tensor)
            return self.work(operation)
        if func in PACKED:
            self.unknown.append(PACKED[func])
        return func(*args, **kwargs)

    def _operation(self, func, args, kwargs) -> Operation | None:
        known = SIGNATURES.get(func)
        if known is None:
            return None
        kind, names = known
        given = dict(zip(names, args, strict=False)) | kwargs
        weight_name = next(name for name in ("weight", "other", "mat2") if name in names)
        inputs_name = "mat1" if "mat1" in names else "input"
        weight, inputs = given.get(weight_name), given.get(inputs_name)
        if not isinstance(weight, torch.Tensor) or not isinstance(inputs, torch.Tensor) or weight.ndim < 2:
            return None
        name = self.names.get(_key(weight))
        if name is None:
            if kind != "product":  # of two results it is none of weights
                self.unknown.append(f"{kind} {tuple(weight.shape)}")
            return None

        def call(x: torch.Tensor, w: torch.Tensor, bias: bool) -> torch.Tensor:
            new = {**given, inputs_name: x, weight_name: w}
            if not bias and "bias" in new:
                new["bias"] = None
            if kind != "product":
                return func(**new)
            added = new.get("bias")
            return x @ w if added is None else x @ w + added

        options = {key: value for key, value in given.items() if key not in (weight_name, inputs_name, "bias")}
        turned = weight.ndim == 2 and weight.stride() != self.parameters[name].stride()
        return Operation(
            tensor=name,
            kind=kind,
            inputs=inputs,
            weight=weight,
            options=options,
            turned=turned,
            bias=given.get("bias"),
            call=call,
        )


def _key(tensor: torch.Tensor) -> tuple[int, int]:
    """Where a tensor's entries lie: the same for a parameter and its transpose."""
    return tensor.data_ptr(), tensor.numel()
