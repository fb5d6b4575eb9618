"""A run as `assess` records one, with realistic figures: the material of this folder's tests."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from trustnlp.results import Direction, Finding, Results, Verdict

NORMAL = 1.96


def share(hits: float, n: int, width: float = NORMAL) -> dict[str, Any]:
    """A fraction with its (normal) interval, as fields of a finding."""
    half = width * math.sqrt(max(hits * (1 - hits), 1e-4) / n)
    return {"value": hits, "low": max(hits - half, 0.0), "high": min(hits + half, 1.0), "n": n}


def roc(strength: float, points: int = 400) -> dict[str, list[float]]:
    """A ROC tpr = fpr ** (1 / (1 + strength)); strength 0 is guessing."""
    fpr = [0.0, *(10 ** (-3.3 * (1 - index / points)) for index in range(points + 1))]
    return {"fpr": fpr, "tpr": [rate ** (1 / (1 + strength)) for rate in fpr]}


def membership(regime: str, attack: str, strength: float, leaks: bool) -> list[Finding]:
    verdict = Verdict.LEAKS if leaks else Verdict.NO_LEAK_FOUND
    common: dict[str, Any] = {"direction": Direction.LOWER, "regime": regime, "source": "Yeom et al. 2018, section 3"}
    at = {"1": 0.01 ** (1 / (1 + strength)), "0-1": 0.001 ** (1 / (1 + strength))}
    name = f"Membership attack by {attack}"
    return [
        Finding(
            f"membership-{attack}-auc", f"{name}: AUC", **share(1 - 1 / (2 + strength), 1400), ideal=0.5,
            verdict=verdict, details={"roc": roc(strength)}, **common,
        ),
        Finding(
            f"membership-{attack}-tpr-at-1pct-fpr", f"{name}: texts recognised at 1% false alarms",
            **share(at["1"], 1400), ideal=0.01, verdict=verdict, **common,
        ),
        Finding(
            f"membership-{attack}-tpr-at-0-1pct-fpr", f"{name}: texts recognised at 0.1% false alarms",
            **share(at["0-1"], 1400), ideal=0.001, **common,
            verdict=Verdict.LEAKS if leaks else Verdict.INSUFFICIENT_EVIDENCE,
        ),
    ]  # fmt: skip


def canaries(regime: str, memorised: bool) -> list[Finding]:
    records = []
    for index, repetitions in enumerate([1, 1, 1, 4, 4, 4, 16, 16, 16, 64, 64, 64]):
        rank = max(1, round(4000 / repetitions**2.2) - 37 * (index % 3)) if memorised else 900 + 730 * index
        bits = math.log2(10_000) - math.log2(rank)
        records.append({"repetitions": repetitions, "rank": rank, "exposure": bits, "candidates": 10_000})
    mean = sum(record["exposure"] for record in records) / len(records)
    rate = sum(record["rank"] == 1 for record in records) / len(records)
    verdict = Verdict.LEAKS if memorised else Verdict.NO_LEAK_FOUND
    common: dict[str, Any] = {"regime": regime, "direction": Direction.LOWER, "verdict": verdict}
    return [
        Finding(
            "canary-exposure", "Exposure of the planted secrets", mean, max(mean - 1.2, 0), mean + 1.2, n=12,
            unit="bits", source="Carlini et al. 2019, definition 5", details={"canaries": records}, **common,
        ),
        Finding("canary-extraction-rate", "Planted secrets read out exactly", **share(rate, 12), ideal=0.0, **common),
    ]  # fmt: skip


def fairness(regime: str, errors: dict[str, tuple[float, int]], verdict: Verdict) -> list[Finding]:
    groups = [{"group": name, "n": n, "error": rate, **ends(rate, n)} for name, (rate, n) in errors.items()]
    slots = [
        {"group": name, "n": n, "f1": 1 - 1.4 * rate, **ends(1 - 1.4 * rate, n)} for name, (rate, n) in errors.items()
    ]
    small = {
        "not_compared": [{"group": "islands", "n": 9}],
        "notes": ["gap by region: insufficient evidence for 'islands' (n=9)"],
        "protected_group": "region",
    }
    gap = max(rate for rate, _ in errors.values()) - min(rate for rate, _ in errors.values())
    common: dict[str, Any] = {"regime": regime, "direction": Direction.LOWER, "ideal": 0.0}
    return [
        Finding(
            "label-error-gap", "Gap in error rate between groups", gap, max(gap - 0.04, 0), gap + 0.04, n=700,
            verdict=verdict,
            details={"groups": groups, **small, "minimum_detectable_effect": 0.031, "margin": 0.05}, **common,
        ),
        Finding(
            "slot-f1-gap", "Gap in slot F1 between groups", 1.4 * gap, max(1.4 * gap - 0.06, 0), 1.4 * gap + 0.06,
            n=700, verdict=Verdict.INSUFFICIENT_EVIDENCE,
            details={"groups": slots, **small, "minimum_detectable_effect": 0.064, "margin": 0.05}, **common,
        ),
        Finding(
            "counterfactual-flip-rate", "Answers that change with the speaker's group", **share(0.021, 512),
            verdict=Verdict.FAIR_WITHIN_MARGIN, **common,
        ),
    ]  # fmt: skip


def ends(rate: float, n: int) -> dict[str, float]:
    """The interval of a rate."""
    interval = share(rate, n)
    return {"low": interval["low"], "high": interval["high"]}


def utility(regime: str, accuracy: float, f1: float) -> list[Finding]:
    common: dict[str, Any] = {"regime": regime, "direction": Direction.HIGHER, "ideal": 1.0}
    return [
        Finding("label-accuracy", "Label accuracy", **share(accuracy, 700), **common),
        Finding("slot-f1", "Slot F1", **share(f1, 700), source="seqeval, exact spans", **common),
    ]


def budget(spent: float = 7.98) -> Finding:
    return Finding(
        "epsilon", "Privacy budget spent", spent, unit="epsilon", direction=Direction.LOWER, regime="private",
        verdict=Verdict.WITHIN_BUDGET if spent <= 8 else Verdict.OVER_BUDGET, source="PLD accounting, dp-accounting",
        details={
            "statement": "(7.98, 1e-06)-differential privacy for one text under adding or removing it.",
            "target": 8, "delta": 1e-6, "sigma": 0.732, "sample_rate": 0.0196, "steps": 1020, "unit": "one text",
            "adjacency": "adding or removing one", "sampler": "Poisson", "accountant": "PLD",
            "attack_ceiling": {"0.01": 1.0, "0.001": 0.93},
        },
    )  # fmt: skip


RUN: dict[str, Any] = {
    "command": "trustnlp assess --data tickets.csv --regimes plain,private --epsilon 8 --out runs/tickets",
    "created": "2025-03-14T09:26:53+00:00",
    "seconds": {"plain": 41.2, "private": 88.7, "attacks": 12.4, "fairness": 3.1},
    "versions": {"trustnlp": "0.1.0", "python": "3.11.2", "torch": "2.13.0", "numpy": "2.4.1"},
    "seed": 20250314,
    "hashes": {"plain": "9f86d081884c7d659a2feaa0c55ad015", "private": "60303ae22b998861bce3"},
    "hardware": {"device": "cpu", "cores": 2, "memory_gb": 7.8},
    "corpus": {
        "name": "Support tickets", "licence": "proprietary", "digest": "2c26b46b68ffc68f", "train": 12408, "valid": 700,
        "test": 700, "labels": 31, "tags": 0, "users": 2113, "groups": ["north", "south", "east", "west"], "notes": [],
    },
    "regimes": {
        name: {
            "model": "bilstm",
            "history": [{"epoch": epoch, "loss": 2.2 * 0.7**epoch} for epoch in range(1, 9)],
        }
        for name in ("plain", "private")
    },
}  # fmt: skip


@pytest.fixture(scope="session")
def results() -> Results:
    return typical()


@pytest.fixture(scope="session")
def with_region() -> Callable[[str], Results]:
    """The same run with a group, a regime, a corpus and a title of a given name."""
    return named


def named(name: str) -> Results:
    findings = fairness(name, {name: (0.12, 40), "south": (0.05, 231)}, Verdict.DISPARITY)
    odd = Finding("some-new-figure", name, 0.4, 0.3, 0.5, n=7, regime=name, source=name, details={"note": name})
    corpus = {**RUN["corpus"], "name": name, "notes": [name]}
    regimes = {name: {"model": name, "history": [{"epoch": 1, name: name}]}}
    findings += [*membership(name, "loss", 0.3, True), *canaries(name, True), *utility(name, 0.9, 0.8), odd]
    findings += [*utility("other", 0.8, 0.7)]
    return Results({**RUN, "corpus": corpus, "regimes": regimes, name: name, "command": name}, tuple(findings))


def typical() -> Results:
    """Two regimes: plain leaks and memorises, private does not and costs accuracy; one group is small."""
    plain = {"north": (0.121, 23), "south": (0.052, 231), "east": (0.061, 240), "west": (0.055, 206)}
    private = {"north": (0.174, 23), "south": (0.083, 231), "east": (0.104, 240), "west": (0.098, 206)}
    findings = [
        *utility("plain", 0.941, 0.902),
        *utility("private", 0.902, 0.811),
        budget(),
        *membership("plain", "loss", 0.7, True),
        *membership("plain", "reference", 1.6, True),
        *membership("private", "loss", 0.02, False),
        *membership("private", "reference", 0.06, False),
        Finding(
            "blind-classifier-auc", "Texts told apart without the model", **share(0.507, 1400), ideal=0.5,
            direction=Direction.IDEAL, verdict=Verdict.NO_BIAS_FOUND,
        ),
        *canaries("plain", True),
        *canaries("private", False),
        *fairness("plain", plain, Verdict.FAIR_WITHIN_MARGIN),
        *fairness("private", private, Verdict.DISPARITY),
    ]  # fmt: skip
    return Results(RUN, tuple(findings))
