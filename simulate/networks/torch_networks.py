"""Any PyTorch classifier, ``module:factory`` with a checkpoint (.pt, .th or .safetensors): its linear operations seen as they
run."""

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from simulate.networks.checkpoints import load_state, read_state
from simulate.networks.cifar_resnet import load
from simulate.networks.network import NAMES, Linear, Network, find_head, first_line, sha256
from theory.setting.errors import InputError

BITS = {torch.float16: 16, torch.bfloat16: 16}


class _Seen(TorchFunctionMode):
    """The linear operations of a forward pass, as modules or functions, in the order in which they run."""

    def __init__(self):
        super().__init__()
        self.operations: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        found = _linear(func, args, kwargs)
        if found is not None:
            self.operations.append(found)
        return result


def _linear(func, args, kwargs) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Inputs (n, ..., d) and weights (K, d) of a linear operation, or None."""
    if func is F.linear:
        x, weight = (*args, *(kwargs[name] for name in ("input", "weight") if name in kwargs))[:2]
        return x, weight
    if func in (torch.conv2d, F.conv2d):
        x, weight = (*args, *(kwargs[name] for name in ("input", "weight") if name in kwargs))[:2]
        if weight.shape[2:] == (1, 1) and weight.shape[1] == x.shape[1] and x.ndim == 4:
            return x.movedim(1, -1), weight[:, :, 0, 0]
        return None
    if func in (torch.matmul, torch.mm, torch.Tensor.matmul, torch.Tensor.mm, torch.Tensor.__matmul__):
        x, other = args[:2]
        return (x, other.T) if other.ndim == 2 and x.ndim >= 2 else None
    if func in (torch.addmm, torch.Tensor.addmm):
        return args[1], args[2].T
    return None


def open_torch(network: str, checkpoint: Path | str | None, images: np.ndarray) -> Network:
    """A named CIFAR ResNet or ``module:factory``, its head found on a batch of normalized images.

    Raises:
        InputError: no such factory, what it makes is no module, a checkpoint that does not fit, no linear head.
    """
    model, said, files = _load(network, checkpoint)

    def operations(x: np.ndarray) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], np.ndarray]:
        seen = _Seen()
        try:
            with torch.inference_mode(), seen:
                output = _tensor(model(torch.from_numpy(x)), network)
        except (RuntimeError, ValueError, TypeError) as error:
            raise InputError(
                f"{network}: expected a network that takes images {x.shape[1:]}, got {first_line(error)}"
            ) from None
        return seen.operations, output.float().numpy()

    def pooled(x: torch.Tensor) -> np.ndarray:
        """(n, d): the mean over positions, which a linear layer and the mean may change places with."""
        return x.float().reshape(len(x), -1, x.shape[-1]).mean(1).numpy()

    found, output = operations(images)
    head = find_head([Linear(pooled(x), weight.detach().float().numpy()) for x, weight in found], output, network)
    bits = BITS.get(found[-1 - head.place][1].dtype, 32)

    def run_batch(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found, output = operations(x)
        return pooled(found[-1 - head.place][0]), output.reshape(len(x), -1)

    return Network(network, head, run_batch, bits, said, files)


def _tensor(output: Any, name: str) -> torch.Tensor:
    """The logits among what a network returns: itself, ``logits``, or the first of several."""
    if isinstance(output, dict):
        output = output.get("logits", next(iter(output.values()), None))
    elif not isinstance(output, torch.Tensor) and hasattr(output, "logits"):
        output = output.logits
    elif isinstance(output, tuple | list) and output:
        output = output[0]
    if isinstance(output, torch.Tensor):
        return output
    raise InputError(f"{name}: expected a tensor of logits from the network, got {type(output).__name__}")


def _load(network: str, checkpoint: Path | str | None) -> tuple[torch.nn.Module, dict[str, Any], dict[str, str]]:
    if network in NAMES:
        if checkpoint is None:
            raise InputError(f"checkpoint: expected a file for {network}, got none")
        model, said = load(network, checkpoint)
        return model, said, sha256(checkpoint)
    model = _made(network)
    if checkpoint is None:
        return model.eval(), {}, {}
    state, said = read_state(checkpoint)
    load_state(model, state, checkpoint, network)
    return model.eval(), said, sha256(checkpoint)


def _made(network: str) -> torch.nn.Module:
    module, _, factory = network.partition(":")
    if not module or not factory:
        raise InputError(
            f"network: expected one of {', '.join(NAMES)}, module:factory, or a .keras, .h5 or .onnx file, got {network!r}"
        )
    sys.path.insert(0, str(Path.cwd()))
    try:
        made: Any = importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"network: expected an importable module {module!r}, got {type(error).__name__}: {error}") from None
    finally:
        sys.path.pop(0)
    for name in factory.split("."):
        if not hasattr(made, name):
            raise InputError(f"network: expected {factory!r} in {module}, found none")
        made = getattr(made, name)
    try:
        model = made() if not isinstance(made, torch.nn.Module) else made
    except Exception as error:  # the user's own code
        raise InputError(f"network: expected {network} to make a torch.nn.Module, got {first_line(error)}") from None
    if not isinstance(model, torch.nn.Module):
        raise InputError(f"network: expected {network} to make a torch.nn.Module, got {type(model).__name__}")
    return model
