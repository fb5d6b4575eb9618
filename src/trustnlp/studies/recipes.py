"""How long and how fast each kind of model is trained: plain, and private.

The figures were chosen on the validation splits of SNIPS and ATIS, which are public; on a private corpus nothing
is tuned, so nothing of it is spent on tuning.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

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
    """

    learning_rate: float
    batch_size: int
    epochs: int
    clip_norm: float


_PLAIN = {
    "bilstm": Recipe(5e-3, 32, 10),
    "transformer": Recipe(1e-3, 32, 20),
}
_PLAIN_PRETRAINED = Recipe(3e-4, 32, 3, patience=2)
_PRIVATE = {
    "bilstm": PrivateRecipe(2e-3, 256, 15, 1.0),
    "transformer": PrivateRecipe(1e-3, 256, 20, 1.0),
}
_PRIVATE_PRETRAINED = PrivateRecipe(5e-4, 256, 8, 1.0)


def plain(model: str, quick: bool = False) -> Recipe:
    """The recipe for `model`; anything but `bilstm` and `transformer` is fine-tuned."""
    recipe = _PLAIN.get(model, _PLAIN_PRETRAINED)
    return Recipe(recipe.learning_rate, recipe.batch_size, math.ceil(recipe.epochs / 2), 2) if quick else recipe


def private(model: str, examples: int, quick: bool = False) -> PrivateRecipe:
    """The private recipe for `model` on `examples` texts: a batch is at most a tenth of them."""
    recipe = _PRIVATE.get(model, _PRIVATE_PRETRAINED)
    batch_size = max(1, min(recipe.batch_size, examples // 10))
    epochs = math.ceil(recipe.epochs / 2) if quick else recipe.epochs
    return PrivateRecipe(recipe.learning_rate, batch_size, epochs, recipe.clip_norm)
