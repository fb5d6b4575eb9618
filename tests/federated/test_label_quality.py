"""Audits of generated labels: figures by hand, planted calibration and its lack, intervals that hold."""

import numpy as np
import pytest

from trustnlp.errors import ArgumentError
from trustnlp.federated.label_quality import Audited, audit, calibration_error, sample
from trustnlp.results import Results, Verdict


def seeded(seed=0):
    return np.random.default_rng(seed)


def planted(texts, seed=0, *, shift=0.0, devices=40):
    """Labels that are right with the chance that confidence says, less `shift`."""
    generator = seeded(seed)
    confidence = generator.uniform(0.3 + shift, 1.0, texts)
    right = generator.random(texts) < confidence - shift
    return Audited(
        ["a"] * texts, np.where(right, "a", "b").tolist(), confidence, generator.integers(devices, size=texts)
    )


SIZES = np.arange(1, 41)


def by_id(audited, threshold=0.8, sizes=SIZES, **more):
    return {found.id: found for found in audit(audited, threshold, sizes, generator=seeded(1), **more)}


class TestFigures:
    HAND = Audited(
        ["x", "x", "y", "y", "x", "y"],
        ["x", "y", "y", "y", "x", "x"],
        np.array([0.9, 0.85, 0.99, 0.6, 0.5, 0.95]),
        np.arange(6),
    )

    def test_precision_and_coverage_by_hand(self):
        found = by_id(self.HAND)
        assert found["pseudo-label-precision"].value == 2 / 4
        assert found["pseudo-label-coverage"].value == pytest.approx(4 / 6)
        details = found["pseudo-label-precision"].details
        assert details["by_label"] == {"x": {"used": 2, "right": 1}, "y": {"used": 2, "right": 1}}
        assert sorted(details["confusions"]) == [["x", "y", 1], ["y", "x", 1]]
        last = details["by_confidence"][-2]
        assert (last["threshold"], last["texts"], last["precision"]) == (0.95, 1, None)  # one device has no interval

    def test_confidence_less_accuracy_by_hand(self):
        found = by_id(self.HAND)["pseudo-label-overconfidence"]
        assert found.value == pytest.approx(np.mean([0.9, 0.85, 0.99, 0.6, 0.5, 0.95]) - 4 / 6)

    def test_ece_by_hand(self):
        """Two bins of 20: accuracies of 0.5 and 1 beside confidences of 0.6 and 0.9."""
        gold = ["a", "b"] * 10 + ["a"] * 20
        audited = Audited(["a"] * 40, gold, np.repeat([0.6, 0.9], 20), np.arange(40))
        found = calibration_error(audited, generator=seeded())
        assert found.value == pytest.approx((0.1 + 0.1) / 2)
        assert [row["texts"] for row in found.details["reliability"]] == [20, 20]


class TestCalibration:
    def test_a_calibrated_model_shows_what_chance_shows(self):
        errors = [calibration_error(planted(400, seed), generator=seeded(seed)) for seed in range(60)]
        expected = np.mean([found.details["if_calibrated"] for found in errors])
        assert np.mean([found.value for found in errors]) == pytest.approx(expected, rel=0.08)
        assert expected > 0.03  # the bias: the truth is 0
        above = np.mean([found.value > found.details["if_calibrated_at_most"] for found in errors])
        assert above <= 0.15  # 0.05 expected; more than 9 of 60 happen in 1 of 1000
        assert all(found.low < 0.02 for found in errors)

    def test_overconfidence_is_found(self):
        found = by_id(planted(1500, shift=0.2))
        over, error = found["pseudo-label-overconfidence"], found["pseudo-label-calibration-error"]
        assert over.value == pytest.approx(0.2, abs=0.05)  # 4 standard deviations
        assert over.low > 0.1
        assert error.value > error.details["if_calibrated_at_most"]
        assert error.low > 0
        assert error.low < over.value < error.high

    def test_intervals_hold_the_planted_truth(self):
        held = {"precision": 0, "overconfidence": 0}
        for seed in range(40):
            found = by_id(planted(200, seed, shift=0.1))
            held["precision"] += found["pseudo-label-precision"].low < 0.8 < found["pseudo-label-precision"].high
            over = found["pseudo-label-overconfidence"]
            held["overconfidence"] += over.low < 0.1 < over.high
        assert min(held.values()) >= 33  # 0.95 of 40 expected; fewer happen in 1 of 1000


class TestParts:
    def test_light_devices_that_are_served_worse_are_seen(self):
        generator = seeded()
        devices = generator.integers(80, size=4000)
        right = generator.random(4000) < np.where(devices < 8, 0.5, 0.9)
        gold, groups = np.where(right, "a", "b").tolist(), ["north" if device % 2 else "south" for device in devices]
        audited = Audited(["a"] * 4000, gold, np.full(4000, 0.9), devices)
        found = by_id(audited, sizes=np.arange(1, 81), groups=groups)
        worst = found["pseudo-label-precision-by-activity-decile"]
        assert worst.details["parts"][0]["name"] == "1 to 8 texts"
        assert worst.low < 0.5 < worst.high
        assert {part["name"] for part in found["pseudo-label-precision-by-group"].details["parts"]} == {
            "north",
            "south",
        }

    def test_no_confident_label_is_no_evidence(self):
        found = by_id(planted(100), threshold=1.0)
        assert found["pseudo-label-precision"].verdict is Verdict.INSUFFICIENT_EVIDENCE
        assert found["pseudo-label-coverage"].value == 0
        assert "pseudo-label-precision-by-activity-decile" not in found


def test_findings_can_be_written(tmp_path):
    results = Results({}, audit(planted(200), 0.8, SIZES, generator=seeded()))
    results.save(tmp_path)
    assert Results.load(tmp_path).findings[0].id == "pseudo-label-precision"


class TestSample:
    def test_every_text_is_as_likely(self):
        counts = np.zeros(10)
        ends = np.array([0, 1, 1, 4])
        for seed in range(3000):
            devices, places = sample([1, 0, 3, 6], 2, seeded(seed))
            assert len({*zip(devices.tolist(), places.tolist(), strict=True)}) == 2
            counts[ends[devices] + places] += 1
        np.testing.assert_allclose(counts / 3000, 0.2, atol=0.03)  # 4 standard deviations

    def test_more_than_there_are_is_refused(self):
        with pytest.raises(ArgumentError, match="texts"):
            sample([1, 2], 4, seeded())


@pytest.mark.parametrize("confidence", [[0.5, np.nan], [0.5, 1.1], [0.5]])
def test_bad_input_is_refused(confidence):
    with pytest.raises(ArgumentError):
        Audited(["a", "b"], ["a", "b"], np.array(confidence), np.arange(2))
