"""Membership scores for causal language models, from what the model says of every token.

    one model    perplexity, zlib_ratio, lowercase_ratio, min_k, min_k_plus_plus
    + texts      neighbourhood (the same texts, words exchanged), recall (a prefix never trained on before each)
    + a model    reference_difference, reference_ratio, error_zone (a model that saw neither side)

All answer (N,), one finite score per text, higher = more member-like; `membership.evaluate` judges them. Each text is
scored alone: members and non-members may be scored together or apart. Log-probabilities are in nats.

    scores = token_scores(model, model.encode(texts))
    findings = membership.evaluate(*split(min_k(scores)), attack="min-k", generator=streams.numpy("attack"))

A text without a predicted token (one token, and nothing before it) has no score and is refused, as are NaN and
infinite log-probabilities.

Shape legend: N texts, M neighbours of each text, T_i predicted tokens of text i.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustnlp import checks
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.models.token_scores import TokenScores

Array = NDArray[Any]

SOURCES = {
    "perplexity": "Carlini et al. 2021, arXiv:2012.07805, section 4.2",
    "zlib": "Carlini et al. 2021, arXiv:2012.07805, section 5.2",
    "lowercase": "Carlini et al. 2021, arXiv:2012.07805, section 5.2",
    "min-k": "Shi et al. 2024, arXiv:2310.16789",
    "min-k-plus-plus": "Zhang et al. 2024, arXiv:2404.02936",
    "neighbourhood": "Mattern et al. 2023, arXiv:2305.18462",
    "recall": "Xie et al. 2024, arXiv:2406.15968",
    "reference-difference": "Watson et al. 2022, arXiv:2111.08440 (difficulty calibration)",
    "reference-ratio": "Carlini et al. 2021, arXiv:2012.07805, section 5.2 (other models)",
    "error-zone": "Ilić et al. 2026, arXiv:2601.12104, smoothed",
}
_LEAST_STD = 1e-9  # below the rounding of a standard deviation in float64
_LEAST_LOSS = 1e-12


# --- one model -------------------------------------------------------------------------------------------------


def perplexity(scores: TokenScores) -> Array:
    """The mean log-probability of a text's tokens, (N,): minus the log of its perplexity.

    Raises:
        ArgumentError: no texts.
        GuaranteeError: a text without a predicted token, or a value that is no log-probability.
    """
    return np.array([row.mean() for row in _log_probs(scores)])


def zlib_ratio(scores: TokenScores, texts: Sequence[str]) -> Array:
    """The mean log-probability over the zlib-compressed size in bytes, (N,): likely, though hard to compress.

    Orders texts as the paper's zlib bytes / log-perplexity does, and stays finite at a perplexity of 1. As there, the
    likelihood is a mean over tokens and the size is that of the whole text, so long texts score higher: compare texts
    of about one length.

    Args:
        scores: of the texts, as the model saw them.
        texts: the same, in the same order.

    Raises:
        ArgumentError: another number of texts.
        GuaranteeError: as `perplexity`.

    Source: Carlini et al. 2021, section 5.2.
    """
    checks.same_length(scores=scores, texts=texts)
    return perplexity(scores) / np.array([len(zlib.compress(text.encode())) for text in texts])


def lowercase_ratio(scores: TokenScores, lowered: TokenScores) -> Array:
    """How much less likely a text gets when it is put in lower case, (N,): log-perplexity after over before.

    1 for a text without capitals. The ratio of logarithms, as in the paper's code; its text speaks of perplexities.

    Args:
        scores: of the texts.
        lowered: of `text.lower()` for each, under the same model; may have another number of tokens.

    Raises:
        ArgumentError: another number of texts.
        GuaranteeError: as `perplexity`.

    Source: Carlini et al. 2021, section 5.2.
    """
    return _loss_ratio(perplexity(lowered), perplexity(scores))


def min_k(scores: TokenScores, k: float = 0.2) -> Array:
    """The mean log-probability of the floor(k T_i), but at least one, least likely tokens, (N,).

    A text never seen holds a few tokens that surprise the model. Public code takes floor(k T_i) of them, which is none
    of a text of fewer than 1 / k tokens, and answers NaN.

    Raises:
        ArgumentError: k outside (0, 1].
        GuaranteeError: as `perplexity`.

    Source: Shi et al. 2024, arXiv:2310.16789 (some public code turns its sign round).
    """
    return _lowest_mean(_log_probs(scores), k)


def min_k_plus_plus(scores: TokenScores, k: float = 0.2) -> Array:
    """The mean of the floor(k T_i), but at least one, lowest z = (log p - mu) / sigma, (N,).

    mu and sigma are mean and standard deviation of log p when the token is drawn from the model's own distribution: z
    asks whether the token that stands there is a mode. Where the model prefers no token (sigma = 0), z = 0.

    Raises:
        ArgumentError: k outside (0, 1].
        GuaranteeError: as `perplexity`, or mu or sigma is NaN or infinite.

    Source: Zhang et al. 2024, arXiv:2404.02936.
    """
    rows = _log_probs(scores)
    _refuse_not_finite("mean", scores.mean)
    _refuse_not_finite("std", scores.std)
    return _lowest_mean(
        [
            (row - mean) / np.maximum(std, _LEAST_STD)
            for row, mean, std in zip(rows, scores.mean, scores.std, strict=True)
        ],
        k,
    )


# --- and changed texts -----------------------------------------------------------------------------------------


def neighbourhood(scores: TokenScores, neighbours: TokenScores) -> Array:
    """How much likelier a text is than its neighbours, (N,): its mean log-probability minus the mean of theirs.

    Args:
        scores: of N texts.
        neighbours: of N M texts, those of the first text first, M >= 1, see `neighbours.exchange_words`.

    Raises:
        ArgumentError: the number of neighbours is not a multiple of N.
        GuaranteeError: as `perplexity`.

    Source: Mattern et al. 2023, arXiv:2305.18462 (its threshold is left to `membership.evaluate`).
    """
    own, theirs = perplexity(scores), perplexity(neighbours)
    if len(theirs) % len(own):
        raise ArgumentError("neighbours", f"as many for each of the {len(own)} texts", len(theirs))
    return own - theirs.reshape(len(own), -1).mean(1)


def recall(scores: TokenScores, prefixed: TokenScores) -> Array:
    """ReCaLL, (N,): the log-likelihood of a text after a prefix of non-members over that without it.

    What was memorised suffers more from a context that it never had. Both are means over the same tokens, the text's.

    Args:
        scores: of the texts.
        prefixed: of prefix + text, the same prefix before each, under the same model; the text's T_i tokens are the
            last ones. The prefix should end with a line break, so that the text is cut into tokens as if alone.

    Raises:
        ArgumentError: another number of texts.
        GuaranteeError: as `perplexity`; or the prefix has not one number of tokens, >= 1, before all texts: then a
            text was cut off, or is cut into other tokens after the prefix.

    Source: Xie et al. 2024, arXiv:2406.15968.
    """
    checks.same_length(scores=scores, prefixed=prefixed)
    own, rows = perplexity(scores), _log_probs(prefixed)
    before = prefixed.lengths - scores.lengths
    if before.min() < 1 or before.min() != before.max():
        raise GuaranteeError(
            f"the prefix has {before.min()} tokens before one text and {before.max()} before another",
            "end it with a line break, and shorten it until prefix and text fit the model",
        )
    return _loss_ratio(np.array([row[before[0] :].mean() for row in rows]), own)


# --- and another model -----------------------------------------------------------------------------------------


def reference_difference(scores: TokenScores, reference: TokenScores) -> Array:
    """How much likelier a text is to the model than to a reference model, (N,): the difference of mean log p.

    Args:
        scores: of the texts.
        reference: of the same texts in the same tokens, under a model trained on neither members nor non-members.

    Raises:
        GuaranteeError: as `perplexity`, or not the same tokens.

    Source: Watson et al. 2022; `membership.reference_score` of the losses.
    """
    _same_tokens(scores, reference)
    return perplexity(scores) - perplexity(reference)


def reference_ratio(scores: TokenScores, reference: TokenScores) -> Array:
    """The reference model's log-perplexity over the model's own, (N,). Source: Carlini et al. 2021, section 5.2.

    Args:
        scores: of the texts.
        reference: of the same texts under a model trained on neither members nor non-members; it may read other tokens.

    Raises:
        ArgumentError: another number of texts.
        GuaranteeError: as `perplexity`.
    """
    return _loss_ratio(perplexity(reference), perplexity(scores))


def error_zone(scores: TokenScores, reference: TokenScores, smoothing: float = 0.01) -> Array:
    """Rises over falls of log p at the tokens that the model gets wrong, smoothed, (N,), >= 0.

    The paper's score is P / F with P = sum of max(D, 0), F = sum of max(-D, 0) and D = log p - log p_reference over
    the error zone, the tokens where the most probable token is not the right one. It is 0 / 0 where the model gets
    every token right, the strongest sign of membership; the paper calls such texts members (appendix E.5), its public
    code scores them 0, below every non-member, and so are those without any fall (appendix E.6). Here

        (P / m + c R) / (F / m + c (E + 1)),     m the text's mean |D| over all its tokens,

    every one of the R right tokens counts as a small rise of c m, every one of the E wrong ones as a small fall, and
    one more fall keeps short texts modest: few tokens are little evidence. With E = 0 the score is R; as c falls to 0
    it becomes the paper's P / F. Like that, it does not change when all D are multiplied by a constant.

    Args:
        scores: of the texts.
        reference: of the same texts in the same tokens, under a model trained on neither members nor non-members, such
            as the model before fine-tuning.
        smoothing: c, > 0; small, to stay close to the paper's ratio where there is one.

    Raises:
        ArgumentError: smoothing <= 0, or another number of texts.
        GuaranteeError: as `perplexity`, or not the same tokens.

    Source: Ilić, Stanojević, Cvejoski 2026, arXiv:2601.12104, sections 3.3 and 3.4; the smoothing is ours.
    """
    checks.positive("smoothing", smoothing)
    _same_tokens(scores, reference)
    pairs = zip(_log_probs(scores), _log_probs(reference), scores.top_is_right, strict=True)
    return np.array([_smoothed_ratio(own - other, right, smoothing) for own, other, right in pairs])


def _smoothed_ratio(shifts: Array, right: Array, smoothing: float) -> float:
    typical = np.abs(shifts).mean()
    wrong = shifts[~right] / typical if typical > 0 else np.zeros((~right).sum())
    rises = wrong.clip(min=0).sum() + smoothing * right.sum()
    falls = (-wrong).clip(min=0).sum() + smoothing * (len(wrong) + 1)
    return float(rises / falls)


# --- what they share -------------------------------------------------------------------------------------------


def _lowest_mean(rows: Sequence[Array], k: float) -> Array:
    """The mean of the lowest share k of each row."""
    checks.within("k", checks.positive("k", k), 0, 1)
    # The small number keeps k T from falling below a whole number that it is but for rounding.
    counts = [max(1, math.floor(k * len(row) + 1e-9)) for row in rows]
    return np.array([np.sort(row)[:count].mean() for row, count in zip(rows, counts, strict=True)])


def _loss_ratio(other: Array, own: Array) -> Array:
    """Loss under another condition over the loss itself, both from mean log-probabilities."""
    checks.same_length(scores=own, other=other)
    return -other / np.maximum(-own, _LEAST_LOSS)


def _log_probs(scores: TokenScores) -> tuple[Array, ...]:
    checks.not_empty("scores", scores)
    empty = int((scores.lengths == 0).sum())
    if empty:
        raise GuaranteeError(f"{empty} of {len(scores)} texts have no predicted token", "leave them out")
    _refuse_not_finite("log_probs", scores.log_probs)
    if max(row.max() for row in scores.log_probs) > 1e-9:
        raise GuaranteeError("a log-probability is above 0", "give log-probabilities, not losses")
    return scores.log_probs


def _refuse_not_finite(name: str, rows: Sequence[Array]) -> None:
    bad = sum(not np.isfinite(row).all() for row in rows)
    if bad:
        raise GuaranteeError(
            f"{bad} of {len(rows)} texts have {name} that are NaN or infinite", "mend the model or leave them out"
        )


def _same_tokens(scores: TokenScores, reference: TokenScores) -> None:
    checks.same_length(scores=scores, reference=reference)
    other = int((scores.lengths != reference.lengths).sum())
    if other:
        raise GuaranteeError(
            f"{other} of {len(scores)} texts have another number of tokens under the reference",
            "use a reference with the same tokenizer",
        )
