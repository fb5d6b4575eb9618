"""Times to a target, censored ones included, and paired comparisons, worked out by hand."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.federated.learning_curves import (
    ROUNDS,
    TEXTS,
    Curve,
    area,
    compared,
    findings,
    over_seeds,
    paired,
    saved,
    time_to,
)
from trustnlp.results import Verdict


def curve(*scores: float, each: int = 100, every: int = 10) -> Curve:
    rounds = every * np.arange(1, len(scores) + 1)
    return Curve(rounds, each * rounds // every, np.array(scores))


FAST, SLOW, NEVER = curve(0.2, 0.6, 0.7, each=300), curve(0.1, 0.3, 0.6), curve(0.1, 0.2, 0.3)


class TestTime:
    def test_is_that_of_the_first_measurement_at_the_target(self) -> None:
        assert time_to([FAST], 0.5, ROUNDS).spent == 20
        assert time_to([FAST], 0.6, ROUNDS).spent == 20
        assert time_to([FAST], 0.5, TEXTS).spent == 600
        assert time_to([curve(0.6, 0.2, 0.6)], 0.5, ROUNDS).spent == 10

    def test_a_target_that_is_never_reached_is_counted_at_the_end_and_told(self) -> None:
        never = time_to([NEVER], 0.5, ROUNDS)
        assert (never.spent, never.censored) == (30, 1)
        both = time_to([FAST, NEVER], 0.5, TEXTS)
        assert (both.spent, both.censored) == (600 + 300, 1)
        at_the_end = time_to([SLOW], 0.6, ROUNDS)
        assert (at_the_end.spent, at_the_end.censored) == (30, 0)

    def test_until_tau_only(self) -> None:
        early = time_to([FAST], 0.5, TEXTS, until=[500])
        assert (early.spent, early.censored) == (500, 1)
        with pytest.raises(ArgumentError, match="at most what was observed"):
            time_to([FAST], 0.5, TEXTS, until=[901])

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0.01, 1))
    def test_against_a_walk_along_the_curve(self, scores: list[float], target: float) -> None:
        found = time_to([curve(*scores)], target, ROUNDS)
        for number, score in enumerate(scores):
            if score >= target:
                assert (found.spent, found.censored) == (10 * (number + 1), 0)
                return
        assert (found.spent, found.censored) == (10 * len(scores), 1)


class TestArea:
    def test_by_hand(self) -> None:
        assert area([curve(0.5)]) == 0.5
        assert area([curve(0.2, 0.4)]) == pytest.approx((0.2 * 10 + 0.3 * 10) / 20)
        assert area([curve(0.2, 0.4), curve(1.0)]) == pytest.approx((5 + 10) / 30)

    @given(st.floats(0, 1), st.integers(1, 5))
    def test_of_a_constant_is_the_constant(self, score: float, count: int) -> None:
        assert area([curve(*[score] * count)]) == pytest.approx(score)


class TestComparison:
    def test_rounds_saved_are_a_share_of_all_rounds(self) -> None:
        assert saved([FAST], [SLOW], 0.5, ROUNDS) == pytest.approx((30 - 20) / 30)
        assert saved([SLOW], [FAST], 0.5, ROUNDS) == pytest.approx(-10 / 30)
        assert saved([FAST], [NEVER], 0.5, ROUNDS) == pytest.approx(10 / 30)  # at least
        assert saved([NEVER], [NEVER], 0.5, ROUNDS) == 0
        assert saved([FAST, NEVER], [SLOW, SLOW], 0.5, ROUNDS) == pytest.approx((10 + 0) / 60)

    def test_texts_are_compared_while_both_were_observed(self) -> None:
        """The fast arm needs 600 texts, the slow one has seen 300 when its target is reached, and no more."""
        assert saved([FAST], [SLOW], 0.5, TEXTS) == 0  # within 300 texts the fast one is not there: censored
        longer = curve(0.1, 0.3, 0.6, 0.6, 0.6, 0.6, 0.6)
        assert saved([FAST], [longer], 0.5, TEXTS) == pytest.approx((300 - 600) / 700)

    def test_students_interval(self) -> None:
        """Of 1, 2, 3, 4: mean 2.5, standard error 1.29099 / 2, t(3) = 3.18245 at 97.5%."""
        found = paired([1, 2, 3, 4])
        assert found is not None
        assert (found.low, found.high) == pytest.approx((2.5 - 3.18245 * 0.645497, 2.5 + 3.18245 * 0.645497), abs=1e-4)
        assert paired([1.0]) is None
        assert paired([0.0, 0.0, 0.0]) is None
        with pytest.raises(GuaranteeError, match="NaN"):
            paired([1.0, np.nan])

    def test_students_interval_covers(self) -> None:
        draws = np.random.default_rng(0).normal(0.3, 1.0, size=(2_000, 8))
        inside = [0.3 in interval for row in draws if (interval := paired(row)) is not None]
        assert np.mean(inside) == pytest.approx(0.95, abs=4 * np.sqrt(0.95 * 0.05 / 2_000))

    def test_seeds_are_paired(self) -> None:
        """Seeds that differ far more than arms do not hide a difference that is the same in all of them."""
        slow = [[curve(*[0.1 + 0.1 * seed] * 3)] for seed in range(8)]
        fast = [[curve(*[0.12 + 0.1 * seed + 0.001 * (seed % 2)] * 3)] for seed in range(8)]
        lead = next(f for f in compared(fast, slow, 0.5) if f.id == "learning-curve-lead")
        assert lead.low is not None
        assert 0.019 < lead.low < 0.0205


class TestFindings:
    def test_of_one_arm(self) -> None:
        found = {f.id: f for f in findings([[FAST], [SLOW], [NEVER]], 0.5)}
        assert list(found) == ["learning-curve-area", "rounds-to-target", "texts-to-target"]
        rounds = found["rounds-to-target"]
        assert rounds.value == pytest.approx((20 + 30 + 30) / 3)
        assert (rounds.details["censored"], rounds.details["periods"], rounds.n) == (1, 3, 3)

    def test_of_two_arms(self) -> None:
        found = {f.id: f for f in compared([[FAST], [SLOW]], [[NEVER], [NEVER]], 0.5)}
        assert list(found) == ["rounds-saved", "texts-saved", "learning-curve-lead"]
        rounds = found["rounds-saved"]
        assert rounds.value == pytest.approx((10 / 30 + 0) / 2)
        assert rounds.details["censored"] == [0, 2]

    def test_no_variation_is_no_proof(self) -> None:
        alike: Any = over_seeds("rounds-saved", "Rounds saved", [0.0, 0.0])
        assert (alike.verdict, alike.low, alike.value) == (Verdict.INSUFFICIENT_EVIDENCE, None, 0.0)


def test_what_is_no_curve_is_refused() -> None:
    with pytest.raises(GuaranteeError, match="NaN"):
        curve(np.nan)
    with pytest.raises(ArgumentError, match="ascending"):
        Curve(np.array([2, 1]), np.array([1, 2]), np.array([0.1, 0.2]))
    with pytest.raises(ArgumentError, match="target"):
        time_to([FAST], 0.0, ROUNDS)
    with pytest.raises(ArgumentError, match="axis"):
        time_to([FAST], 0.5, "seconds")
    with pytest.raises(ArgumentError, match="2 periods"):
        saved([FAST, FAST], [SLOW], 0.5, ROUNDS)
