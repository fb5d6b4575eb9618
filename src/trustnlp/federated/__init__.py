"""Federated learning: a model learns from texts that stay on their devices.

Modules are loaded when a name of theirs is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trustnlp.federated import partition
    from trustnlp.federated.conditions import Conditions
    from trustnlp.federated.selection import Activity, Log, Oort, PoissonActivity, PowerOfChoice, TopK, Uniform

__all__ = [
    "Activity",
    "Conditions",
    "Log",
    "Oort",
    "PoissonActivity",
    "PowerOfChoice",
    "TopK",
    "Uniform",
    "partition",
]

_HOMES = {
    "conditions": ("Conditions",),
    "selection": ("Activity", "Log", "Oort", "PoissonActivity", "PowerOfChoice", "TopK", "Uniform"),
}


def __getattr__(name: str) -> Any:
    if name == "partition":
        return importlib.import_module(f"{__name__}.partition")
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
