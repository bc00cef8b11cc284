"""Four small CIFAR networks of different kinds, on which predictions are checked that were tuned to none of them.

Trained by ``simulate train --network simulate.experiments.small_networks:NAME``; input (n, 3, 32, 32), normalized, output
(n, 10) logits. Their last layers see what those of real networks see: features after a ReLU and mean pooling (``plain``,
``separable``), after a ReLU alone (``dense``), and of either sign (``mixer``).
"""

import torch
from torch import nn


def plain() -> nn.Module:
    """Four convolutions; 128 features after a ReLU and mean pooling."""
    layers: list[nn.Module] = []
    for channels_in, channels, stride in ((3, 32, 1), (32, 64, 2), (64, 128, 2), (128, 128, 1)):
        layers += [nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


def separable() -> nn.Module:
    """Depthwise and pointwise convolutions in turn (Howard et al. 2017); 192 features after a ReLU and mean pooling."""
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
    for channels_in, channels, stride in ((32, 64, 1), (64, 128, 2), (128, 192, 1), (192, 192, 1)):
        layers += [nn.Conv2d(channels_in, channels_in, 3, stride, 1, groups=channels_in, bias=False)]
        layers += [nn.BatchNorm2d(channels_in), nn.ReLU()]
        layers += [nn.Conv2d(channels_in, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(192, 10))


def dense() -> nn.Module:
    """Three dense layers; 256 features after a ReLU."""
    layers: list[nn.Module] = [nn.Flatten()]
    for features_in, features in ((3072, 512), (512, 256)):
        layers += [nn.Linear(features_in, features, bias=False), nn.BatchNorm1d(features), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(256, 10))


class _Mixer(nn.Module):
    """Tokens and channels mixed in turn (Tolstikhin et al. 2021), on patches of 4 x 4 pixels."""

    def __init__(self, channels: int = 96, blocks: int = 3):
        super().__init__()
        self.patches = nn.Conv2d(3, channels, 4, 4)
        self.tokens = nn.ModuleList(_Residual(64, 64) for _ in range(blocks))
        self.channels = nn.ModuleList(_Residual(channels, 2 * channels) for _ in range(blocks))
        self.norm = nn.LayerNorm(channels)
        self.linear = nn.Linear(channels, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2)  # (n, channels, tokens)
        for tokens, channels in zip(self.tokens, self.channels, strict=True):
            x = channels(tokens(x).transpose(1, 2)).transpose(1, 2)
        return self.linear(self.norm(x.mean(2)))


class _Residual(nn.Module):
    """A dense network of one hidden layer along the last axis, added to its input."""

    def __init__(self, size: int, hidden: int):
        super().__init__()
        self.change = nn.Sequential(nn.LayerNorm(size), nn.Linear(size, hidden), nn.GELU(), nn.Linear(hidden, size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.change(x)


def mixer() -> nn.Module:
    """A small MLP-Mixer; 96 features of either sign."""
    return _Mixer()
