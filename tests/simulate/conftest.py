"""A network and its images, for the tests of whole networks."""

import sys
from types import ModuleType

import numpy as np
import pytest

from tests.support.cifar import coarse_pixels, normalized, write_cifar


@pytest.fixture
def small(tmp_path, seed, monkeypatch):
    """The options of a network of four classes and 200 images in CIFAR's layout, which is right for most of them."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("PIL")
    from tests.support.small_network import K, Small, made

    model = made(Small, seed)
    model.head.weight.data *= 30
    rng = np.random.default_rng(seed)
    pixels = coarse_pixels(200, rng)
    x = torch.from_numpy(normalized(pixels))
    with torch.no_grad():
        model.head.bias -= model(x).mean(0)
        labels = np.where(rng.random(200) < 0.8, model(x).argmax(1).numpy(), rng.integers(0, K, 200)).astype(np.uint8)
    write_cifar(tmp_path / "data", pixels, labels)
    module = ModuleType("small_networks")
    module.__dict__["model"] = model
    monkeypatch.setitem(sys.modules, "small_networks", module)
    options: dict = dict(network="small_networks:model", data=tmp_path / "data", mean=[0.5], std=[0.25])
    return model, x, labels.astype(int), options
