"""PyTorch checkpoints, .pt, .th and .safetensors: tensors and plain values only, and every key and shape must match."""

import warnings
from pathlib import Path
from typing import Any

import torch

from theory.setting.errors import InputError


def read_checkpoint(path: Path | str) -> dict[str, Any]:
    """What a checkpoint file holds: a pickle that would run code is refused."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: expected a checkpoint file, found none")
    if path.suffix == ".safetensors":
        try:
            from safetensors.torch import load_file
        except ImportError:
            raise InputError(f"{path}: reading it needs safetensors: pip install 'compressed-network-theory[torch]'") from None
        try:
            return load_file(str(path))
        except Exception as error:  # safetensors raises its own kinds
            raise InputError(f"{path}: expected a safetensors file, cannot read it: {error}") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch says of a file that is refused is said below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds; whichever it is, the file is not used
        reason = "it would run code, and is not loaded" if "weights_only" in str(error).lower() else "it is not readable"
        raise InputError(
            f"{path}: expected a PyTorch checkpoint of tensors, got something else: {reason} ({type(error).__name__})"
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a dictionary of tensors, got {type(content).__name__}")
    return content


def read_state(path: Path | str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors by name, ``state_dict`` or ``model`` unwrapped and a ``module.`` prefix stripped, and the plain values beside
    them."""
    content = read_checkpoint(path)
    state = next((content[key] for key in ("state_dict", "model") if isinstance(content.get(key), dict)), content)
    tensors = {str(key).removeprefix("module."): value for key, value in state.items() if isinstance(value, torch.Tensor)}
    return tensors, {key: value for key, value in content.items() if isinstance(value, int | float | str)}


def load_state(model: torch.nn.Module, state: dict[str, Any], file: Path | str, network: str) -> None:
    """Give a network its weights.

    Raises:
        InputError: no key in common, one missing or too many, another shape, NaN.
    """
    expected = model.state_dict()
    if not set(expected) & set(state):
        raise InputError(
            f"{file}: no key matches {network}: expected keys like {next(iter(expected), 'none')!r}, got keys like "
            f"{next(iter(state), 'none')!r}"
        )
    # counters of training steps, absent from older checkpoints and without a role in evaluation
    state = state | {key: value for key, value in expected.items() if key.endswith("num_batches_tracked") and key not in state}
    for key in [*expected, *state]:
        if key not in state or key not in expected:
            raise InputError(f"{file}: key {key!r} is {'missing' if key not in state else 'not part of ' + network}")
        if state[key].shape != expected[key].shape:
            raise InputError(f"{file}: {key}: expected shape {tuple(expected[key].shape)}, got {tuple(state[key].shape)}")
        if state[key].is_floating_point() and not torch.isfinite(state[key]).all():
            raise InputError(f"{file}: {key}: expected finite values, got NaN or infinity")
    model.load_state_dict(state)
