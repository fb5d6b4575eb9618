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
    label_only,
    language_scores,
    lira,
    membership,
    neighbours,
    population,
    risk,
    rmia,
    secret_sharer,
    shadows,
    token_membership,
)

__all__ = [
    "blind",
    "exposure",
    "generation",
    "inversion",
    "label_only",
    "language_scores",
    "lira",
    "membership",
    "neighbours",
    "population",
    "risk",
    "rmia",
    "secret_sharer",
    "shadows",
    "token_membership",
]
