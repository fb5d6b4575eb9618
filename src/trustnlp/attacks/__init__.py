"""Attacks: what a trained model reveals of its texts, with error bars. Most take losses or texts.

blind       are members and non-members told apart without any model?
membership  does the model tell its training texts from others?
exposure    does the model know a secret that was planted in its training texts?
inversion   can such a secret be read out of the model by gradients?
shadows     models trained on random halves of the texts, which the strongest membership attacks compare with
risk        which texts leak most: by label, length, activity of the user, and group

Of language models:

language_scores  does the model tell its training texts from others, token by token?  (with `neighbours` of texts)
generation       does the model go on from the beginning of a training text with that text itself?
secret_sharer    exposure of secrets with too many candidates to score them all
"""

from trustnlp.attacks import (
    blind,
    exposure,
    generation,
    inversion,
    language_scores,
    membership,
    neighbours,
    risk,
    secret_sharer,
    shadows,
)

__all__ = [
    "blind",
    "exposure",
    "generation",
    "inversion",
    "language_scores",
    "membership",
    "neighbours",
    "risk",
    "secret_sharer",
    "shadows",
]
