"""The study end to end on a small table, and its rule: every part must hold, and doubt in one is doubt in all."""

import json

import numpy as np
import pytest

from trustnlp.data.corpus import Example
from trustnlp.progress import silent
from trustnlp.randomness import Streams
from trustnlp.results import Finding, Verdict
from trustnlp.studies import federated_challenges
from trustnlp.studies.federated_challenges import (
    ALL,
    ALONE,
    FEEDBACK,
    PSEUDO,
    STUDY,
    Scale,
    _claim,
    _gain,
    _heavy_hitters,
    _histogram,
    _on_devices,
)
from trustnlp.studies.study import Request


def evaluation(truth):
    return Finding("on-device-label-accuracy", "Accuracy", 0.8, 0.7, 0.9, details={"truth": truth})


def gain(arm, low, high):
    middle = (low + high) / 2
    return Finding("label-generation-gain", "Gain", middle, low, high, n=6, details={"cell": {"arm": arm}})


def hitters(share, rare=0):
    return Finding("heavy-hitters-found", "Found", share, details={"rare_words_found": rare})


def histogram(within):
    return Finding("histogram-error", "Error", 0.01, details={"within": within})


def good():
    return {
        "evaluation": [evaluation(0.75)] * 9 + [evaluation(0.6)],
        "labels": [gain(PSEUDO, 0.01, 0.1), gain(FEEDBACK, 0.02, 0.1)],
        "histogram": [histogram(True)],
        "heavy hitters": [hitters(1.0)],
    }


def claimed(**parts):
    found = good() | {name.replace("_", " "): findings for name, findings in parts.items()}
    return _claim([finding for findings in found.values() for finding in findings])


class TestClaim:
    def test_where_all_of_it_holds(self):
        claim = claimed()
        assert claim.verdict is Verdict.REPRODUCED
        assert claim.value == pytest.approx(0.055)

    @pytest.mark.parametrize(
        "part",
        [
            {"evaluation": [evaluation(0.6)] * 10},
            {"labels": [gain(PSEUDO, -0.1, -0.01), gain(FEEDBACK, 0.02, 0.1)]},
            {"histogram": [histogram(False)]},
            {"heavy_hitters": [hitters(0.9)]},
            {"heavy_hitters": [hitters(1.0, rare=1)]},
        ],
    )
    def test_one_part_that_fails(self, part):
        assert claimed(**part).verdict is Verdict.NOT_REPRODUCED

    @pytest.mark.parametrize(
        "part",
        [
            {"evaluation": [evaluation(0.6), evaluation(0.75)]},
            {"labels": [gain(PSEUDO, -0.01, 0.1), gain(FEEDBACK, 0.02, 0.1)]},
            {"heavy_hitters": [Finding("heavy-hitters-found", "", None, verdict=Verdict.INSUFFICIENT_EVIDENCE)]},
        ],
    )
    def test_one_part_in_doubt(self, part):
        assert claimed(**part).verdict is Verdict.INSUFFICIENT_EVIDENCE


def test_gains_are_paired_by_training():
    def accuracy(arm, training, value):
        details = {"cell": {"arm": arm, "training": str(training)}}
        return Finding("label-accuracy", "Accuracy", value, value - 0.1, min(1.0, value + 0.1), details=details)

    alone, more = [0.5, 0.6, 0.7, 0.4, 0.5, 0.6], [0.6, 0.8, 0.7, 0.5, 0.8, 0.75]
    found = [accuracy(ALONE, i, value) for i, value in enumerate(alone)]
    found += [accuracy(PSEUDO, i, value) for i, value in enumerate(more)]
    (figure,) = _gain(found, PSEUDO, None)
    np.testing.assert_allclose(figure.details["gains"], [0.1, 0.2, 0.0, 0.1, 0.3, 0.15])
    assert (figure.value, figure.low, figure.high) == pytest.approx((0.125, 0.0, 0.3))
    (few,) = _gain(found[1:6] + found[7:], PSEUDO, None)
    assert few.verdict is Verdict.INSUFFICIENT_EVIDENCE


class TestParts:
    def test_devices_tell_their_accuracy(self):
        held = 0
        for seed in range(10):
            correct = np.random.default_rng(seed).random(600) < 0.8
            found = _on_devices(correct, Streams(seed))
            held += found.low <= correct.mean() <= found.high
        assert held >= 7

    def test_frequent_words_are_found_and_rare_ones_are_not(self):
        words = ["play"] * 5000 + ["add"] * 4000 + ["rate"] * 2000 + [f"rare{n}" for n in range(2000)]
        found = _heavy_hitters([Example(f"{word} it") for word in words], Streams(0))
        assert (found.value, found.n) == (1.0, 3)
        assert found.details["rare_words_found"] == 0

    def test_too_few_devices_are_no_evidence(self):
        found = _heavy_hitters([Example("play it")] * 30, Streams(0))
        assert found.verdict is Verdict.INSUFFICIENT_EVIDENCE
        assert found.details["reason"]

    def test_a_histogram_is_right_within_its_margin(self):
        examples = [Example("a b", label) for label in np.random.default_rng(0).choice(list("xyz"), 900)]
        found = _histogram(examples, Streams(0))
        assert found.details["within"]
        assert found.n == 300


def test_all_of_it_on_a_small_table(table, tmp_path, monkeypatch):
    monkeypatch.setattr(federated_challenges, "QUICK", Scale(texts=200, trainings=1, rounds=2, few=3))
    monkeypatch.setattr(federated_challenges, "_BEFORE", 10)
    monkeypatch.setattr(federated_challenges, "_OPTIONS", {"buckets": 256, "width": 16, "hidden": 8, "char_filters": 0})
    request = Request(data=(str(table),), quick=True)
    results = STUDY.run(request, tmp_path / "run", progress=silent)
    again = STUDY.run(request, tmp_path / "run", progress=silent)  # nothing is measured twice
    assert results.findings == again.findings
    ids = {finding.id for finding in results}
    assert {"claim", "label-accuracy", "on-device-label-accuracy", "label-generation-gain"} <= ids
    assert {"histogram-error", "heavy-hitters-found", "feedback-accuracy", "pseudo-label-precision"} <= ids
    arms = {f.details["cell"]["arm"] for f in results if f.id == "label-accuracy"}
    assert arms == {ALONE, PSEUDO, FEEDBACK, ALL}
    assert results.get("claim").verdict is Verdict.INSUFFICIENT_EVIDENCE  # one training has no interval
    text = (tmp_path / "run" / "results.json").read_text()
    assert "jazz" not in text  # no text of the corpus
    assert json.loads(text)["run"]["study"]["system"] == "S6"
