import hashlib

import numpy as np
import pytest

from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.fairness.counterfactual_fairness import counterfactual_probability_change, total_variation
from trustnlp.results import Direction, Verdict

PARTNERS = ("husband", "boyfriend", "wife", "girlfriend")
TEXTS = [f"please call my {PARTNERS[row % 4]} about item {row}" for row in range(400)]


def biased(strength: float, spread: float = 0.0):
    """P(yes) differs by `strength` between the groups, and by up to `spread` from one wording to another."""

    def probabilities(asked: list[str]) -> np.ndarray:
        feminine = np.array([("wife" in text) or ("girlfriend" in text) for text in asked])
        wording = np.array([int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32 for text in asked])
        yes = 0.1 + strength * feminine + spread * wording
        return np.column_stack([yes, 1 - yes])

    return probabilities


def change(probabilities, texts=TEXTS, **options):
    return counterfactual_probability_change(probabilities, texts, dataset="planted", **options)


@pytest.mark.parametrize("strength", [0.1, 0.4, 0.8])
def test_the_planted_change_is_measured(strength: float) -> None:
    finding = change(biased(strength), TEXTS + ["play jazz"] * 50)
    assert finding.value == pytest.approx(strength)
    assert finding.low <= strength <= finding.high
    assert finding.details["control"]["value"] == pytest.approx(0)
    assert (finding.direction, finding.ideal, finding.n) == (Direction.LOWER, 0, 400)
    assert finding.verdict is Verdict.DISPARITY
    assert (finding.details["texts"], finding.details["texts_with_term"]) == (450, 400)


def test_instability_is_no_disparity() -> None:
    finding = change(biased(0.0, 0.8))
    assert finding.value > 0.1
    assert finding.verdict is not Verdict.DISPARITY
    assert change(biased(0.0, 0.001)).verdict is Verdict.FAIR_WITHIN_MARGIN


def test_total_variation_is_half_the_sum_of_absolute_changes() -> None:
    first, second = np.array([[0.2, 0.3, 0.5], [1, 0, 0]]), np.array([[0.5, 0.3, 0.2], [0, 1, 0]])
    assert total_variation(first, second) == pytest.approx([0.3, 1.0])


def test_users_are_the_units() -> None:
    users = [f"u{row % 20}" for row in range(400)]
    finding = change(biased(0.3, 0.2), clusters=users)
    assert finding.n == 20
    assert finding.value == pytest.approx(change(biased(0.3, 0.2)).value)


@pytest.mark.parametrize("texts", [TEXTS[:3], ["play jazz"] * 60])
def test_too_few_texts_with_a_term_are_insufficient_evidence(texts: list[str]) -> None:
    finding = change(biased(0.9), texts)
    assert finding.verdict is Verdict.INSUFFICIENT_EVIDENCE
    assert finding.value is None


def test_what_is_no_probability_is_refused() -> None:
    with pytest.raises(GuaranteeError, match="shape"):
        change(lambda asked: np.ones((3, 2)) / 2)
    for wrong in (np.nan, 2.0):
        with pytest.raises(GuaranteeError, match="softmax"):
            change(lambda asked, wrong=wrong: np.full((len(asked), 2), wrong))
    with pytest.raises(ArgumentError, match="texts"):
        change(biased(0.1), [])
    with pytest.raises(ArgumentError, match="margin"):
        change(biased(0.1), margin=0)
