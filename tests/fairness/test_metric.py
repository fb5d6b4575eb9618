import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustnlp.errors import ArgumentError
from trustnlp.fairness.metric import Metric, Notion, Scope, is_enough, judge, minimum_detectable_effect, units
from trustnlp.results import Direction, Finding, Verdict
from trustnlp.uncertainty import Interval, difference_of_proportions

FAIR, DISPARITY, UNKNOWN = Verdict.FAIR_WITHIN_MARGIN, Verdict.DISPARITY, Verdict.INSUFFICIENT_EVIDENCE
METRIC = Metric("some-bias", "Some bias", Notion.SENSITIVITY, 0.5, Direction.IDEAL, "nobody")
SCOPE = Scope("gender", "corpus", 0.05)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.46, 0.54, FAIR),  # nothing found, and anything larger ruled out
        (0.51, 0.54, FAIR),  # found, but proven to be of no consequence
        (0.45, 0.55, FAIR),
        (0.51, 0.56, DISPARITY),  # proven to exist, not proven to be small
        (0.60, 0.70, DISPARITY),
        (0.30, 0.40, DISPARITY),
        (0.44, 0.56, UNKNOWN),
        (0.50, 0.60, UNKNOWN),
    ],
)
def test_the_rule_compares_the_interval_with_ideal_and_margin(low, high, verdict):
    assert judge(Interval(low, high), 0.5, 0.05) is verdict


def test_an_excess_decides_on_disparity_but_not_on_fairness():
    assert judge(Interval(0.2, 0.3), 0, 0.05, excess=Interval(-0.05, 0.05)) is UNKNOWN
    assert judge(Interval(0.2, 0.3), 0, 0.05, excess=Interval(-0.3, -0.1)) is UNKNOWN
    assert judge(Interval(0.2, 0.3), 0, 0.05, excess=Interval(0.01, 0.2)) is DISPARITY
    assert judge(Interval(0.01, 0.04), 0, 0.05, excess=Interval(0.01, 0.04)) is FAIR


@given(
    st.floats(-1, 1), st.floats(0, 1), st.floats(-1, 1), st.floats(0.01, 1), st.floats(0.01, 0.5)
)  # widening an interval never adds a claim
def test_less_evidence_never_says_more(low, width, ideal, margin, more):
    narrow, wide = Interval(low, low + width), Interval(low - more, low + width + more)
    said, then = judge(narrow, ideal, margin), judge(wide, ideal, margin)
    assert said is not UNKNOWN or then is UNKNOWN
    assert then is not FAIR or said is FAIR


def test_a_finding_declares_its_contract():
    finding = METRIC.finding(
        SCOPE, 0.6, Interval(0.55, 0.65), n=90, minimum_detectable_effect=0.07, details={"more": [1, 2]}
    )
    assert finding == Finding(
        "some-bias", "Some bias (gender)", 0.6, 0.55, 0.65, 0.95, 90, "fraction", Direction.IDEAL, 0.5, DISPARITY, "",
        "nobody",
        {
            "notion": "sensitivity", "rule": "confidence-interval inclusion", "protected_group": "gender",
            "dataset": "corpus", "margin": 0.05, "minimum_detectable_effect": 0.07, "more": [1, 2],
        },
    )  # fmt: skip


def test_a_figure_without_data_is_a_finding_too():
    finding = METRIC.unmeasured(SCOPE, "nobody came", n=0, details={})
    assert (finding.value, finding.verdict, finding.n, finding.ideal) == (None, UNKNOWN, 0, 0.5)
    assert finding.details["reason"] == "nobody came"
    assert finding.details["minimum_detectable_effect"] is None


@pytest.mark.parametrize("margin", [0, -0.1, float("nan")])
def test_a_margin_is_above_zero(margin):
    with pytest.raises(ArgumentError, match="margin"):
        Scope("gender", "corpus", margin)


def test_a_true_gap_of_the_minimum_detectable_effect_is_found_four_times_in_five():
    rng, n, p = np.random.default_rng(5), 400, 0.3
    effect = minimum_detectable_effect(difference_of_proportions(120, n, 120, n))
    first, second = rng.binomial(n, p, 600), rng.binomial(n, p + effect, 600)
    found = [
        0 not in difference_of_proportions(*pair) for pair in zip(first, [n] * 600, second, [n] * 600, strict=True)
    ]
    assert 0.74 < np.mean(found) < 0.86


def test_texts_of_unknown_users_are_units_of_their_own():
    assert len(set(units(5, ["u", None, "u", None, 1]))) == 4
    assert len(set(units(3, None))) == 3
    with pytest.raises(ArgumentError, match="clusters"):
        units(3, ["u"])


def test_enough_counts_texts_and_how_evenly_users_wrote_them():
    assert is_enough(np.ones(30), list(range(30)))
    assert not is_enough(np.ones(29), list(range(29)))
    assert is_enough(np.ones(30), [row % 5 for row in range(30)])
    assert not is_enough(np.ones(30), [row % 4 for row in range(30)])
    assert not is_enough(np.ones(100), [max(row - 80, 0) for row in range(100)])  # one user wrote most
    assert not is_enough(np.ones(0), [])
