"""PyTorch checkpoints, .pt, .th and .safetensors: tensors and plain values only, and every key and shape must match."""

import argparse
import math
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core import multiarray  # where the scalars of NumPy say they come from

from theory.setting.archive import check_readable
from theory.setting.errors import InputError, in_short

WRAPPED = (  # names under which states are kept
    *("state_dict", "model_state_dict", "model", "net", "network", "weights"),
    *("model_state", "params", "state_dict_ema", "model_ema", "ema"),
)
DEEPEST = 4  # dictionaries in each other; a file can hold one that holds itself
MULTIARRAY = ("numpy._core.multiarray", "numpy.core.multiarray")  # where NumPy 2 and NumPy 1 say their arrays come from
PREFIXES = ("module.", "_orig_mod.")  # of DataParallel, of torch.compile
OWNERS = ("model.", "net.", "network.", "backbone.")  # of what holds the network: all keys of a file, or none
PLAIN: list[Any] = [  # what checkpoints hold beside tensors and is no code: NumPy's scalars and arrays, argparse's options
    *((thing, f"{module}.{thing.__name__}") for thing in (multiarray.scalar, multiarray._reconstruct) for module in MULTIARRAY),
    np.dtype,
    np.ndarray,
    *(type(np.dtype(name)) for name in ("f8", "f4", "f2", "i8", "i4", "i2", "u1", "u2", "u4", "u8", "bool", "U1")),
    argparse.Namespace,
]


def read_checkpoint(path: Path | str) -> dict[str, Any]:
    """What a checkpoint file holds: a pickle that would run code is refused; plain NumPy scalars are allowed."""
    path = check_readable(path, "a checkpoint file")
    if path.suffix == ".safetensors":
        try:
            from safetensors.torch import load_file
        except ImportError:
            raise InputError(f"{path}: reading it needs safetensors: pip install 'compressed-network-theory[torch]'") from None
        try:
            return load_file(str(path))
        except Exception as error:  # safetensors raises its own kinds
            raise InputError(f"{path}: expected a safetensors file, cannot read it: {_what(path) or in_short(error)}") from None
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(PLAIN):
            warnings.simplefilter("ignore")  # what torch says of a file that is refused is said below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds; whichever it is, the file is not used
        unsafe = "weights_only" in str(error).lower() and "unsupported" in str(error).lower()
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        code = f"it holds {named.group(1)}, and is not loaded: save the state_dict alone" if unsafe and named else None
        reason = _what(path) or code or "it is not readable"
        raise InputError(
            f"{path}: expected a PyTorch checkpoint of tensors, got something else: {reason} ({type(error).__name__})"
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a dictionary of tensors, got {type(content).__name__}")
    return content


def _what(path: Path) -> str | None:
    """What a file is that is no checkpoint, where it is known."""
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS: fetch the file itself (git lfs pull)"
    if not start:
        return "it is empty"
    if start.lstrip()[:1] in (b"<", b"{"):
        return f"it is a text ({'HTML or XML' if start.lstrip()[:1] == b'<' else 'JSON'}): a page in the place of the download?"
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except (zipfile.BadZipFile, OSError, NotImplementedError):
            return None
        if any("/code/" in name for name in names):
            return (
                "it is a TorchScript archive, which can't be looked into: save the state_dict of the network it was made from"
            )
    return None


def read_state(path: Path | str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors by name, the state unwrapped and prefixes such as ``module.`` stripped, and the plain finite values beside
    them."""
    content = read_checkpoint(path)
    state = content
    for _ in range(DEEPEST):
        inner = next((state[key] for key in WRAPPED if isinstance(state.get(key), dict)), None)
        if inner is None or any(isinstance(value, torch.Tensor) for value in state.values()):
            break
        state = inner
    tensors = {_bare(str(key)): value for key, value in state.items() if isinstance(value, torch.Tensor)}
    plain = {str(key): value.item() if isinstance(value, np.generic) else value for key, value in content.items()}
    said = {key: value for key, value in plain.items() if isinstance(value, int | float | str)}
    return tensors, {key: value for key, value in said.items() if not isinstance(value, float) or math.isfinite(value)}


def _bare(key: str) -> str:
    while key.startswith(PREFIXES):
        key = key.removeprefix(next(prefix for prefix in PREFIXES if key.startswith(prefix)))
    return key


def load_state(model: torch.nn.Module, state: dict[str, Any], file: Path | str, network: str) -> None:
    """Give a network its weights.

    Raises:
        InputError: no key in common, one missing or too many, another shape, NaN.
    """
    expected = model.state_dict()
    for owner in OWNERS:
        if state and not set(expected) & set(state) and all(key.startswith(owner) for key in state):
            state = {key.removeprefix(owner): value for key, value in state.items()}
    if not set(expected) & set(state):
        keys = f"got keys like {next(iter(state))!r}" if state else "got no tensor under any of the usual names"
        raise InputError(f"{file}: no key matches {network}: expected keys like {next(iter(expected), 'none')!r}, {keys}")
    # counters of training steps, absent from older checkpoints and without a role in evaluation
    state = state | {key: value for key, value in expected.items() if key.endswith("num_batches_tracked") and key not in state}
    state = state | _tied(model, state)
    for key in [*expected, *state]:
        if key not in state or key not in expected:
            raise InputError(f"{file}: key {key!r} is {'missing' if key not in state else 'not part of ' + network}")
        _check_tensor(f"{file}: {key}", state[key], expected[key])
    try:
        model.load_state_dict(state)
    except Exception as error:  # torch has many reasons
        raise InputError(
            f"{file}: expected tensors that {network} takes, got {type(error).__name__}: {in_short(error)}"
        ) from None


def _check_tensor(name: str, found: torch.Tensor, expected: torch.Tensor) -> None:
    if found.shape != expected.shape:
        raise InputError(f"{name}: expected shape {tuple(expected.shape)}, got {tuple(found.shape)}")
    if found.is_meta:
        raise InputError(f"{name}: expected values, got a tensor on the meta device, which has none")
    if found.layout != torch.strided or found.is_quantized:
        kind = "quantized" if found.is_quantized else str(found.layout).removeprefix("torch.")
        raise InputError(f"{name}: expected a plain tensor, got a {kind} one: save it dequantized and dense")
    if expected.is_floating_point() and not (found.is_floating_point() or found.is_complex()):
        raise InputError(f"{name}: expected floats, got {str(found.dtype).removeprefix('torch.')}")
    if found.is_complex() or (found.is_floating_point() and found.dtype.itemsize < 2):
        raise InputError(f"{name}: expected numbers of 16, 32 or 64 bits, got {str(found.dtype).removeprefix('torch.')}")
    if found.is_floating_point() and not torch.isfinite(found).all():
        raise InputError(f"{name}: expected finite values, got NaN or infinity")


def _tied(model: torch.nn.Module, state: dict[str, Any]) -> dict[str, Any]:
    """What a file leaves out since the network ties it to a tensor that is there."""
    by_storage: dict[int, str] = {}
    for key, value in model.state_dict().items():
        if key in state and value.numel():
            by_storage.setdefault(value.data_ptr(), key)
    missing = {key: value for key, value in model.state_dict().items() if key not in state and value.numel()}
    return {key: state[by_storage[value.data_ptr()]] for key, value in missing.items() if value.data_ptr() in by_storage}
