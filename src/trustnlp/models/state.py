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
        state: dict[str, Any] = _lower(json.loads(note), tensors)
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise RunError(f"{path} cannot be read as a checkpoint ({error})", "delete it to begin again") from error
    return state


def _lift(value: Any, place: str, tensors: dict[str, torch.Tensor]) -> Any:
    """`value` as JSON, tensors moved to `tensors`. Containers and tensors become `[kind, content]`: unmistakable."""
    if isinstance(value, torch.Tensor):
        name = f"{len(tensors)}{place}"
        tensors[name] = value.detach().cpu().contiguous().clone()  # tied weights share memory, which is refused
        return ["tensor", name]
    if isinstance(value, Mapping):
        return ["dict", {key: _lift(item, f"{place}/{key}", tensors) for key, item in value.items()}]
    if isinstance(value, list | tuple):
        return ["list", [_lift(item, f"{place}/{i}", tensors) for i, item in enumerate(value)]]
    return value


def _lower(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if not isinstance(value, list):
        return value
    kind, content = value
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _lower(item, tensors) for key, item in content.items()}
    return [_lower(item, tensors) for item in content]
