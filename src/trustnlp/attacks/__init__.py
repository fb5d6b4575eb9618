"""Attacks: what a trained model reveals of its texts, with error bars. Most take losses or texts.

blind       are members and non-members told apart without any model?
membership  does the model tell its training texts from others?
exposure    does the model know a secret that was planted in its training texts?
inversion   can such a secret be read out of the model by gradients?
shadows     models trained on random halves of the texts, which the strongest membership attacks compare with
lira, rmia  the strongest: does a loss look like those of shadows that saw the text?
population  how rare is so low a loss among other texts, or among other models?
risk        which texts leak most: by label, length, activity of the user, and group

Of models that answer labels or tags:

label_only        is the right label right enough to give the text away?
token_membership  does a single word give its text away?

What all this says of epsilon:

lower_bound   a lower bound, with the most that its design could have shown
two_sample    from many trainings with and without a canary
one_run       from one training with many canaries
trade_off     how well a private training can be attacked at most: any one, or a Gaussian mechanism
ladder        lower bounds against the promise: consistent, violated, or uninformative
false_alarms  how often a bound is wrong, counted where the truth is known

Of language models:

language_scores  does the model tell its training texts from others, token by token?  (with `neighbours` of texts)
generation       does the model go on from the beginning of a training text with that text itself?
secret_sharer    exposure of secrets with too many candidates to score them all

Modules are loaded when they are first used: whoever trains shadow models need not wait for what judges texts.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trustnlp.attacks import (
        blind,
        exposure,
        false_alarms,
        generation,
        inversion,
        label_only,
        ladder,
        language_scores,
        lira,
        lower_bound,
        membership,
        neighbours,
        one_run,
        population,
        risk,
        rmia,
        secret_sharer,
        shadows,
        token_membership,
        trade_off,
        two_sample,
    )

__all__ = [
    "blind",
    "exposure",
    "false_alarms",
    "generation",
    "inversion",
    "label_only",
    "ladder",
    "language_scores",
    "lira",
    "lower_bound",
    "membership",
    "neighbours",
    "one_run",
    "population",
    "risk",
    "rmia",
    "secret_sharer",
    "shadows",
    "token_membership",
    "trade_off",
    "two_sample",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
