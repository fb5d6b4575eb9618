"""How long and how fast each kind of model is trained: plain, and private.

The figures were chosen on the validation splits of SNIPS and ATIS, which are public; on a private corpus nothing
is tuned, so nothing of it is spent on tuning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

CHECKPOINT_EVERY = 20
CLIP_GRAD_NORM = 5.0  # for stability; it gives no privacy


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
        clip_norm: ceiling of one example's gradient norm.
        options: of the model; dropout is noise on top of the noise.
    """

    learning_rate: float
    batch_size: int
    epochs: int
    clip_norm: float
    options: Mapping[str, float] = field(default_factory=dict)


_PLAIN = {
    "bilstm": Recipe(5e-3, 32, 10),
    "transformer": Recipe(1e-3, 32, 20),
}
_PLAIN_PRETRAINED = Recipe(3e-4, 32, 3, patience=2)
_NO_DROPOUT = {"dropout": 0.0, "word_dropout": 0.0}
_PRIVATE = {
    "bilstm": PrivateRecipe(1e-2, 512, 20, 1.0, _NO_DROPOUT),
    "transformer": PrivateRecipe(2e-3, 512, 20, 1.0, _NO_DROPOUT),
}
_PRIVATE_PRETRAINED = PrivateRecipe(1e-3, 512, 8, 1.0, {"dropout": 0.0})


def plain(model: str, quick: bool = False) -> Recipe:
    """The recipe for `model`; anything but `bilstm` and `transformer` is fine-tuned."""
    recipe = _PLAIN.get(model, _PLAIN_PRETRAINED)
    return replace(recipe, epochs=math.ceil(recipe.epochs / 2), patience=2) if quick else recipe


def private(model: str, examples: int, quick: bool = False) -> PrivateRecipe:
    """The private recipe for `model` on `examples` texts: a batch is at most a fifth of them."""
    recipe = _PRIVATE.get(model, _PRIVATE_PRETRAINED)
    batch_size = max(1, min(recipe.batch_size, examples // 5))
    return replace(recipe, batch_size=batch_size, epochs=math.ceil(recipe.epochs * (0.75 if quick else 1)))
