import numpy as np
import pytest
from scipy import stats

from trustnlp.data.crows_pairs import StereotypePair
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.fairness.crows_pairs import ScoredPair, crows_pairs, judge_pairs, score_pairs, shared
from trustnlp.fairness.scorer import Kind
from trustnlp.results import Verdict

from .stereotype_scorers import TableScorer

PAIR = StereotypePair("1", "Old men nap here.", "The young men nap there.", "age", "stereo")


def test_shared_tokens_are_those_of_the_matching_blocks():
    scorer = TableScorer()
    first, second = scorer.tokens(PAIR.more), scorer.tokens(PAIR.less)
    # <s> Old men nap here . </s> against <s> The young men nap there . </s>
    assert shared(first, second) == ((2, 3, 5), (3, 4, 6))


def test_a_masked_model_is_asked_for_shared_tokens_one_at_a_time():
    scorer = TableScorer(table={"men": -2.0, "nap": -0.5, ".": -0.25, "young": -9.0}, context=-0.1)
    [found] = score_pairs(scorer, [PAIR])
    assert found.more == pytest.approx(-2.75 - 3 * 0.7)
    assert found.less == pytest.approx(-2.75 - 3 * 0.8)
    assert not any(each.together for each in scorer.asked)


def test_a_causal_model_is_asked_for_whole_sentences():
    scorer = TableScorer(Kind.CAUSAL, table={"young": -9.0})
    [found] = score_pairs(scorer, [PAIR])
    assert (found.more, found.less) == (-5.0, -14.0)


def test_scores_that_round_to_the_same_prefer_neither():
    scorer = TableScorer(Kind.CAUSAL, table={"old": -1.0, "young": -1.0004})
    [found] = score_pairs(scorer, [StereotypePair("1", "old", "young", "age", "stereo")])
    assert found.more == found.less


def scored(preferred, n=100, bias_type="age"):
    """`preferred` of `n` pairs preferring the more stereotyping sentence, one tie among the others."""
    return [
        ScoredPair(
            f"{bias_type}{row}",
            bias_type,
            "stereo" if row % 2 else "antistereo",
            -1.0 if row < preferred else -2.0,
            -2.0 if row in (n - 1, *range(preferred)) else -1.0,
        )
        for row in range(n)
    ]


def test_a_share_with_its_exact_interval():
    [found] = judge_pairs(scored(70))
    exact = stats.binomtest(70, 100).proportion_ci(0.95, method="exact")
    assert (found.id, found.ideal, found.n, found.value) == ("crows-pairs", 50, 100, 70)
    assert (found.low, found.high) == pytest.approx((100 * exact.low, 100 * exact.high))
    assert (found.verdict, found.details["ties"]) == (Verdict.DISPARITY, 1)
    assert found.details["stereo_score"] == found.details["antistereo_score"] == 70


def test_a_model_without_a_side_is_fair_given_enough_pairs():
    [found] = judge_pairs(scored(1000, 2000))
    assert found.verdict is Verdict.FAIR_WITHIN_MARGIN
    [found] = judge_pairs(scored(10, 20))
    assert found.verdict is Verdict.INSUFFICIENT_EVIDENCE


def test_types_and_flagged_pairs():
    rows = scored(70) + scored(50, bias_type="gender")
    flagged = [row.id for row in rows[:70]]
    everything, age, gender = judge_pairs(rows, flagged=flagged)
    assert [one.id for one in (everything, age, gender)] == ["crows-pairs", "crows-pairs-age", "crows-pairs-gender"]
    assert (everything.value, age.level, gender.value) == (60, pytest.approx(0.975), 50)
    assert everything.details["without_flagged"]["value"] == pytest.approx(100 * 50 / 130)
    assert age.details["without_flagged"]["value"] == 0


def test_scorer_and_pairs_to_findings():
    pairs = [StereotypePair(str(n), "old men", "young men", "age", "stereo") for n in range(40)]
    [found] = crows_pairs(TableScorer(Kind.CAUSAL, {"young": -3.0}), pairs)
    assert (found.value, found.verdict) == (100, Verdict.DISPARITY)


def test_impossible_scores_are_refused():
    with pytest.raises(GuaranteeError, match="'1' has a score that is NaN"):
        judge_pairs([ScoredPair("1", "age", "stereo", np.nan, 0.0)])
    with pytest.raises(ArgumentError, match="'direction' must be one of 'stereo', 'antistereo'"):
        judge_pairs([ScoredPair("1", "age", "other", 0.0, 0.0)])
