"""Steps of a server that waits for no round: by hand, as synchronous where that is the same, to the same bits."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from convex import Problem, Regression, problem
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import train

from trustnlp.errors import ArgumentError, GuaranteeError, ModelError
from trustnlp.federated.cohort import Cohort, PlainSelector, Request
from trustnlp.federated.conditions import Conditions
from trustnlp.federated.factorised_privacy import FactorisedPrivacy
from trustnlp.federated.fedavg import FedAvg
from trustnlp.federated.fedbuff import FedBuff
from trustnlp.federated.local_training import LocalTraining
from trustnlp.federated.selection import Activity, Uniform
from trustnlp.federated.simulator import History
from trustnlp.randomness import Streams

# A device takes one second for each of its texts.
CLOCKWORK = Conditions(startup=0, speed=1, speed_spread=0, bandwidth=1e18, bandwidth_spread=0)
ONE_STEP = LocalTraining(0.1, 32)
SIZES = [3, 9, 4, 5, 6, 2, 7, 8, 1, 5, 6, 3, 12, 4, 5]
PROBLEM = problem(SIZES, spread=0.5)
ROUGH = Conditions(availability=0.8, dropout=0.2, deadline=1.15, nan=0.1, huge=0.1)


@dataclass(frozen=True)
class InTurn:
    """Whoever has the lowest number of those that may begin."""

    def begin(self, sizes: np.ndarray) -> "_InTurn":
        return _InTurn(len(sizes))


class _InTurn(PlainSelector):
    def __init__(self, devices: int) -> None:
        self._devices = np.arange(devices)

    def choose(self, request: Request) -> Cohort:
        free = self._devices[request.there(self._devices)][: request.cohort]
        return Cohort(free, np.ones(len(free)))


def run(algorithm: FedBuff, given: Problem = PROBLEM, **more: Any) -> tuple[torch.Tensor, History]:
    model = Regression(3)
    history = train(given, model, algorithm, **more)
    return model.w.detach().clone(), history


def test_a_schedule_by_hand() -> None:
    """Devices of 1, 2 and 3 seconds, two at a time, a buffer of two:

    second  1: device 0 (began at version 0), whose place device 2 takes     4: device 2 (version 0, stale by 1): step 1
    second  2: device 1 (version 0): step 0; device 0 begins again           5: devices 0 (version 2) and 1 (version 1,
    second  3: device 0 (version 1), whose place device 1 takes                 stale by 1) at once: step 2
    """
    three = problem([1, 2, 3], spread=1.0)

    def change(w: np.ndarray, device: int) -> np.ndarray:
        return -0.1 * three.gradient(w, device)

    w0 = np.zeros(3)
    w1 = w0 + (change(w0, 0) + change(w0, 1)) / 2
    w2 = w1 + (change(w1, 0) + change(w0, 2) / math.sqrt(2)) / 2
    w3 = w2 + (change(w2, 0) + change(w1, 1) / math.sqrt(2)) / 2
    w, history = run(FedBuff(3, 2, ONE_STEP, buffer=2), three, selection=InTurn(), conditions=CLOCKWORK)
    np.testing.assert_allclose(w, w3, rtol=1e-10)
    assert [record.seconds for record in history.rounds] == [2, 2, 1]
    assert [record.staleness for record in history.rounds] == [0, 0.5, 0.5]
    assert [record.stalest for record in history.rounds] == [0, 1, 1]
    assert [record.texts for record in history.rounds] == [3, 4, 3]


def test_of_equally_fast_devices_that_fill_the_buffer_it_is_fedavg() -> None:
    """Each step is then a round of all, with equal weights, although batches are drawn and rates decay."""
    same = problem([6] * 5, spread=1.0)
    local = LocalTraining(0.1, 2, epochs=2, momentum=0.5, rate_decay=0.9)
    more = {"conditions": CLOCKWORK, "selection": Uniform(weighting="equal")}
    buffered, history = run(FedBuff(4, 5, local, server_rate=0.8, buffer=5), same, **more)
    model = Regression(3)
    rounds = train(same, model, FedAvg(4, 5, local, server_rate=0.8), **more)
    torch.testing.assert_close(buffered, model.w.detach(), rtol=1e-12, atol=0)
    assert [record.seconds for record in history.rounds] == [record.seconds for record in rounds.rounds]
    assert [record.loss for record in history.rounds] == pytest.approx([record.loss for record in rounds.rounds])


def test_devices_of_all_speeds_come_near_the_optimum_where_they_agree_on_it() -> None:
    """Fast devices answer more often; where devices' optima lie apart, FedBuff ends nearer to theirs."""
    alike = problem([8] * 12)
    uneven = Conditions(startup=0, speed_spread=1.0)
    w, history = run(FedBuff(120, 8, ONE_STEP, buffer=3), alike, conditions=uneven)
    assert np.linalg.norm(w.numpy() - alike.optimum) < 0.03 * np.linalg.norm(alike.optimum)
    assert max(record.stalest for record in history.rounds) > 2


def test_importances_count_and_weights_within_a_cohort_do_not() -> None:
    """The first draw has p_k = 1 / K, and so the weight K n_k / n."""
    two = problem([2, 6], spread=1.0)
    importance = Activity(0.0, "importance")
    drawn = importance.begin(two.population.sizes).select(0, 1, Streams(0).numpy("selection", 0)).devices[0]
    change = -0.1 * two.gradient(np.zeros(3), drawn)
    w, _ = run(FedBuff(1, 1, ONE_STEP, buffer=1), two, selection=importance)
    np.testing.assert_allclose(w, 2 * [2, 6][drawn] / 8 * change, rtol=1e-10)
    changes = [-0.1 * two.gradient(np.zeros(3), device) for device in range(2)]
    w, _ = run(FedBuff(1, 2, ONE_STEP, buffer=2), two, selection=Uniform("samples"), conditions=CLOCKWORK)
    np.testing.assert_allclose(w, (changes[0] + changes[1]) / 2, rtol=1e-10)


