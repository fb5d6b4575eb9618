"""Membership inference: can an attacker who sees a model's losses tell its training texts from others?

A score is higher for more member-like texts. What is judged is not the average text (AUC) but the few that an attacker
names with next to no false accusation: the true-positive rate (TPR) at a false-positive rate (FPR) of 1% and 0.1%.

    scores = loss_score(losses_members), loss_score(losses_nonmembers)
    findings = evaluate(*scores, attack="loss", generator=streams.numpy("attack"))

Source of the figures: Carlini et al. 2022, "Membership Inference Attacks From First Principles", arXiv:2112.03570.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

from trustnlp import checks
from trustnlp.data.membership_split import normalise
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.results import Direction, Finding, Verdict
from trustnlp.uncertainty import Interval

Array = NDArray[Any]

FPRS = {0.01: "1pct", 0.001: "0-1pct"}
SOURCES = {
    "loss": "Yeom et al. 2018, arXiv:1709.01604",
    "reference": "Watson et al. 2022, arXiv:2111.08440 (difficulty calibration)",
    "lira": "Carlini et al. 2022, arXiv:2112.03570 (online)",
    "lira-offline": "Carlini et al. 2022, arXiv:2112.03570 (offline)",
    "rmia": "Zarifzadeh et al. 2024, arXiv:2312.03262",
    "population": "Ye et al. 2022, arXiv:2111.09679 (attack P)",
    "per-example": "Ye et al. 2022, arXiv:2111.09679 (attack R)",
    "gap": "Choquette-Choo et al. 2021, arXiv:2007.14321 (gap attack)",
    "robustness": "Choquette-Choo et al. 2021, arXiv:2007.14321 (robustness to augmentations)",
}
_CURVE_POINTS = 200
_ENOUGH_OUT_OF_ORDER = 5.0


@dataclass(frozen=True)
class Margins:
    """Up to where a leak that cannot be excluded still counts as none found.

    Args:
        tpr_ratio: TPR over FPR. At 3, an attacker's evidence against a text at most trebles the odds that it was
            trained on: what (epsilon, 0)-differential privacy would grant with epsilon = ln 3, about 1.1.
        auc: AUC. At 0.55, an attacker picks the member of a pair in at most 55 of 100 cases; a coin, in 50.
    """

    tpr_ratio: float = 3.0
    auc: float = 0.55

    def __post_init__(self) -> None:
        if checks.positive("tpr_ratio", self.tpr_ratio) <= 1:
            raise ArgumentError("tpr_ratio", "above 1", self.tpr_ratio)
        checks.inside("auc", self.auc, 0.5, 1)


def loss_score(losses: ArrayLike) -> Array:
    """-l, (N,): a text of low loss looks like a member. Source: Yeom et al. 2018, adversary 1 without its threshold.

    Raises:
        ArgumentError: not a non-empty list of numbers.
        GuaranteeError: a loss is NaN or infinite.
    """
    return -finite("losses", losses)


def reference_score(losses: ArrayLike, reference_losses: ArrayLike) -> Array:
    """l_ref - l, (N,): a member is easier for the target than for a model that never saw it.

    Args:
        losses: the target model's, per text.
        reference_losses: of the same texts in the same order, under a model trained on neither members nor non-members
            (or their mean over several such models).

    Raises:
        ArgumentError: not two non-empty lists of numbers of one length.
        GuaranteeError: a loss is NaN or infinite.
    """
    target, reference = finite("losses", losses), finite("reference_losses", reference_losses)
    checks.same_length(losses=target, reference_losses=reference)
    return reference - target


def finite(name: str, values: ArrayLike) -> Array:
    """`values` as an array, (N,).

    Raises:
        ArgumentError: not a non-empty list of numbers.
        GuaranteeError: one is NaN or infinite; the message counts them.
    """
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise ArgumentError(name, "a list of numbers", type(values).__name__) from None
    if array.ndim != 1 or array.size == 0:
        raise ArgumentError(name, "a non-empty list of numbers", f"shape {array.shape}")
    bad = int((~np.isfinite(array)).sum())
    if bad:
        raise GuaranteeError(
            f"{bad} of {len(array)} {name} are NaN or infinite", "mend the model or leave these texts out"
        )
    return array


def finite_shadows(shadow_losses: ArrayLike, inside: ArrayLike, texts: int) -> tuple[Array, Array]:
    """The losses of K shadow models on the same N texts and which of them saw which, (K, N) both.

    Raises:
        ArgumentError: not two matrices over `texts` texts, or an `inside` that is not of true and false.
        GuaranteeError: a loss is NaN or infinite.
    """
    truth = np.asarray(inside)
    if truth.dtype != bool or truth.ndim != 2 or truth.shape[1] != texts or len(truth) == 0:
        rule = f"true and false of shape (shadows, {texts})"
        raise ArgumentError("inside", rule, f"{truth.dtype} of shape {truth.shape}")
    if np.shape(shadow_losses) != truth.shape:
        raise ArgumentError("shadow_losses", f"of shape {truth.shape}, as 'inside'", np.shape(shadow_losses))
    return finite("shadow_losses", np.ravel(shadow_losses)).reshape(truth.shape), truth


def refuse_unseen(name: str, counts: Array, needed: int) -> None:
    """Raises unless every text has `needed` shadows on the side called `name`; `counts` (N,) are how many it has.

    Raises:
        GuaranteeError: some have fewer.
    """
    few = int((counts < needed).sum())
    if few:
        raise GuaranteeError(
            f"{few} of {len(counts)} texts are {name} fewer than {needed} shadows, so nothing is known of that side",
            "train more shadows, each on a random half, or leave these texts out",
        )


def check_disjoint(members: Sequence[str], nonmembers: Sequence[str]) -> None:
    """Raises unless no text is on both sides, case and white space aside; the message counts texts and shows none.

    Raises:
        ArgumentError: a side is empty.
        GuaranteeError: texts on both sides.
    """
    checks.not_empty("members", members)
    checks.not_empty("nonmembers", nonmembers)
    shared = {normalise(text) for text in members} & {normalise(text) for text in nonmembers}
    if shared:
        raise GuaranteeError(
            f"{len(shared)} texts are both members and non-members, so no attack on them can be judged",
            "take every text that the model was trained on out of the non-members",
        )


def evaluate(
    members: ArrayLike,
    nonmembers: ArrayLike,
    *,
    attack: str,
    generator: np.random.Generator,
    level: float = 0.95,
    margins: Margins | None = None,
) -> tuple[Finding, ...]:
    """What one attack's scores reveal: TPR at 1% and at 0.1% FPR, then AUC; lower is better in all three.

    Findings `membership-{attack}-tpr-at-1pct-fpr`, `membership-{attack}-tpr-at-0-1pct-fpr` (ideal: the FPR itself) and
    `membership-{attack}-auc` (ideal 0.5; its details hold the ROC curve). Verdicts: `leaks` where the whole interval is
    above the ideal; `no leak found` where it is below the margin (AUC: and above its mirror image, 1 - margin);
    `insufficient evidence` otherwise, and always where n non-members cannot resolve the FPR (1/n > FPR). Each interval
    holds at its own level, not all of them at once.

    Args:
        members: scores of texts trained on, (M,), higher = more member-like; one per independent text, M >= 2.
        nonmembers: scores of texts never trained on, (N,), N >= 2.
        attack: kebab-case name for the ids, `loss` or `reference` here.
        generator: breaks ties, so that tied scores are told apart no better than by a coin.
        level: of the intervals.
        margins: what still counts as no leak.

    Raises:
        ArgumentError: fewer than two scores on a side, or another argument breaks its rule.
        GuaranteeError: a score is NaN or infinite.
    """
    checks.inside("level", level, 0, 1)
    inside, outside = _scores("members", members), _scores("nonmembers", nonmembers)
    margins = margins or Margins()
    common: dict[str, Any] = {
        "level": level,
        "n": len(inside) + len(outside),
        "direction": Direction.LOWER,
        "source": SOURCES.get(attack, attack),
    }
    ranked = _break_ties(inside, outside, generator)
    at_fprs = [_tpr_finding(attack, inside, outside, ranked, fpr, margins, common) for fpr in FPRS]
    return (*at_fprs, _auc_finding(attack, inside, outside, margins, common))


def tpr_at_fpr(members: ArrayLike, nonmembers: ArrayLike, fpr: float) -> float:
    """The share of members above the lowest threshold that at most floor(fpr * N) non-members exceed, in [0, 1].

    Where that threshold falls into tied scores, they are shared out evenly (the straight line across the tie in the
    ROC curve): constant scores have TPR = floor(fpr * N) / N. Lower is better for privacy; ideal: the FPR.

    Raises:
        ArgumentError: fewer than two scores on a side, fpr outside (0, 1).
        GuaranteeError: a score is NaN or infinite, or no false positive is allowed at all (1/N > fpr).
    """
    inside, outside = _scores("members", members), _scores("nonmembers", nonmembers)
    allowed = _allowed(checks.inside("fpr", fpr, 0, 1), len(outside))
    if allowed == 0:
        raise GuaranteeError(f"{len(outside)} non-members cannot resolve an FPR of {fpr:g}", _more_nonmembers(fpr))
    false, true = _roc(inside, outside)
    last = int(np.searchsorted(false, allowed, side="right")) - 1
    if false[last] == allowed:
        return float(true[last] / len(inside))
    shared = (allowed - false[last]) / (false[last + 1] - false[last])
    return float((true[last] + shared * (true[last + 1] - true[last])) / len(inside))


def tpr_interval(members: Array, nonmembers: Array, fpr: float, level: float) -> Interval:
    """The interval of the TPR at the true FPR, the threshold being estimated from the non-members; scores without ties.

    The number K of N non-members above the true threshold is Bin(N, fpr). K = k puts the threshold between the k-th and
    the (k+1)-th highest non-member, which have a and b >= a members above them; given that, the TPR has the
    Clopper-Pearson confidence distributions Beta(a, M-a+1) below and Beta(b+1, M-b) above. Their mean, averaged over K,
    is the confidence distribution whose quantiles are the ends. No normal approximation, so small counts end wide:
    below N * fpr = 3 or so a 95% interval starts at 0.

    Source: melded confidence distributions in their mid-p form, Fay, Proschan and Brittain 2015, Biometrics 71:146-156,
    applied to a quantile of the non-members.
    """
    m, n = len(members), len(nonmembers)
    counts = np.arange(n + 1)
    weights = stats.binom.pmf(counts, n, fpr)
    likely = weights > 1e-12
    counts, weights = counts[likely], weights[likely] / weights[likely].sum()
    thresholds = np.concatenate([[np.inf], np.sort(nonmembers)[::-1], [-np.inf]])
    fewest, most = (m - np.searchsorted(np.sort(members), thresholds[k], side="right") for k in (counts, counts + 1))

    def confidence(tpr: float) -> float:
        """How confident we are that the TPR is at most `tpr`."""
        below = np.where(fewest > 0, special.betainc(np.maximum(fewest, 1), m - fewest + 1, tpr), 1.0)
        above = np.where(most < m, special.betainc(most + 1, np.maximum(m - most, 1), tpr), float(tpr >= 1))
        return float(weights @ (below + above) / 2)

    def quantile(share: float) -> float:
        almost = 1 - 1e-12
        if confidence(0.0) >= share:
            return 0.0
        if confidence(almost) <= share:
            return 1.0
        return float(optimize.brentq(lambda tpr: confidence(tpr) - share, 0, almost))

    return Interval(quantile(0.5 - level / 2), quantile(0.5 + level / 2), level)


def auc(members: ArrayLike, nonmembers: ArrayLike, level: float = 0.95) -> tuple[float, Interval]:
    """The probability that a member scores above a non-member (ties count half), in [0, 1], with its interval.

    Lower is better for privacy; ideal 0.5. The interval is DeLong's, symmetric in the logit, which assumes no shape of
    scores and covers in 93% to 97% of cases at 95%. Where less than 5 of the smaller side are out of order on average
    (an AUC near 0 or 1, or few scores), it is too narrow and has no width at perfect separation; there it is the hull
    with Newcombe's method 5, which is wide.

    Raises:
        ArgumentError: fewer than two scores on a side, level outside (0, 1).
        GuaranteeError: a score is NaN or infinite.

    Source: DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44:837-845; Newcombe 2006, Statistics in Medicine
    25:559-573.
    """
    checks.inside("level", level, 0, 1)
    inside, outside = _scores("members", members), _scores("nonmembers", nonmembers)
    m, n = len(inside), len(outside)
    ranks = stats.rankdata(np.concatenate([inside, outside]))
    above = (ranks[:m] - stats.rankdata(inside)) / n  # per member, the share of non-members below it
    below = 1 - (ranks[m:] - stats.rankdata(outside)) / m  # per non-member, the share of members above it
    value = float((ranks[:m].sum() - m * (m + 1) / 2) / (m * n))  # whole and half pairs: exactly 1 where all are won
    variance = above.var(ddof=1) / m + below.var(ddof=1) / n
    z = float(stats.norm.ppf(0.5 + level / 2))
    wide = _newcombe_interval(value, m, n, z, level)
    if variance < 1e-15:
        return value, wide
    reach = z * math.sqrt(variance) / (value * (1 - value))
    low, high = map(float, special.expit(special.logit(value) + np.array([-reach, reach])))
    if min(value, 1 - value) * min(m, n) >= _ENOUGH_OUT_OF_ORDER:
        return value, Interval(low, high, level)
    return value, Interval(min(wide.low, low), max(wide.high, high), level)


def _newcombe_interval(value: float, m: int, n: int, z: float, level: float) -> Interval:
    """The AUCs that the Hanley-McNeil variance at each of them does not reject."""
    rest = (m + n) / 2 - 1

    def excess(truth: float) -> float:
        variance = truth * (1 - truth) * (1 + rest * (1 - truth) / (2 - truth) + rest * truth / (1 + truth)) / (m * n)
        return abs(truth - value) - z * math.sqrt(variance)

    # At 0 and 1 the value itself is a root, and not the one that is wanted.
    low = float(optimize.brentq(excess, 0, min(value, 1 - 1e-12))) if value > 0 else 0.0
    high = float(optimize.brentq(excess, max(value, 1e-12), 1)) if value < 1 else 1.0
    return Interval(low, high, level)


def _tpr_finding(
    attack: str,
    inside: Array,
    outside: Array,
    ranked: tuple[Array, Array],
    fpr: float,
    margins: Margins,
    common: dict[str, Any],
) -> Finding:
    entry = {"id": f"membership-{attack}-tpr-at-{FPRS[fpr]}-fpr", "ideal": fpr, **common}
    entry["title"] = f"Members found by the {attack} attack at {100 * fpr:g}% false alarms"
    details: dict[str, Any] = {
        "fpr": fpr,
        "members": len(inside),
        "nonmembers": len(outside),
        "smallest_fpr": 1 / len(outside),
    }
    if _allowed(fpr, len(outside)) == 0:
        details |= {"nonmembers_needed": math.ceil(1 / fpr), "reason": _more_nonmembers(fpr)}
        return Finding(value=None, verdict=Verdict.INSUFFICIENT_EVIDENCE, details=details, **entry)
    value = tpr_at_fpr(inside, outside, fpr)
    found = tpr_interval(*ranked, fpr, common["level"])
    # Only the interval is of one tie-breaking; widening it to the value of all only adds coverage.
    low, high = min(found.low, value), max(found.high, value)
    margin = margins.tpr_ratio * fpr
    verdict = leak_verdict(low, high, fpr, margin)
    return Finding(value=value, low=low, high=high, verdict=verdict, details=details | {"margin": margin}, **entry)


def _auc_finding(attack: str, inside: Array, outside: Array, margins: Margins, common: dict[str, Any]) -> Finding:
    value, found = auc(inside, outside, common["level"])
    verdict = leak_verdict(found.low, found.high, 0.5, margins.auc)
    if verdict is Verdict.NO_LEAK_FOUND and found.low < 1 - margins.auc:
        verdict = Verdict.INSUFFICIENT_EVIDENCE  # a score that ranks members last would serve an attacker as well
    return Finding(
        id=f"membership-{attack}-auc",
        title=f"Pairs of a member and a non-member that the {attack} attack tells apart",
        value=value,
        low=found.low,
        high=found.high,
        ideal=0.5,
        verdict=verdict,
        details={"roc": _curve(inside, outside), "margin": margins.auc},
        **common,
    )


def leak_verdict(low: float, high: float, ideal: float, margin: float) -> Verdict:
    """`leaks` where the whole interval is above the ideal, `no leak found` where it is below the margin."""
    if low > ideal:
        return Verdict.LEAKS
    return Verdict.NO_LEAK_FOUND if high < margin else Verdict.INSUFFICIENT_EVIDENCE


def _roc(inside: Array, outside: Array) -> tuple[Array, Array]:
    """Non-members and members at or above each distinct score, highest first, after (0, 0)."""
    thresholds = np.unique(np.concatenate([inside, outside]))[::-1]
    false, true = (
        np.concatenate([[0], len(side) - np.searchsorted(np.sort(side), thresholds, side="left")])
        for side in (outside, inside)
    )
    return false, true


def _curve(inside: Array, outside: Array) -> dict[str, list[float]]:
    """The ROC curve at no more than 200 of its corners, log-spaced in FPR: aggregates, nothing of one text."""
    false, true = _roc(inside, outside)
    highest = np.append(np.diff(false) > 0, True)  # at each FPR, only the highest TPR
    false, true = false[highest], true[highest]
    wanted = np.unique(np.concatenate([[0], np.geomspace(1, len(outside), _CURVE_POINTS - 1).round()]))
    corners = np.unique(np.searchsorted(false, wanted, side="right") - 1)
    return {
        "fpr": (false[corners] / len(outside)).tolist(),
        "tpr": (true[corners] / len(inside)).tolist(),
    }


def _break_ties(inside: Array, outside: Array, generator: np.random.Generator) -> tuple[Array, Array]:
    """Ranks in place of scores, tied scores in random order."""
    every = np.concatenate([inside, outside])
    ranks = np.empty(len(every))
    ranks[np.lexsort((generator.random(len(every)), every))] = np.arange(len(every))
    return ranks[: len(inside)], ranks[len(inside) :]


def _allowed(fpr: float, nonmembers: int) -> int:
    return math.floor(fpr * nonmembers + 1e-9)


def _more_nonmembers(fpr: float) -> str:
    return f"give at least {math.ceil(1 / fpr)} non-members"


def _scores(name: str, values: ArrayLike) -> Array:
    array = finite(name, values)
    if len(array) < 2:
        raise ArgumentError(name, "at least two scores", len(array))
    return array
