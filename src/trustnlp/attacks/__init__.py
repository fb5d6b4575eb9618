"""Attacks: what a trained model reveals of its texts, with error bars. They take losses or texts; `inversion`, a model.

blind       are members and non-members told apart without any model?
membership  does the model tell its training texts from others?
exposure    does the model know a secret that was planted in its training texts?
inversion   can such a secret be read out of the model by gradients?
"""

from trustnlp.attacks import blind, exposure, inversion, membership

__all__ = ["blind", "exposure", "inversion", "membership"]
