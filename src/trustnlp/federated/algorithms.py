"""Every algorithm by the name that a command line gives it: `fedprox:mu=0.1`."""

from __future__ import annotations

from collections.abc import Mapping

from trustnlp.federated import named_lora, options
from trustnlp.federated.algorithm import Algorithm
from trustnlp.federated.fedavg import FedAvg
from trustnlp.federated.fedbuff import FedBuff
from trustnlp.federated.feddyn import FedDyn
from trustnlp.federated.fednova import FedNova
from trustnlp.federated.fedopt import FedOpt
from trustnlp.federated.fedprox import FedProx
from trustnlp.federated.local_training import LocalTraining
from trustnlp.federated.moon import Moon
from trustnlp.federated.scaffold import Scaffold

ALGORITHMS: Mapping[str, type[Algorithm]] = {
    "fedavg": FedAvg,
    "fedprox": FedProx,
    "fedopt": FedOpt,
    "scaffold": Scaffold,
    "fednova": FedNova,
    "feddyn": FedDyn,
    "moon": Moon,
    "fedbuff": FedBuff,
    **named_lora.KINDS,
}


def parse(text: str, *, rounds: int, cohort: int, local: LocalTraining) -> Algorithm:
    """The algorithm that `text` names, `name` or `name:option=value,…`, with its other fields.

    `named_lora.for_model` makes it one for a model, which those of low-rank adapters need.

    Raises:
        ArgumentError: no such algorithm or option, or a value that breaks its rule.
    """
    return options.named("algorithm", text, ALGORITHMS, rounds=rounds, cohort=cohort, local=local)
