"""Synthetic devices: who is there, how active, what they say, against the truth that was planted."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trustnlp.data.synthetic import INTENTS, Parameters
from trustnlp.data.synthetic_devices import ABSENT, TEST_SHARE, SyntheticDevices, _for_testing
from trustnlp.errors import ArgumentError

PLAIN = {"bias": 0.0, "canaries": False, "ambiguity": 0.0}


def devices(size: int = 600, users: int = 40, *, periods: int = 3, **more: Any) -> SyntheticDevices:
    names = ("churn", "activity_drift", "correlation", "test_size")
    knobs = {name: more.pop(name) for name in names if name in more}
    return SyntheticDevices(Parameters(size, users, periods=periods, **(PLAIN | more)), **knobs)


def intents_of(made: SyntheticDevices, period: int, device: int) -> np.ndarray:
    """(I,) how often each intent is said; the decision's two labels are one intent."""
    said = [example.label if example.label in INTENTS else "request" for example in made.texts(period, device)]
    return np.array([said.count(intent) for intent in INTENTS])


class TestWhoIsThere:
    @settings(max_examples=30, deadline=None)
    @given(
        users=st.integers(1, 60),
        periods=st.integers(1, 5),
        churn=st.floats(0, 1),
        drift=st.floats(0, 1),
        activity=st.floats(0, 2),
    )
    def test_every_period_has_its_users_and_texts(
        self, users: int, periods: int, churn: float, drift: float, activity: float
    ) -> None:
        made = devices(20 * users + 10, users, periods=periods, churn=churn, activity_drift=drift, activity=activity)
        leavers = round(churn * users)
        for period in range(periods):
            sizes, places = made.sizes(period), made.places(period)
            assert len(sizes) == made.devices == users + (periods - 1) * leavers
            assert sizes.sum() == 20 * users + 10
            assert sorted(places[places != ABSENT]) == list(range(users))
            np.testing.assert_array_equal(sizes > 0, places != ABSENT)
            order = np.argsort(places[places != ABSENT])
            assert (np.diff(sizes[places != ABSENT][order]) <= 1).all()  # by activity, up to rounding
            if period:
                before, now = made.sizes(period - 1) > 0, sizes > 0
                assert (before & ~now).sum() == (now & ~before).sum() == leavers

    def test_nobody_comes_back(self) -> None:
        made = devices(churn=0.5, periods=5)
        there = np.array([made.sizes(period) > 0 for period in range(5)])
        assert (np.abs(np.diff(there.astype(int), axis=0, prepend=0, append=0)).sum(0) == 2).all()

    def test_only_drifting_activities_change(self) -> None:
        still, moving = devices(), devices(activity_drift=0.5)
        np.testing.assert_array_equal(still.sizes(0), still.sizes(2))
        changed = (moving.places(0) != moving.places(1)).sum()
        assert 10 <= changed <= 20

    def test_activity_is_zipfs(self) -> None:
        sizes = np.sort(devices(20_040, 40, activity=1.0).sizes(0))[::-1] - 1
        np.testing.assert_allclose(sizes / sizes[0], 1 / np.arange(1, 41), atol=2 / sizes[0])


class TestWhatIsSaid:
    def test_texts_are_the_same_at_every_call_and_carry_their_device_and_period(self) -> None:
        made = devices(churn=0.3)
        texts = made.texts(1, 7) or made.texts(1, 8)
        assert made.texts(1, made.device_of(texts[0].user or "")) == texts
        assert all(example.time is not None and 1 <= example.time < 2 for example in texts)
        assert len(made.texts(2, 7)) == made.sizes(2)[7]

    def test_no_test_text_is_ever_on_a_device(self) -> None:
        made = devices(test_size=300)
        tests = {example.text for period in range(3) for example in made.test(period)}
        trained = {e.text for period in range(3) for k in range(made.devices) for e in made.texts(period, k)}
        assert not tests & trained
        assert len(made.test(0)) == 300
        shares = [_for_testing(f"text {i}") for i in range(5_000)]
        assert np.mean(shares) == pytest.approx(TEST_SHARE, abs=4 * np.sqrt(0.09 / 5_000))

    @pytest.mark.parametrize("period", [0, 2])
    def test_intents_follow_the_mix(self, period: int) -> None:
        """Chi-square, with the slopes, the leans and the taste all at work."""
        made = devices(2_000, 1, drift=1.5, correlation=1.0, concentration=5.0)
        seen, expected = intents_of(made, period, 0), 2_000 * made.mix(0, period)
        assert stats.chisquare(seen, expected).pvalue > 1e-4
        other = 2_000 * made.mix(0, 2 - period)
        assert stats.chisquare(seen, other).pvalue < 1e-12  # the test has the power to tell periods apart

    def test_drift_is_as_asked(self) -> None:
        """From the first period to the last an intent's log-odds to another change by twice the slopes' difference."""
        made = devices(drift=1.5)
        change = np.log(made.mix(3, 2) / made.mix(3, 0))
        slopes = made._slopes
        np.testing.assert_allclose(change - change[0], 2 * (slopes - slopes[0]), atol=1e-9)
        assert np.abs(slopes).max() <= 1.5
        steady = devices(drift=0.0)
        np.testing.assert_allclose(steady.mix(3, 0), steady.mix(3, 2))

    def test_what_active_devices_say_is_correlated_only_where_asked(self) -> None:
        for correlation in (0.0, 2.0):
            made = devices(drift=0.0, concentration=1e6, correlation=correlation)
            most, least = (int(np.flatnonzero(made.places(0) == place)[0]) for place in (0, 39))
            apart = np.log(made.mix(most, 0) / made.mix(least, 0))
            # Leans are +-correlation, activities +-(1 - 1/40).
            assert np.ptp(apart) == pytest.approx(2 * correlation * 2 * (1 - 1 / 40), abs=0.02)

    def test_a_device_that_is_not_there_has_no_texts_and_no_mix(self) -> None:
        made = devices(churn=0.5)
        gone = int(np.flatnonzero(made.sizes(2) == 0)[0])
        assert made.texts(2, gone) == ()
        with pytest.raises(ArgumentError, match="there in period 2"):
            made.mix(gone, 2)


def test_what_cannot_be_made_is_refused() -> None:
    for wrong, rule in (
        ({"churn": 1.5}, "churn"),
        ({"activity_drift": -1}, "activity_drift"),
        ({"correlation": -1.0}, "correlation"),
        ({"test_size": 0}, "test_size"),
        ({"canaries": True}, "without canaries"),
        ({"size": 30}, "at least one text"),
    ):
        with pytest.raises(ArgumentError, match=rule):
            devices(**wrong)
    with pytest.raises(ArgumentError, match="period"):
        devices().sizes(3)
