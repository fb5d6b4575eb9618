"""Attacks: what a trained model reveals of its texts, with error bars. Most take losses or texts.

blind       are members and non-members told apart without any model?
membership  does the model tell its training texts from others?
exposure    does the model know a secret that was planted in its training texts?
inversion   can such a secret be read out of the model by gradients?

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
    secret_sharer,
)

__all__ = [
    "blind",
    "exposure",
    "generation",
    "inversion",
    "language_scores",
    "membership",
    "neighbours",
    "secret_sharer",
]