class TestSameBits:
    ALGORITHM = FedBuff(6, 7, LocalTraining(0.05, 4), buffer=3)

    def test_for_any_number_of_workers(self) -> None:
        one, history = run(self.ALGORITHM, conditions=ROUGH)
        two, others = run(self.ALGORITHM, conditions=ROUGH, workers=2)
        assert torch.equal(one, two)
        assert history == others

    @settings(max_examples=6, deadline=None)
    @given(stop=st.integers(1, 5), every=st.integers(1, 3))
    def test_after_a_kill_with_devices_under_way(
        self, tmp_path_factory: pytest.TempPathFactory, stop: int, every: int
    ) -> None:
        folder = tmp_path_factory.mktemp("killed")
        more = {"conditions": ROUGH, "checkpoint_every": every}
        whole, history = run(self.ALGORITHM, **more)
        with pytest.raises(KeyError):
            run(self.ALGORITHM, folder=folder, progress=_die_at(stop), **more)
        resumed, again = run(self.ALGORITHM, folder=folder, **more)
        assert torch.equal(resumed, whole)
        assert repr(again.rounds) == repr(history.rounds)


def _die_at(stop: int) -> Callable[..., None]:
    def die(stage: str, done: int, *_: Any) -> None:
        if done == stop:
            raise KeyError

    return die


class TestBadDays:
    def test_lost_late_and_faulty_devices_do_not_stop_it(self) -> None:
        bad = Conditions(dropout=0.2, deadline=1.1, nan=0.2, huge=0.15)
        w, history = run(FedBuff(50, 8, ONE_STEP, buffer=6), conditions=bad)
        problems = {name for record in history.rounds for name in record.problems}
        assert problems == {"dropped out", "late", "not finite", "too long"}
        assert all(record.returned == 6 for record in history.rounds[1:])
        assert np.linalg.norm(w.numpy() - PROBLEM.optimum) < np.linalg.norm(PROBLEM.optimum) / 2

    def test_already_the_first_step_knows_what_is_too_long(self) -> None:
        w, history = run(FedBuff(1, 15, ONE_STEP, buffer=12), conditions=Conditions(huge=0.3))
        assert history.rounds[0].problems["too long"] > 1
        assert np.linalg.norm(w) < 10

    @pytest.mark.parametrize("buffer", [1, 2, 3])
    @pytest.mark.parametrize("seed", range(4))
    def test_already_the_first_step_of_a_small_buffer_is_as_safe_as_a_round(self, buffer: int, seed: int) -> None:
        """Three of ten answers are a million times too long, and often the first of all."""
        more: dict[str, Any] = {"conditions": Conditions(huge=0.3, nan=0.1), "streams": Streams(seed)}
        w, history = run(FedBuff(1, 15, ONE_STEP, buffer=buffer), **more)
        model = Regression(3)
        train(PROBLEM, model, FedAvg(1, 15, ONE_STEP), **more)
        assert history.rounds[0].returned >= buffer
        assert np.linalg.norm(w) < 3 * np.linalg.norm(model.w.detach()) + 1

    def test_a_lost_device_keeps_its_place_until_the_deadline(self) -> None:
        one = problem([1, 5])
        late = Conditions(startup=0, speed=1, speed_spread=0, bandwidth=1e18, bandwidth_spread=0, deadline=3)
        _, history = run(FedBuff(1, 2, ONE_STEP, buffer=2), one, selection=InTurn(), conditions=late)
        (record,) = history.rounds
        assert (record.returned, record.problems, record.seconds) == (1, {"late": 1}, 3)

    def test_where_nobody_is_left_a_step_is_made_of_what_has_come(self) -> None:
        w, history = run(FedBuff(1, 2, ONE_STEP, buffer=50), conditions=CLOCKWORK)
        assert history.rounds[0].returned == len(SIZES)
        every = np.mean([-0.1 * PROBLEM.gradient(np.zeros(3), device) for device in range(len(SIZES))], axis=0)
        np.testing.assert_allclose(w, every, rtol=1e-10)

    def test_nothing_finite_is_told_of(self) -> None:
        with pytest.raises(ModelError, match="nothing finite came back from any device"):
            run(FedBuff(30, 4, ONE_STEP, buffer=2), conditions=Conditions(nan=1.0))


class TestRefusals:
    def test_privacy_whose_plan_counts_rounds(self) -> None:
        plan = FactorisedPrivacy.__new__(FactorisedPrivacy)  # whatever it is
        with pytest.raises(GuaranteeError, match="use an algorithm of rounds, such as FedAvg"):
            run(FedBuff(1, 2), privacy=plan)

    def test_over_selection(self) -> None:
        with pytest.raises(ArgumentError, match=r"'over_selection' must be 1, got 1\.5"):
            run(FedBuff(1, 2), conditions=Conditions(over_selection=1.5))

    def test_more_places_than_devices(self, tmp_path: Path) -> None:
        with pytest.raises(ArgumentError, match="'cohort' must be at most the 15 devices"):
            run(FedBuff(1, 16), folder=tmp_path)

    def test_memory_on_devices_and_other_asynchronous_algorithms(self) -> None:
        class Remembering(FedBuff):
            remembers = True

        class Other(FedAvg):
            asynchronous = True

        for algorithm in (Remembering(1, 2), Other(1, 2)):
            with pytest.raises(ArgumentError, match="'algorithm' must be FedBuff itself, with nothing around it"):
                train(PROBLEM, Regression(3), algorithm)
