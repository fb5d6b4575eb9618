"""How good generated labels are, by a small random sample that somebody has labelled.

    pseudo-label-precision           right ones among the confident; by confidence, label, activity and group
    pseudo-label-coverage            confident ones among all
    pseudo-label-overconfidence      mean confidence less accuracy: how wrong a threshold reads
    pseudo-label-calibration-error   ECE: mean over bins of |accuracy - confidence|, weighted by texts

ECE takes the size of what is left, so it is above 0 even for a calibrated model, the more so the fewer texts a bin has.
`details["if_calibrated"]` says what a calibrated model of the same confidences would show by chance alone. Its interval
holds the ECE of these bins: accuracies of all bins lie in theirs at once, and the two ends are the least and the
largest ECE that this leaves.

Texts of one device are alike, so devices are the units of all intervals.

Source: Guo et al. 2017, arXiv:1706.04599 (ECE, reliability); Kumar et al. 2019, arXiv:1909.10155 (its bias, and bins of
as many texts each).

Shape legend: n audited texts, N texts, K devices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustnlp import checks
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.federated import served
from trustnlp.results import Direction, Finding, Verdict
from trustnlp.uncertainty import Interval, bonferroni, bootstrap, ratio

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
THRESHOLDS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
_BINS, _BIN_TEXTS = 10, 20  # at most so many bins, of so many texts at least
_DRAWS = 400  # of a calibrated model
_CONFUSIONS = 10  # most frequent pairs that are named


@dataclass(frozen=True, eq=False)
class Audited:
    """A random sample of texts with the labels that were generated and the right ones.

    Args:
        answers: (n,) generated labels.
        gold: (n,) right ones.
        confidence: (n,) of the generated ones, in [0, 1].
        devices: (n,) where each text is, 0 to K - 1.

    Raises:
        ArgumentError: nothing audited, lengths that differ, or a confidence outside [0, 1], NaN included.
    """

    answers: Sequence[str]
    gold: Sequence[str]
    confidence: Array
    devices: Ints

    def __post_init__(self) -> None:
        checks.not_empty("answers", self.answers)
        checks.same_length(answers=self.answers, gold=self.gold, confidence=self.confidence, devices=self.devices)
        if not ((self.confidence >= 0) & (self.confidence <= 1)).all():
            raise ArgumentError("confidence", "in [0, 1]", [self.confidence.min(), self.confidence.max()])

    @property
    def right(self) -> Array:
        """(n,) 1 where the generated label is the right one, else 0."""
        return np.array([a == b for a, b in zip(self.answers, self.gold, strict=True)], dtype=float)


def sample(sizes: ArrayLike, texts: int, generator: np.random.Generator) -> tuple[Ints, Ints]:
    """Texts to audit, every one as likely, so that shares among them estimate shares among all.

    Args:
        sizes: (K,) how many texts each device has.
        texts: n, at most all of them.
        generator: drawn from.

    Returns:
        The device of each (n,), and its place among that device's texts (n,).
    """
    ends = np.cumsum(np.asarray(sizes, dtype=np.int64))
    if not 1 <= texts <= (ends[-1] if len(ends) else 0):
        raise ArgumentError("texts", f"from 1 to all {ends[-1] if len(ends) else 0} texts", texts)
    chosen = np.sort(generator.choice(ends[-1], texts, replace=False))
    devices = np.searchsorted(ends, chosen, side="right")
    return devices, chosen - np.concatenate([[0], ends])[devices]


def audit(
    audited: Audited,
    threshold: float,
    sizes: ArrayLike,
    *,
    generator: np.random.Generator,
    groups: Sequence[str | None] | None = None,
    level: float = 0.95,
) -> tuple[Finding, ...]:
    """The findings of the head of this module; what the sample cannot give is insufficient evidence.

    Args:
        audited: the sample.
        threshold: labels of a higher confidence are used in training, in [0, 1].
        sizes: (K,) how many texts each device has.
        generator: of resamples.
        groups: (n,) the group of each text, None where unknown; None leaves the finding by group out.
        level: of the intervals, in (0, 1).

    Raises:
        ArgumentError: an argument breaks its rule.
    """
    checks.within("threshold", threshold, 0, 1)
    checks.inside("level", level, 0, 1)
    return (
        _precision(audited, threshold, level),
        _coverage(audited, threshold, level),
        _overconfidence(audited, generator, level),
        calibration_error(audited, generator=generator, level=level),
        *_parts(audited, threshold, sizes, groups, level),
    )


def calibration_error(audited: Audited, *, generator: np.random.Generator, level: float = 0.95) -> Finding:
    """ECE over bins of as many texts each, of the confidence of all labels; lower is better, ideal 0.

    Args:
        audited: the sample.
        generator: draws what a calibrated model would show.
        level: of the interval.
    """
    right, confidence = audited.right, audited.confidence
    bins = np.array_split(np.argsort(confidence, kind="stable"), min(_BINS, max(1, len(right) // _BIN_TEXTS)))
    each = bonferroni(level, len(bins))
    rows = [_bin(right[rows], confidence[rows], audited.devices[rows], each) for rows in bins]
    weights = np.array([len(rows) for rows in bins]) / len(right)
    ends = np.array([(_nearest(row), _furthest(row)) for row in rows])
    luck = generator.random((_DRAWS, len(right))) < confidence
    chance = sum(w * np.abs(luck[:, r].mean(1) - confidence[r].mean()) for w, r in zip(weights, bins, strict=True))
    by_chance = np.asarray(chance)
    return _finding(
        "calibration-error",
        "Mean distance between confidence and accuracy of generated labels",
        _error(right, confidence, bins),
        Interval(float(weights @ ends[:, 0]), float(weights @ ends[:, 1]), level),
        n=len(right),
        direction=Direction.LOWER,
        ideal=0.0,
        source="ECE over bins of as many texts each (Guo et al. 2017); simultaneous intervals of all bins",
        details={
            "reliability": rows,
            "if_calibrated": float(by_chance.mean()),
            "if_calibrated_at_most": float(np.quantile(by_chance, level)),
        },
    )


def _precision(audited: Audited, threshold: float, level: float) -> Finding:
    right, chosen = audited.right, audited.confidence > threshold
    pairs = Counter(
        (gold, answer) for gold, answer, used in zip(audited.gold, audited.answers, chosen, strict=True) if used
    )
    wrong = [[*pair, count] for pair, count in pairs.most_common() if pair[0] != pair[1]]
    each = bonferroni(level, len(THRESHOLDS))
    details = {
        "threshold": threshold,
        "by_confidence": [_above(audited, one, each) for one in THRESHOLDS],
        "by_label": _by_label(pairs),
        "confusions": wrong[:_CONFUSIONS],
    }
    return _share(
        "precision", "Share of right ones among the labels used", right[chosen], audited.devices[chosen], level, details
    )


def _coverage(audited: Audited, threshold: float, level: float) -> Finding:
    used = (audited.confidence > threshold).astype(float)
    details = {"threshold": threshold}
    return _share("coverage", "Share of texts whose generated label is used", used, audited.devices, level, details)


def _overconfidence(audited: Audited, generator: np.random.Generator, level: float) -> Finding:
    excess = audited.confidence - audited.right
    try:
        interval = bootstrap(
            lambda rows: rows.mean(1), excess, generator=generator, level=level, clusters=audited.devices.tolist()
        )
    except (GuaranteeError, ArgumentError):  # one device, or nothing varies
        interval = None
    return _finding(
        "overconfidence",
        "Mean confidence of generated labels less their accuracy",
        float(excess.mean()),
        interval,
        n=len(excess),
        ideal=0.0,
        source="bootstrap (BCa) over devices",
    )


def _parts(
    audited: Audited, threshold: float, sizes: ArrayLike, groups: Sequence[str | None] | None, level: float
) -> list[Finding]:
    """Precision by activity and by group."""
    chosen = np.flatnonzero(audited.confidence > threshold)
    if not len(chosen):
        return []
    who = None if groups is None else [groups[row] for row in chosen.tolist()]
    found = served.accuracy(audited.right[chosen], audited.devices[chosen], sizes, groups=who, level=level)
    return [
        replace(
            each,
            id=each.id.replace("accuracy", "pseudo-label-precision", 1),
            title=each.title.replace("Accuracy", "Precision of generated labels", 1),
        )
        for each in found
        if each.id in ("accuracy-by-activity-decile", "accuracy-by-group")
    ]


def _above(audited: Audited, threshold: float, level: float) -> dict[str, Any]:
    chosen = audited.confidence > threshold
    interval = _ratio(audited.right[chosen], audited.devices[chosen], level)
    row: dict[str, Any] = {"threshold": threshold, "coverage": float(chosen.mean()), "texts": int(chosen.sum())}
    if interval is None:
        return row | {"precision": None, "low": None, "high": None}
    return row | {"precision": float(audited.right[chosen].mean()), "low": interval.low, "high": interval.high}


def _by_label(pairs: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """Of each generated label how many were used, and how many of them were right."""
    found: dict[str, dict[str, int]] = {}
    for (gold, answer), count in sorted(pairs.items()):
        row = found.setdefault(answer, {"used": 0, "right": 0})
        row["used"] += count
        row["right"] += count * (gold == answer)
    return found


def _bin(right: Array, confidence: Array, devices: Ints, level: float) -> dict[str, float]:
    interval = _ratio(right, devices, level) or Interval(0.0, 1.0, level)
    return {
        "confidence": float(confidence.mean()),
        "accuracy": float(right.mean()),
        "low": interval.low,
        "high": interval.high,
        "texts": len(right),
    }


def _error(right: Array, confidence: Array, bins: Sequence[Ints]) -> float:
    return float(sum(abs((right[rows] - confidence[rows]).sum()) for rows in bins) / len(right))


def _nearest(row: dict[str, float]) -> float:
    """The least distance that the bin's interval leaves between accuracy and confidence."""
    return max(row["low"] - row["confidence"], row["confidence"] - row["high"], 0.0)


def _furthest(row: dict[str, float]) -> float:
    return max(row["confidence"] - row["low"], row["high"] - row["confidence"])


def _ratio(values: Array, devices: Ints, level: float) -> Interval | None:
    try:
        return ratio(values, np.ones(len(values)), level, clusters=devices.tolist())
    except GuaranteeError:  # fewer than two devices say anything
        return None


def _share(what: str, title: str, values: Array, devices: Ints, level: float, details: dict[str, Any]) -> Finding:
    return _finding(
        what,
        title,
        float(values.mean()) if len(values) else None,
        _ratio(values, devices, level),
        n=len(values),
        direction=Direction.HIGHER,
        ideal=1.0,
        source="random sample of texts; interval of a ratio over devices",
        details=details,
    )


def _finding(what: str, title: str, value: float | None, interval: Interval | None, **fields: Any) -> Finding:
    known = {"id": f"pseudo-label-{what}", "title": title, **fields}
    if interval is None or value is None:
        return Finding(value=None, verdict=Verdict.INSUFFICIENT_EVIDENCE, **known)
    low, high = min(interval.low, value), max(interval.high, value)  # rounding may leave it a last digit outside
    return Finding(value=value, low=low, high=high, level=interval.level, **known)
