"""Any PyTorch classifier, ``module:factory`` with a checkpoint (.pt, .th or .safetensors): its linear operations seen as they
run."""

import importlib
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from simulate.networks.checkpoints import load_state, read_state
from simulate.networks.cifar_resnet import build, load
from simulate.networks.network import (
    INTEGER,
    NAMES,
    SCRIPT,
    Linear,
    Network,
    Sample,
    channels_of,
    find_head,
    first_line,
    pick_output,
    sha256,
)
from theory.setting.command_line import say
from theory.setting.errors import InputError, in_short

BITS = {torch.float16: 16, torch.bfloat16: 16, torch.float64: 64}
MONOTONE = {
    *(F.softmax, torch.softmax, torch.Tensor.softmax, F.log_softmax, torch.log_softmax, torch.Tensor.log_softmax),
    *(F.logsigmoid, torch.sigmoid, torch.Tensor.sigmoid, F.sigmoid),
}
FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


class _Operation(NamedTuple):
    """Inputs (n, ..., d), weights (K, d) and bias (K,) of a linear operation."""

    inputs: torch.Tensor
    weights: torch.Tensor
    bias: torch.Tensor | None


class _Decision(TorchFunctionMode):
    """What enters the last softmax, log-softmax or sigmoid, which decides as it does."""

    def __init__(self):
        super().__init__()
        self.result, self.taken = None, None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in MONOTONE:
            self.result, self.taken = result, (*args, kwargs.get("input"))[0]
        return result


class _Seen(TorchFunctionMode):
    """The linear operations of a forward pass, as modules or functions, in the order in which they run."""

    def __init__(self):
        super().__init__()
        self.operations: list[_Operation] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        found = _linear(func, args, kwargs)
        if found is not None:
            self.operations.append(found)
        return result


def _linear(func, args, kwargs) -> _Operation | None:
    """A linear operation, or None."""
    named = {name: kwargs[name] for name in ("input", "weight", "bias") if name in kwargs}
    if func in (F.linear, torch.conv2d, F.conv2d):
        given = dict(zip(("input", "weight", "bias"), args, strict=False)) | named
        x, weight, bias = given["input"], given["weight"], given.get("bias")
        if func is F.linear:
            return _Operation(x, weight, bias) if x.ndim >= 2 else None
        if weight.shape[2:] == (1, 1) and weight.shape[1] == x.shape[1] and x.ndim == 4:
            return _Operation(x.movedim(1, -1), weight[:, :, 0, 0], bias)
        return None
    if func in (torch.matmul, torch.mm, torch.Tensor.matmul, torch.Tensor.mm, torch.Tensor.__matmul__):
        other = next((kwargs[name] for name in ("other", "mat2") if name in kwargs), args[1] if len(args) > 1 else None)
        if not args or other is None:
            return None
        return _Operation(args[0], other.T, None) if other.ndim == 2 and args[0].ndim >= 2 else None
    if func in (torch.addmm, torch.Tensor.addmm) and len(args) >= 3 and not {"alpha", "beta"} & set(kwargs):
        return _Operation(args[1], args[2].T, args[0] if args[0].ndim == 1 else None)
    return None


