"""Alternating training: after every round the server takes a few steps on labelled texts of its own.

    devices, without labels --mean change--> server's weights --steps on its few labelled texts--> next round

Devices' own answers drift where nobody corrects them; the server's labels pull them back, and devices then answer with
a model that has just seen labels. A round from which nothing comes back has no such steps. Labelled texts at the server
alone are the second setting of Jeong et al. 2021 (FedMatch, arXiv:2006.12097), whose parts for supervised and for
unsupervised weights are not taken over here.

Under user-level privacy the steps come after the release and cost the devices nothing. Nothing protects the texts of
the server.

Source: Diao, Ding and Tarokh 2022, SemiFL, arXiv:2106.01432, alternate training: the aggregate is fine-tuned.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from trustnlp import checks
from trustnlp.federated.algorithm import CHANGE, Algorithm, Round
from trustnlp.federated.flat_parameters import FlatParameters
from trustnlp.federated.local_training import LocalTraining, Vectors, visit
from trustnlp.federated.wrapped import Wrapped
from trustnlp.models.protocol import Encoded
from trustnlp.randomness import Streams

SERVER = -1  # its number among the devices: batches and dropout of round r come from the streams at (r, SERVER)


@dataclass(frozen=True)
class ServerSteps(Wrapped):
    """An algorithm whose server trains, too.

    Worker processes get neither the model nor the texts, which only the server reads.

    Args:
        base: what devices do, and how the server takes up what they send.
        model: of the kind that is trained; copied.
        labelled: the server's texts.
        steps: what the server does with them after each round, as a device would.
        streams: another round, other batches.

    Raises:
        ArgumentError: no labelled texts.
    """

    model: nn.Module = field(repr=False)
    labelled: Encoded = field(repr=False)
    steps: LocalTraining
    streams: Streams

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.not_empty("labelled", self.labelled)
        object.__setattr__(self, "model", deepcopy(self.model))
        object.__setattr__(self, "_parameters", FlatParameters(self.model))

    def update(self, weights: Tensor, mean: Vectors, state: Vectors, about: Round) -> None:
        """The base's step, and then those on labelled texts."""
        self.base.update(weights, mean, state, about)
        parameters: FlatParameters = self._parameters  # type: ignore[attr-defined]
        weights.add_(
            _change(self.model, parameters, weights, self.labelled, self.steps, about.number + 1, self.streams)
        )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"model": None, "labelled": None, "_parameters": None}


def train_alone(model: nn.Module, labelled: Encoded, steps: LocalTraining, streams: Streams) -> None:
    """Trains `model` on the server's texts alone, in place: before the first round, or in place of all rounds.

    Raises:
        ArgumentError: no labelled texts.
    """
    checks.not_empty("labelled", labelled)
    parameters = FlatParameters(model)
    _change(model, parameters, parameters.values.clone(), labelled, steps, 0, streams)
    model.eval()


def _change(
    model: nn.Module,
    parameters: FlatParameters,
    weights: Tensor,
    labelled: Encoded,
    steps: LocalTraining,
    number: int,
    streams: Streams,
) -> Tensor:
    """(P,) how far plain local training moves the model from `weights`: the server is visited as a device is."""
    plain = Algorithm(1, 1, steps)
    answer = visit(
        plain,
        model,
        parameters,
        labelled,
        start=weights,
        received={},
        kept={},
        number=number,
        device=SERVER,
        streams=streams,
    )
    return answer.vectors[CHANGE]
