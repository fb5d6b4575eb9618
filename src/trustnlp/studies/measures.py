"""What is measured of every model, whoever trained it: utility, memorised canaries, fairness. One function each."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from trustnlp.attacks import exposure
from trustnlp.data.canaries import Canary
from trustnlp.data.corpus import Example
from trustnlp.errors import GuaranteeError
from trustnlp.fairness import counterfactual_flip_rate, label_error_gap, slot_f1_gap
from trustnlp.fairness.metric import units
from trustnlp.fairness.spans import span_counts
from trustnlp.models import LabelModel, predict
from trustnlp.models.evaluation import Predictions
from trustnlp.progress import Progress
from trustnlp.results import Direction, Finding, Verdict
from trustnlp.uncertainty import Interval, proportion, ratio

_SOURCES = {
    "label-accuracy": "share of right labels; Clopper-Pearson interval, or that of a ratio over users where known",
    "slot-f1": "micro F1 over whole slots (seqeval); interval of a ratio over texts, or over users where known",
}


def answers(model: LabelModel, examples: Sequence[Example]) -> Predictions:
    """The model's predictions and losses on `examples`."""
    return predict(model, model.encode(examples))


def utility(found: Predictions, *, dataset: str, users: Sequence[str | None] | None = None) -> list[Finding]:
    """Accuracy and slot F1 on held-out texts, each where it applies; higher is better, ideal 1.

    Args:
        found: the model's answers beside the gold ones.
        dataset: what they were measured on, for the record.
        users: each text's, where they are known; texts of one user are then one unit of the interval.
    """
    who, known = units(len(found.losses), users), users is not None and any(users)
    n = len(set(who))
    findings = []
    if found.labels is not None and found.gold_labels is not None:
        right = found.correct.astype(float)
        interval = _ratio(right, np.ones_like(right), who) if known else proportion(int(right.sum()), n)
        findings.append(_share("label-accuracy", "Label accuracy", found.accuracy, interval, n, dataset))
    if found.tags is not None and found.gold_tags is not None and found.tags_are_slots:
        hits, invented, missed = span_counts(found.gold_tags, found.tags).T.astype(float)
        interval = _ratio(2 * hits, 2 * hits + invented + missed, who)
        findings.append(_share("slot-f1", "Slot F1", found.slot_f1, interval, n, dataset))
    return findings


def _ratio(parts: np.ndarray, sizes: np.ndarray, who: Sequence[Hashable]) -> Interval | None:
    try:
        return ratio(parts, sizes, clusters=who)
    except GuaranteeError:  # fewer than two units say anything
        return None


def _share(id: str, title: str, value: float, interval: Interval | None, n: int, dataset: str) -> Finding:
    finding = Finding(
        id, title, value, n=n, direction=Direction.HIGHER, ideal=1.0, source=_SOURCES[id], details={"dataset": dataset}
    )
    if interval is None:
        return replace(finding, value=None, verdict=Verdict.INSUFFICIENT_EVIDENCE)
    return replace(finding, low=interval.low, high=interval.high, level=interval.level)


def canary_findings(
    loss_of: Callable[[list[Example]], np.ndarray], canaries: Sequence[Canary], progress: Progress, stage: str
) -> tuple[Finding, ...]:
    """Exposure of every planted secret, by scoring all candidates; `loss_of` gives the model's losses (B,)."""
    exposures = []
    for done, canary in enumerate(canaries, start=1):
        scores = exposure.score_candidates(loss_of, canary)
        exposures.append(exposure.of_canary(scores, canary))
        progress(stage, done, len(canaries), {})
    return exposure.evaluate(exposures)


def fairness(
    model: LabelModel, examples: Sequence[Example], found: Predictions, *, dataset: str, protected_group: str
) -> list[Finding]:
    """Gaps between groups, and label flips when identity terms are swapped."""
    users = [example.user for example in examples]
    groups = [example.group for example in examples]
    common: dict[str, Any] = {
        "dataset": dataset,
        "protected_group": protected_group,
        "clusters": users if any(users) else None,
    }
    findings = []
    if found.gold_labels is not None and any(groups):
        findings.append(label_error_gap(found.correct, groups, **common))
    if found.gold_tags is not None and found.tags is not None and found.tags_are_slots and any(groups):
        findings.append(slot_f1_gap(found.gold_tags, found.tags, groups, **common))
    if found.labels is not None:
        texts = [example.text for example in examples]
        flips = counterfactual_flip_rate(
            lambda asked: labels_of(model, asked), texts, dataset=dataset, clusters=common["clusters"]
        )
        findings.append(flips)
    return findings


def labels_of(model: LabelModel, texts: Sequence[str]) -> tuple[str, ...]:
    """The label that the model gives each text."""
    return answers(model, [Example(text) for text in texts]).labels or ()