@dataclass(frozen=True, kw_only=True)
class TorchClassifier:
    """A PyTorch classifier that was opened.

    Attributes:
        name: what it was asked for by. model: in evaluation mode. kind: the number format it is fed in.
        channels: of its images. flat: whether it takes them as vectors. output: which of its outputs are the logits.
        said: what its checkpoint says of it. files: the SHA-256 of what it was read from.
    """

    name: str
    model: torch.nn.Module
    kind: torch.dtype
    channels: int
    flat: bool
    output: str
    said: dict[str, Any]
    files: dict[str, str]

    def outputs(self, images: np.ndarray) -> dict[str, torch.Tensor]:
        """What the network returns, by name, of normalized images (n, channels, H, W).

        Raises:
            InputError: whatever the user's own code raises, in one line.
        """
        x = torch.from_numpy(images.reshape(len(images), -1) if self.flat else images).to(self.kind)
        try:
            return _outputs(self.model(x), self.name)
        except (Exception, SystemExit) as error:  # the user's own code, which may even ask to exit
            raise InputError(
                f"{self.name}: expected a network that takes images {tuple(x.shape[1:])}, got {first_line(error)}"
            ) from None

    def logits(self, images: np.ndarray) -> torch.Tensor:
        """(n, K) what decides: what enters the last softmax or sigmoid where the output is behind one, and a 0 beside a single
        output, which decides for class 1 where it is positive.

        Raises:
            InputError: outputs that are probabilities of an operation that was not seen.
        """
        with _Decision() as decision:
            output = self.outputs(images)[self.output]
        if output is decision.result and decision.taken is not None:
            output = decision.taken
        elif (
            output.shape[1] > 1
            and torch.all(output >= 0)
            and torch.allclose(output.sum(1), torch.ones(1).to(output), atol=1e-4)
        ):
            raise InputError(f"{self.name}: expected logits, or what a softmax makes of them, got probabilities from elsewhere")
        return torch.cat([torch.zeros_like(output), output], 1) if output.shape[1] == 1 else output


def open_classifier(
    network: str, checkpoint: Path | str | None, sample: Sample, classes: int = 0, output: str | None = None
) -> TorchClassifier:
    """As :func:`open_torch`, without looking for a head."""
    model, said, files = _load(network, checkpoint)
    channels = _channels(model, sample)
    images = sample(channels)
    kind = next((one.dtype for one in model.parameters() if one.is_floating_point()), torch.float32)
    classifier = TorchClassifier(
        name=network,
        model=model,
        kind=kind,
        channels=channels,
        flat=_takes_vectors(model, images, kind),
        output="",
        said=said,
        files=files,
    )
    with torch.inference_mode():
        arrays = {key: value.detach().double().numpy() for key, value in classifier.outputs(images).items()}
    return replace(classifier, output=pick_output(arrays, classes, output, network))


