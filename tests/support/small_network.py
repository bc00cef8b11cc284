"""A small PyTorch network of four classes, for whole networks; what compression by hand makes of it."""

from typing import Any

import numpy as np
import pytest

from theory.setting.schemes import compress

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

K = 4


class Small(nn.Module):
    """A convolution, batch norm and a linear head, on CIFAR's images."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 6, 5, stride=4), nn.BatchNorm2d(6), nn.Linear(6, K)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


def made(kind: type, seed: int) -> Any:
    torch.manual_seed(seed)
    model = kind().eval()
    model.norm.running_mean.uniform_(-0.3, 0.3)
    model.norm.running_var.uniform_(0.5, 2)
    return model


def decisions(model: Any, x: Any) -> np.ndarray:
    with torch.no_grad():
        return model(x).argmax(1).numpy()


def rounded_weights(model: Any, bits: int, **options: Any) -> Any:
    for name in ("conv", "head"):
        weight = getattr(model, name).weight
        layer = compress(weight.detach().double().numpy().reshape(len(weight), -1), "symmetric", bits, **options)
        weight.data = torch.from_numpy(layer.weights.reshape(weight.shape)).float()
    return model
