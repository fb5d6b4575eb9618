from pathlib import Path

import numpy as np
import pytest

from trustnlp.data.corpus import Example
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.randomness import Streams
from trustnlp.results import Finding, Verdict
from trustnlp.studies.membership_findings import Promise, judged, of_scores
from trustnlp.studies.membership_scores import by_loss
from trustnlp.studies.sides import Sides

STREAMS = Streams(0)


def sides_of(size: int) -> Sides:
    """`size` texts a side, with two labels."""
    texts = [Example(f"text number {i}", label="ab"[i % 2]) for i in range(2 * size)]
    return Sides(tuple(texts[:size]), tuple(texts[size:]))


def found(losses: np.ndarray, *references: np.ndarray, **options) -> dict[str, Finding]:
    scores = by_loss(losses.ravel(), [reference.ravel() for reference in references])
    return {f.id: f for f in of_scores(scores, sides_of(losses.size // 2), STREAMS, **options)}


def planted(size: int, member_mean: float) -> np.ndarray:
    generator = STREAMS.numpy("losses")
    return np.stack([generator.exponential(member_mean, size), generator.exponential(1.0, size)])


class TestAttacks:
    def test_planted_losses_leak(self) -> None:
        auc = found(planted(400, 0.2))["membership-loss-auc"]
        assert auc.verdict is Verdict.LEAKS
        assert auc.value == pytest.approx(1.0 / 1.2, abs=0.03)  # P(Exp(mean 0.2) < Exp(mean 1))

    def test_a_reference_takes_difficulty_out(self) -> None:
        # Texts differ in difficulty by far more than training on them helps: only the reference shows it.
        difficulty = STREAMS.numpy("difficulty").exponential(10, 400)
        reference = np.stack([difficulty, difficulty[::-1]])
        by_id = found(reference + np.array([[0.0], [0.01]]), reference)
        assert by_id["membership-loss-auc"].verdict is not Verdict.LEAKS
        assert by_id["membership-reference-auc"].value == 1.0
        assert by_id["membership-reference-tpr-at-1pct-fpr"].verdict is Verdict.LEAKS

    def test_equal_losses_leak_nothing(self) -> None:
        by_id = found(planted(2000, 1.0))
        assert by_id["membership-loss-auc"].verdict is Verdict.NO_LEAK_FOUND
        assert by_id["epsilon-lower-bound-one-run-approximate"].value == 0.0

    def test_ties_are_broken_by_the_streams_alone(self) -> None:
        scores = {"loss": np.concatenate([np.repeat([0.1, 0.2, 0.3], 100), np.repeat([0.1, 0.2, 0.3], 100) + 0.1])}
        one, same = (judged(scores, sides_of(300), Streams(seed)) for seed in (1, 1))
        assert one == same

    def test_a_score_that_is_no_number_is_refused(self) -> None:
        with pytest.raises(GuaranteeError, match="NaN"):
            of_scores({"loss": np.array([0.1, np.nan, 0.2, 0.3])}, sides_of(2), STREAMS)


class TestEpsilon:
    def test_a_promise_that_the_scores_refute_is_violated(self) -> None:
        rungs = found(planted(1000, 0.01), promise=Promise(0.5, 1e-5, "a test"))["epsilon-ladder"]
        assert rungs.verdict is Verdict.VIOLATED
        assert (rungs.details["target"], rungs.details["promised_by"]) == (0.5, "a test")

    def test_a_promise_that_scores_by_chance_keep_is_consistent(self) -> None:
        assert found(planted(1000, 1.0), promise=Promise(1.0, 1e-5))["epsilon-ladder"].verdict is Verdict.CONSISTENT

    def test_without_a_promise_what_leaks_is_said(self) -> None:
        rungs = found(planted(1000, 0.01))["epsilon-ladder"]
        assert rungs.verdict is Verdict.LEAKS
        assert "promised_by" not in rungs.details

    def test_the_attack_is_chosen_before_looking(self) -> None:
        leaking, reference = planted(400, 0.01), np.ones((2, 400))
        assert found(leaking, reference)["epsilon-ladder"].details["attack"] == "reference"
        assert found(leaking)["epsilon-ladder"].details["attack"] == "loss"

    @pytest.mark.parametrize("wrong", [{"epsilon": -1.0}, {"delta": 0.0}, {"delta": 1.0}])
    def test_a_promise_of_nothing_sensible(self, wrong: dict) -> None:
        with pytest.raises(ArgumentError):
            Promise(**{"epsilon": 1.0, "delta": 1e-5, **wrong})


class TestRisk:
    def test_labels_at_risk_are_told_and_texts_are_kept_as_hashes(self, tmp_path: Path) -> None:
        losses = planted(400, 1.0)
        losses[0, ::2] = 1e-3  # members with label a
        by_id = found(losses, folder=tmp_path)
        assert by_id["risk-by-label"].details["groups"][0]["group"] == "a"
        kept = (tmp_path / "risk.json").read_text()
        assert "text number" not in kept