def open_torch(
    network: str, checkpoint: Path | str | None, sample: Sample, classes: int = 0, output: str | None = None
) -> Network:
    """A named CIFAR ResNet or ``module:factory``, its head found on a batch of normalized images. They are fed in the number
    format of its parameters, with as many channels as its first layer takes.

    Args:
        network, checkpoint: of the network. sample: the images. classes: of the data. output: which of several outputs.

    Raises:
        InputError: no such factory, what it makes is no module, a checkpoint that does not fit, no linear head.
    """
    classifier = open_classifier(network, checkpoint, sample, classes, output)

    def operations(x: np.ndarray) -> tuple[list[_Operation], torch.Tensor]:
        seen = _Seen()
        with torch.inference_mode(), seen:
            output = classifier.outputs(x)[classifier.output]
        return seen.operations, output

    def pooled(x: torch.Tensor) -> np.ndarray:
        """(n, d): the mean over positions, which a linear layer and the mean may change places with."""
        return x.detach().double().reshape(len(x), -1, x.shape[-1]).mean(1).numpy()

    found, logits = operations(sample(classifier.channels))
    precision = _precision([logits, *(one.inputs for one in found)])
    try:
        lines = [Linear(pooled(x), _array(weight), None if bias is None else _array(bias)) for x, weight, bias in found]
    except RuntimeError as error:  # weights that only look like tensors: quantized ones of torchao
        raise InputError(f"{network}: expected weights of floats, got tensors of another kind: {first_line(error)}") from None
    output_values = logits.numpy() if logits.dtype in (torch.int32, torch.int64) else logits.double().numpy()
    head = find_head(lines, output_values, network, precision, _opaque(classifier.model))
    weight = found[-1 - head.place].weights
    bits = BITS.get(weight.dtype, 32)
    said = classifier.said
    if bits == 16 and weight.dtype != torch.float16:
        said = {**said, "weights": str(weight.dtype).removeprefix("torch.")}

    def run_batch(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found, logits = operations(x)
        return pooled(found[-1 - head.place].inputs), logits.double().numpy().reshape(len(x), -1)

    exact = 16 if weight.dtype == torch.float16 else max(bits, 32)  # a file holds bfloat16 as float32, exactly
    return Network(network, head, run_batch, exact, said, classifier.files, classifier.channels, precision)


def _array(tensor: torch.Tensor) -> np.ndarray:
    kind = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    return tensor.detach().to(kind).numpy()


def _precision(tensors: list[torch.Tensor]) -> float:
    """The coarsest rounding among them."""
    kinds = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    return max([float(torch.finfo(kind).eps) for kind in kinds] + [float(torch.finfo(torch.float32).eps)])


def _channels(model: torch.nn.Module, sample: Sample) -> int:
    """Of the images that the first convolution takes, or else the first dense layer; 3 where there is neither."""
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            return module.in_channels
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            return channels_of(module.in_features, sample(3))
    return 3


def _opaque(model: torch.nn.Module) -> str | None:
    """What hides operations of a network, in words."""
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        return SCRIPT
    return INTEGER if any(".quantized" in type(module).__module__ for module in model.modules()) else None


def _takes_vectors(model: torch.nn.Module, images: np.ndarray, kind: torch.dtype) -> bool:
    """Whether a network refuses images (n, channels, H, W) and takes them as vectors."""
    if any(isinstance(module, torch.nn.Conv2d) for module in model.modules()):
        return False
    works = []
    for x in (images[:2], images[:2].reshape(2, -1)):
        try:
            with torch.inference_mode():
                model(torch.from_numpy(x).to(kind))
            works.append(True)
        except Exception:  # the user's own code: what it says of images is said when they are run
            works.append(False)
    return works == [False, True]


def _outputs(returned: Any, name: str) -> dict[str, torch.Tensor]:
    """The tensors among what a network returns, by name or number."""
    if isinstance(returned, torch.Tensor):
        return {"output": returned}
    if isinstance(getattr(returned, "logits", None), torch.Tensor):
        return {"logits": returned.logits}
    if isinstance(returned, tuple | list):
        returned = dict(enumerate(returned))
    if isinstance(returned, dict):
        found = {str(key): value for key, value in returned.items() if isinstance(value, torch.Tensor)}
        if found:
            return found
    raise InputError(f"{name}: expected a tensor of logits from the network, got {type(returned).__name__}")


def _load(network: str, checkpoint: Path | str | None) -> tuple[torch.nn.Module, dict[str, Any], dict[str, str]]:
    if network in NAMES:
        if checkpoint is None:
            raise InputError(f"checkpoint: expected a file for {network}, got none")
        model, said = load(network, checkpoint)
        return model, said, sha256(checkpoint)
    model = _made(network)
    if checkpoint is None:
        say(f"no checkpoint: the weights are those that {network} makes")
        return model.eval(), {}, {}
    state, said = read_state(checkpoint)
    load_state(model, state, checkpoint, network)
    return model.eval(), said, sha256(checkpoint)


def untrained(network: str) -> torch.nn.Module:
    """The network of that name, or what ``module:factory`` makes."""
    return build(network) if network in NAMES else _made(network)


def _made(network: str) -> torch.nn.Module:
    if not FACTORY.fullmatch(network):
        raise InputError(
            f"network: expected one of {', '.join(NAMES)}, module:factory, or a .keras, .h5 or .onnx file, got "
            f"{in_short(repr(network))}"
        )
    module, _, factory = network.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        made: Any = importlib.import_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the user's own code, which may even ask to exit
        raise InputError(f"network: expected an importable module {module!r}, got {first_line(error)}") from None
    finally:
        sys.path.pop(0)
    for name in factory.split("."):
        try:
            made = getattr(made, name)
        except AttributeError:
            raise InputError(f"network: expected {factory!r} in {module}, found none") from None
    try:
        model = made() if not isinstance(made, torch.nn.Module) else made
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the user's own code, which may even ask to exit
        raise InputError(f"network: expected {network} to make a torch.nn.Module, got {first_line(error)}") from None
    if not isinstance(model, torch.nn.Module):
        raise InputError(f"network: expected {network} to make a torch.nn.Module, got {type(model).__name__}")
    return model
