"""The contract of regimes: what every one is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trustnlp import models
from trustnlp.data.corpus import Corpus, Example
from trustnlp.models import checkpoint, evaluation
from trustnlp.progress import Progress
from trustnlp.randomness import Streams
from trustnlp.results import Finding
from trustnlp.studies import recipes


@dataclass(frozen=True)
class Setting:
    """What a regime trains from.

    Args:
        model: `bilstm`, `transformer`, `minilm`, a local path or a hub name.
        schema: the corpus whose labels and tags the model answers with.
        train: what it learns from.
        valid: what early stopping watches where nothing private is promised; may be empty.
        epsilon, delta: the budget of private regimes.
        streams: the regime's own random streams.
        quick: fewer epochs.
        device: where the model is trained.
        mechanism: how private regimes bound gradients, of `recipes.MECHANISMS`.
    """

    model: str
    schema: Corpus
    train: tuple[Example, ...]
    valid: tuple[Example, ...]
    epsilon: float
    delta: float
    streams: Streams
    quick: bool = False
    device: str = "cpu"
    mechanism: str = "exact"

    @property
    def private_recipe(self) -> recipes.PrivateRecipe:
        """The recipe of private regimes."""
        return recipes.private(self.model, len(self.train), self.quick, self.mechanism)


@dataclass(frozen=True)
class Trained:
    """A trained model, what the report says of its training, and the findings that training itself gives."""

    model: models.NLUModel
    facts: Mapping[str, Any]
    findings: tuple[Finding, ...] = field(default=())


@dataclass(frozen=True)
class Regime:
    """A way to train.

    Args:
        train: trains in a folder, or goes on there; the name is shown as the stage.
        check: raises where `train` could not, before anything is written or computed.
    """

    train: Callable[[Setting, Path, Progress, str], Trained]
    check: Callable[[Setting], object]


def built(setting: Setting, options: Mapping[str, Any] | None = None) -> models.NLUModel:
    """The setting's model, untrained."""
    model = models.build(setting.model, setting.schema, streams=setting.streams, **(options or {}))
    return model.to(setting.device)


def evaluation_of(model: models.NLUModel, valid: tuple[Example, ...]) -> Callable[[], dict[str, float]] | None:
    """What a model can do on the validation split, where there is one."""
    if not valid:
        return None
    encoded = model.encode(valid)
    return lambda: evaluation.evaluate(model, encoded)


def trained(model: models.NLUModel, folder: Path, facts: Mapping[str, Any], *findings: Finding) -> Trained:
    """The trained model, saved in the folder."""
    checkpoint.save(model, folder)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Trained(model, {"parameters": parameters, **facts}, findings)
