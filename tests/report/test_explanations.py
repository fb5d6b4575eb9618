import pytest

from trustnlp.report import explanations
from trustnlp.report.explanations import EXPLANATIONS, MARKS, QUESTIONS, certainty, explain, good, sentence
from trustnlp.results import Direction, Finding, Results, Tone, Verdict


def test_every_explanation_answers_a_question_and_says_its_figure() -> None:
    questions = {question.name for question in QUESTIONS}
    assert len(questions) == len(QUESTIONS)
    for entry in EXPLANATIONS:
        assert entry.question in questions
        assert entry.says.count("{value}") == 1
        assert entry.means
        assert entry.good


def test_every_finding_of_an_assessment_is_explained(results: Results) -> None:
    assert [finding.id for finding in results if explain(finding.id) is None] == []


@pytest.mark.parametrize(
    ("id", "pattern"),
    [
        ("membership-lira-auc", "membership-*-auc"),
        ("membership-loss-tpr-at-1pct-fpr", "membership-*-tpr-at-1pct-fpr"),
        ("membership-loss-tpr-at-0-1pct-fpr", "membership-*-tpr-at-0-1pct-fpr"),
    ],
)
def test_one_explanation_serves_every_attack(id: str, pattern: str) -> None:
    entry = explain(id)
    assert entry
    assert entry.id == pattern


def test_a_finding_without_explanation_speaks_for_itself() -> None:
    finding = Finding("odd", "An odd figure", 0.25, 0.2, 0.3, n=1200, direction=Direction.LOWER, ideal=0.0)
    assert sentence(finding) == "An odd figure: 25.0%."
    assert certainty(finding) == "95% interval 20.0% to 30.0%, from n\u00a0=\u00a01,200."
    assert good(finding) == "Lower is better. The ideal is 0.00%."
    assert "no better or worse" in good(Finding("odd", "An odd figure", 0.25))


def test_certainty_says_when_there_is_none() -> None:
    unmeasured = Finding("slot-f1", "F1", None, verdict=Verdict.INSUFFICIENT_EVIDENCE, n=3)
    doubtful = Finding("slot-f1", "F1", 0.5, 0.1, 0.9, verdict=Verdict.INSUFFICIENT_EVIDENCE, level=0.9)
    assert certainty(unmeasured).startswith("Too little data")
    assert sentence(unmeasured) == "Could not be measured here."
    assert certainty(doubtful) == "90% interval 10.0% to 90.0%. Too wide for a verdict."
    assert "proved, not estimated" in certainty(Finding("epsilon", "Budget", 7.98, unit="epsilon"))
    assert certainty(Finding("slot-f1", "F1", 0.5)) == "No interval is recorded."


def test_epsilon_is_its_own_unit() -> None:
    assert explanations.figure(Finding("epsilon", "Budget", 7.98, unit="epsilon"), 7.98) == "7.98"


def test_no_tone_is_told_by_colour_alone() -> None:
    assert len({MARKS[tone] for tone in Tone}) == len(Tone)
