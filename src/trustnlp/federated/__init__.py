"""Federated learning: a model learns from texts that stay on their devices.

    population = fl.Partitioned(model.encode(corpus.train, for_training=True), fl.partition.by_user(users).devices)
    fl.simulate(population, model, fl.FedAvg(rounds=300, cohort=20), selection=fl.Activity(gamma=1.0), streams=streams)

Modules are loaded when a name of theirs is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trustnlp.federated import partition as partition
    from trustnlp.federated.algorithm import Algorithm as Algorithm
    from trustnlp.federated.conditions import Conditions as Conditions
    from trustnlp.federated.factorised_privacy import FactorisedPrivacy as FactorisedPrivacy
    from trustnlp.federated.fedavg import FedAvg as FedAvg
    from trustnlp.federated.fedbuff import FedBuff as FedBuff
    from trustnlp.federated.feddyn import FedDyn as FedDyn
    from trustnlp.federated.fednova import FedNova as FedNova
    from trustnlp.federated.fedopt import FedOpt as FedOpt
    from trustnlp.federated.fedprox import FedProx as FedProx
    from trustnlp.federated.implicit_feedback import ImplicitFeedback as ImplicitFeedback
    from trustnlp.federated.local_training import LocalTraining as LocalTraining
    from trustnlp.federated.moon import Moon as Moon
    from trustnlp.federated.poisson_activity import PoissonActivity as PoissonActivity
    from trustnlp.federated.population import Generated as Generated
    from trustnlp.federated.population import Partitioned as Partitioned
    from trustnlp.federated.private_rounds import plan_for as plan_for
    from trustnlp.federated.pseudo_labels import PseudoLabels as PseudoLabels
    from trustnlp.federated.scaffold import Scaffold as Scaffold
    from trustnlp.federated.selection import Activity as Activity
    from trustnlp.federated.selection import Log as Log
    from trustnlp.federated.selection import Oort as Oort
    from trustnlp.federated.selection import PowerOfChoice as PowerOfChoice
    from trustnlp.federated.selection import TopK as TopK
    from trustnlp.federated.selection import Uniform as Uniform
    from trustnlp.federated.server_steps import ServerSteps as ServerSteps
    from trustnlp.federated.simulator import History as History
    from trustnlp.federated.simulator import simulate as simulate
    from trustnlp.federated.user_privacy import UserPrivacy as UserPrivacy

_HOMES = {
    "Activity": "selection",
    "Algorithm": "algorithm",
    "Conditions": "conditions",
    "FactorisedPrivacy": "factorised_privacy",
    "FedAvg": "fedavg",
    "FedBuff": "fedbuff",
    "FedDyn": "feddyn",
    "FedNova": "fednova",
    "FedOpt": "fedopt",
    "FedProx": "fedprox",
    "Generated": "population",
    "History": "simulator",
    "ImplicitFeedback": "implicit_feedback",
    "LocalTraining": "local_training",
    "Log": "selection",
    "Moon": "moon",
    "Oort": "selection",
    "Partitioned": "population",
    "PoissonActivity": "poisson_activity",
    "PowerOfChoice": "selection",
    "PseudoLabels": "pseudo_labels",
    "Scaffold": "scaffold",
    "ServerSteps": "server_steps",
    "TopK": "selection",
    "Uniform": "selection",
    "UserPrivacy": "user_privacy",
    "plan_for": "private_rounds",
    "simulate": "simulator",
}

__all__ = ["partition", *_HOMES]  # noqa: PLE0604 (names of the table)


def __getattr__(name: str) -> Any:
    if name == "partition":
        return importlib.import_module(f"{__name__}.partition")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
