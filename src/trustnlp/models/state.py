"""Nested state (dictionaries, lists, plain numbers, tensors) as one safetensors file, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from trustnlp import files
from trustnlp.errors import RunError

_NOTE = "trustnlp"
_TENSOR = "tensor:"


def save_state(path: str | Path, state: Mapping[str, Any]) -> None:
    """Writes `state`; tensors go to the file's body and the rest, as JSON, to its header.

    Raises:
        TypeError: a value that is neither tensor nor JSON.
    """
    tensors: dict[str, torch.Tensor] = {}
    note = json.dumps(_lift(state, "", tensors))
    with files.whole(path) as part:
        save_file(tensors, part, metadata={_NOTE: note})


def load_state(path: str | Path) -> dict[str, Any]:
    """What `save_state` wrote, bit for bit, with tensors on the CPU.

    Raises:
        RunError: the file is damaged, or was not written by `save_state`.
    """
    try:
        with safe_open(path, framework="pt") as source:
            tensors = {name: source.get_tensor(name) for name in source.keys()}  # noqa: SIM118 (not a dictionary)
            note = (source.metadata() or {})[_NOTE]
    except (SafetensorError, KeyError, OSError) as error:
        raise RunError(f"{path} cannot be read as a checkpoint ({error})", "delete it to begin again") from error
    state: dict[str, Any] = _lower(json.loads(note), tensors)
    return state


def _lift(value: Any, place: str, tensors: dict[str, torch.Tensor]) -> Any:
    """`value` with every tensor replaced by its name, and moved to `tensors`."""
    if isinstance(value, torch.Tensor):
        tensors[place] = value.detach().cpu().contiguous().clone()  # tied weights share memory, which is refused
        return _TENSOR + place
    if isinstance(value, Mapping):
        return {key: _lift(item, f"{place}/{key}", tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_lift(item, f"{place}/{i}", tensors) for i, item in enumerate(value)]
    return value


def _lower(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(value, str) and value.startswith(_TENSOR):
        return tensors[value.removeprefix(_TENSOR)]
    if isinstance(value, dict):
        return {key: _lower(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [_lower(item, tensors) for item in value]
    return value
