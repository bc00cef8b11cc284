"""The CIFAR ResNets of He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2.

Depth 6n + 2: a 3x3 stem of 16 channels, three stages of n basic blocks with 16, 32 and 64 channels, parameter-free
shortcuts (option A: subsample, pad with zero channels), global average pooling to 64 features, one linear layer. Module
names follow the checkpoints of github.com/akamaster/pytorch_resnet_cifar10, so that those load strictly.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from simulate.networks.checkpoints import load_state, read_state
from simulate.networks.network import MEAN, NAMES, STD
from theory.setting.errors import InputError


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm and the option-A shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride = stride
        self.pad = channels - channels_in

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.pad:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad // 2, self.pad - self.pad // 2))
        return F.relu(y + x)


class CifarResNet(nn.Module):
    """A CIFAR ResNet of the given depth; input (n, 3, 32, 32), normalized by MEAN and STD, output (n, 10) logits."""

    def __init__(self, depth: int):
        super().__init__()
        if depth < 8 or depth % 6 != 2:
            raise InputError(f"depth: expected 6 n + 2, n at least 1, got {depth}")
        n = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, n, 1)
        self.layer2 = _stage(16, 32, n, 2)
        self.layer3 = _stage(32, 64, n, 2)
        self.linear = nn.Linear(64, 10)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """The (n, 64) input of the last layer."""
        x = F.relu(self.bn1(self.conv1(x)))
        return self.layer3(self.layer2(self.layer1(x))).mean((2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.features(x))


def _stage(channels_in: int, channels: int, n: int, stride: int) -> nn.Sequential:
    return nn.Sequential(*(Block(channels if i else channels_in, channels, 1 if i else stride) for i in range(n)))


def build(network: str) -> CifarResNet:
    """The untrained network of that name.

    Raises:
        InputError: no network has it.
    """
    if network not in NAMES:
        raise InputError(f"network: expected one of {', '.join(NAMES)}, got {network!r}")
    return CifarResNet(int(network.removeprefix("resnet")))


def preprocess(pixels: torch.Tensor) -> torch.Tensor:
    """(n, 3, 32, 32) uint8 to normalized float32."""
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (MEAN, STD))
    return (pixels.float() / 255 - mean) / std


def load(network: str, checkpoint: Path | str) -> tuple[CifarResNet, dict[str, Any]]:
    """The network with the checkpoint's weights, in evaluation mode, and what else the checkpoint says.

    Raises:
        InputError: the file is no checkpoint, or that of another network.
    """
    model = build(network)
    state, metadata = read_state(checkpoint)
    blocks, wanted = _blocks(state), _blocks(model.state_dict())
    if blocks not in (0, wanted):
        raise InputError(
            f"{checkpoint}: expected the {wanted} blocks of {network}, got {blocks} blocks: a ResNet of depth {2 * blocks + 2}"
        )
    load_state(model, state, checkpoint, network)
    return model.eval(), metadata


def _blocks(state: dict) -> int:
    """The number of residual blocks whose keys a state dictionary holds."""
    return len({key.split(".conv1.")[0] for key in state if key.startswith("layer") and ".conv1." in key})


def batches(pixels, size: int, work: Callable[[torch.Tensor], Any]) -> list[Any]:
    """``work`` on one preprocessed batch of ``pixels`` (n, 3, 32, 32) uint8 after the other, without gradients."""
    with torch.inference_mode():
        return [work(preprocess(torch.from_numpy(pixels[i : i + size]))) for i in range(0, len(pixels), size)]
