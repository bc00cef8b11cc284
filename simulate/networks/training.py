"""Training a network on CIFAR-10: one recipe, written down in the checkpoint, resumable after every epoch."""

import ctypes
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from simulate.networks.checkpoints import read_checkpoint
from simulate.networks.cifar_resnet import batches, preprocess
from simulate.networks.images import read_cifar
from simulate.networks.torch_networks import untrained
from theory.setting.archive import write_whole
from theory.setting.command_line import progress, say
from theory.setting.errors import InputError

RECIPE = {
    "optimizer": "SGD, Nesterov momentum 0.9",
    "batch": 128,
    "peak_learning_rate": 0.1,
    "schedule": "linear up over the first fifth of the steps, linear down to 0",
    "weight_decay": 5e-4,
    "augmentation": "zero padding by 4, random crop, horizontal flip",
    "precision": "float32, channels last",
}


def train(*, network: str, data: Path | str, epochs: int, out: Path | str, seed: int = 0, limit: int | None = None) -> dict:
    """Train a network on the 50,000 training images and write a checkpoint after every epoch.

    The recipe is ``RECIPE``. Batch order and augmentation of an epoch depend on ``seed`` and the epoch alone, so that a
    run that finds its own unfinished checkpoint at ``out`` goes on where it stopped. The last epoch's weights are kept;
    the test images only measure the error at the end.

    Args:
        network: ``resnet20``, 32, 44, 56 or 110, or ``module:factory`` of a ``torch.nn.Module`` that takes (n, 3, 32, 32).
        data: the folder of CIFAR-10 (:func:`simulate.networks.images.read_cifar`).
        epochs: passes over the training images; it sets the schedule, so an unfinished run keeps its own.
        out: the checkpoint file.
        seed: of the initial weights, the batch order and the augmentation.
        limit: only the first training and test images (at least a batch of them).

    Returns:
        ``network``, ``epochs``, ``seed``, ``test_error`` (a fraction), ``checkpoint``.

    Raises:
        InputError: unknown network, no data, or a checkpoint of another run at ``out``.
    """
    out = Path(out)
    if epochs < 1:
        raise InputError(f"epochs: expected at least 1, got {epochs}")
    if not out.parent.is_dir():
        raise InputError(f"out: expected an existing folder, got {out.parent}")
    run = {
        "network": network,
        "epochs": epochs,
        "seed": seed,
        "limit": limit or 0,
        "recipe": json.dumps(RECIPE, sort_keys=True),
    }
    _keep_freed_memory()
    torch.manual_seed(seed)
    model = untrained(network)
    images = read_cifar(data, split="train", limit=limit)
    if len(images.labels) < RECIPE["batch"]:
        raise InputError(f"limit: expected at least a batch of {RECIPE['batch']} images, got {len(images.labels)}")
    test = read_cifar(data, split="test", limit=limit)
    state = _resume(out, run)
    if state.get("test_error") is not None:
        say(f"{out}: already trained, {epochs} of {epochs} epochs done")
        return _summary(run, out, state["test_error"])
    model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9, weight_decay=RECIPE["weight_decay"], nesterov=True)
    done = 0
    if state:
        model.load_state_dict(state["state_dict"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["done"]
        say(f"{out}: going on after {done} of {epochs} epochs")
    for epoch in range(done, epochs):
        start = time.monotonic()
        loss = _epoch(model, optimizer, images, epoch, epochs, seed)
        state = {**run, "done": epoch + 1, "state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}
        if epoch + 1 < epochs:
            _save(state, out)
        say(f"epoch {epoch + 1} of {epochs}: training loss {loss:.3f}, {time.monotonic() - start:.0f} s")
    model.eval()
    decisions = torch.cat(batches(test.pixels, 500, lambda x: model(x).argmax(1))).numpy()
    error = float(np.mean(decisions != test.labels))
    state = {key: value for key, value in state.items() if key != "optimizer"}
    _save({**state, "test_error": error}, out)
    return _summary(run, out, error)


def _summary(run: dict, out: Path, error: float) -> dict:
    return {**{key: run[key] for key in ("network", "epochs", "seed")}, "test_error": error, "checkpoint": str(out)}


def _resume(out: Path, run: dict) -> dict:
    if not out.exists():
        return {}
    state = read_checkpoint(out)
    for key, value in run.items():
        if state.get(key) != value:
            raise InputError(
                f"{out}: expected the checkpoint of a run with {key} {value!r}, got {state.get(key)!r}: "
                "give another --out, or remove the file"
            )
    return state


def _save(state: dict, out: Path) -> None:
    write_whole(out, lambda file: torch.save(state, file))


def _epoch(model, optimizer, images, epoch: int, epochs: int, seed: int) -> float:
    rng = np.random.default_rng([seed, epoch])
    n, size = len(images.labels), RECIPE["batch"]
    steps = n // size
    order = rng.permutation(n)[: steps * size].reshape(steps, size)
    padded = np.pad(images.pixels, ((0, 0), (0, 0), (4, 4), (4, 4)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (32, 32), axis=(2, 3))  # (n, 3, 9, 9, 32, 32)
    model.train()
    total = 0.0
    for step in progress(range(steps), what=f"epoch {epoch + 1}", unit="batch"):
        rows = order[step]
        dy, dx = rng.integers(0, 9, (2, size))
        pixels = windows[rows, :, dy, dx]
        flip = rng.random(size) < 0.5
        pixels[flip] = pixels[flip, :, :, ::-1]
        for group in optimizer.param_groups:
            group["lr"] = RECIPE["peak_learning_rate"] * _triangle((epoch + step / steps) / epochs)
        x = preprocess(torch.from_numpy(np.ascontiguousarray(pixels))).contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(model(x), torch.from_numpy(images.labels[rows]))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / steps


def _keep_freed_memory() -> None:
    """Ask glibc to keep freed activations instead of returning them to the system after every layer.

    Page faults, not arithmetic, took 88 % of an epoch on a virtual machine (1,239 s, 148 s with this).
    """
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # names of malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # no glibc: nothing to ask
        return
    for option, value in ((trim_threshold, 2**31 - 1), (top_pad, 2**27), (mmap_threshold, 2**30)):
        mallopt(option, value)


def _triangle(t: float) -> float:
    """The learning rate as a fraction of its peak, at the fraction t of the training."""
    return min(t / 0.2, (1 - t) / 0.8)
