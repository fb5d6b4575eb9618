"""How long and how fast each kind of model is trained: plain, and private.

The figures were chosen on the validation splits of SNIPS and ATIS, which are public; on a private corpus nothing
is tuned, so nothing of it is spent on tuning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from trustnlp import checks
from trustnlp.dp import AutomaticClipping, FlatClipping, LayerwiseClipping, MicroBatchClipping, Quantile
from trustnlp.dp.clipping import Clipping
from trustnlp.federated.local_training import LocalTraining

CHECKPOINT_EVERY = 20
CLIP_GRAD_NORM = 5.0  # for stability; it gives no privacy
MECHANISMS: Mapping[str, Clipping] = {
    "exact": FlatClipping(1.0),
    "automatic": AutomaticClipping(),
    "layerwise": LayerwiseClipping(1.0),
    "microbatch": MicroBatchClipping(8, adapt=Quantile()),
}


@dataclass(frozen=True)
class Recipe:
    """Ordinary training.

    Args:
        learning_rate: of Adam at its peak.
        batch_size: examples per step.
        epochs: passes over the data, at most.
        patience: epochs without a better score before training stops.
    """

    learning_rate: float
    batch_size: int
    epochs: int
    patience: int = 4

    def schedule(self, steps: int) -> Callable[[int], float]:
        """Up over the first twentieth of the steps, then straight down to 0: factor of the learning rate by step."""
        warm = max(1, steps // 20)
        return lambda step: min((step + 1) / warm, (steps - step) / max(1, steps - warm))


@dataclass(frozen=True)
class PrivateRecipe:
    """Private training.

    Args:
        learning_rate: of Adam.
        batch_size: expected examples per step.
        epochs: expected passes over the data.
        clipping: how gradients are bounded.
        options: of the model; dropout is noise on top of the noise.
    """

    learning_rate: float
    batch_size: int
    epochs: int
    clipping: Clipping = FlatClipping()  # noqa: RUF009  (frozen)
    options: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class FederatedRecipe:
    """Federated averaging.

    Args:
        rounds: how many.
        cohort: devices of a round.
        local: what each does.
        clip_norm: of a device's change, where it is private.
        options: of the model.
    """

    rounds: int
    cohort: int
    local: LocalTraining
    clip_norm: float = 1.0
    options: Mapping[str, float] = field(default_factory=dict)


_PLAIN = {
    "bilstm": Recipe(5e-3, 32, 10),
    "transformer": Recipe(1e-3, 32, 20),
}
_PLAIN_PRETRAINED = Recipe(3e-4, 32, 3, patience=2)
_NO_DROPOUT = {"dropout": 0.0, "word_dropout": 0.0}
_PRIVATE = {
    "bilstm": PrivateRecipe(1e-2, 512, 20, options=_NO_DROPOUT),
    "transformer": PrivateRecipe(2e-3, 512, 20, options=_NO_DROPOUT),
}
_PRIVATE_PRETRAINED = PrivateRecipe(1e-3, 512, 8, options={"dropout": 0.0})


def plain(model: str, quick: bool = False) -> Recipe:
    """The recipe for `model`; anything but `bilstm` and `transformer` is fine-tuned."""
    recipe = _PLAIN.get(model, _PLAIN_PRETRAINED)
    return replace(recipe, epochs=math.ceil(recipe.epochs / 2), patience=2) if quick else recipe


def private(model: str, examples: int, quick: bool = False, mechanism: str = "exact") -> PrivateRecipe:
    """The private recipe for `model` on `examples` texts: a batch is at most a fifth of them.

    Raises:
        ArgumentError: `mechanism` is none of MECHANISMS.
    """
    clipping = MECHANISMS[checks.one_of("mechanism", mechanism, tuple(MECHANISMS))]
    recipe = _PRIVATE.get(model, _PRIVATE_PRETRAINED)
    batch_size = max(1, min(recipe.batch_size, examples // 5))
    if isinstance(clipping, MicroBatchClipping):  # which form a batch without a rest
        size = min(clipping.size, batch_size)
        clipping, batch_size = replace(clipping, size=size), batch_size - batch_size % size
    epochs = math.ceil(recipe.epochs * (0.75 if quick else 1))
    return replace(recipe, batch_size=batch_size, epochs=epochs, clipping=clipping)


def federated(model: str, quick: bool = False) -> FederatedRecipe:
    """The recipe for devices that train `model`.

    That of `bilstm` was chosen on the synthetic corpus; of others nothing but the rate of the plain recipe's kind is
    known to be right, so look at their figures.
    """
    rate = 1.0 if model == "bilstm" else 0.1
    return FederatedRecipe(60 if quick else 200, 20, LocalTraining(rate, 16, clip_grad_norm=CLIP_GRAD_NORM))


def federated_private(model: str, devices: int, quick: bool = False) -> FederatedRecipe:
    """The same with cohorts of an eighth of the devices, so that noise is divided by many."""
    recipe = federated(model, quick)
    options = _NO_DROPOUT if model in _PLAIN else {"dropout": 0.0}
    return replace(recipe, rounds=40 if quick else 100, cohort=max(1, devices // 8), clip_norm=0.3, options=options)
