"""Rounds on devices: the same bits for any number of workers and after any kill; bad answers never reach the server."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from convex import Problem, Regression, problem
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import train

from trustnlp.errors import ArgumentError, ModelError, RunError
from trustnlp.federated.algorithm import Algorithm
from trustnlp.federated.conditions import Conditions
from trustnlp.federated.fedavg import FedAvg
from trustnlp.federated.fedopt import FedOpt
from trustnlp.federated.local_training import LocalTraining
from trustnlp.federated.oort import Oort
from trustnlp.federated.population import Partitioned
from trustnlp.federated.power_of_choice import PowerOfChoice
from trustnlp.federated.scaffold import Scaffold
from trustnlp.federated.selection import Activity, Uniform
from trustnlp.federated.simulator import BLOCK, CHECKPOINT, History
from trustnlp.randomness import Streams

SIZES = [3, 9, 4, 5, 6, 2, 7, 8, 1, 5, 6, 3, 12, 4, 5, 6, 7, 8, 9, 2]
PROBLEM = problem(SIZES, spread=0.5)
LOCAL = LocalTraining(0.05, 4)
ROUGH = Conditions(availability=0.8, dropout=0.3, deadline=4.0, over_selection=1.3)


def run(algorithm: Algorithm, given: Problem = PROBLEM, **more: Any) -> tuple[torch.Tensor, History]:
    model = Regression(3)
    history = train(given, model, algorithm, **more)
    assert not model.training
    return model.w.detach().clone(), history


class TestRounds:
    def test_a_round_adds_up_the_cohort(self) -> None:
        """More devices than a block holds, all of them, weighted by texts: one step of descent."""
        assert len(SIZES) > 2 * BLOCK
        w, history = run(FedAvg(1, len(SIZES), LocalTraining(0.1, 16)))
        every = np.average([PROBLEM.gradient(np.zeros(3), k) for k in range(len(SIZES))], axis=0, weights=SIZES)
        np.testing.assert_allclose(w, -0.1 * every, rtol=1e-10)
        (record,) = history.rounds
        assert (record.cohort, record.returned, record.texts, record.largest) == (20, 20, sum(SIZES), 12)
        assert record.loss == pytest.approx((PROBLEM.rows.y**2 / 2).mean(), rel=1e-10)

    def test_importance_weights_need_not_add_up_to_one(self) -> None:
        selection = Activity(gamma=0.5, weighting="importance")
        cohort = selection.begin(np.array(SIZES)).select(0, 5, Streams(0).numpy("selection", 0))
        assert cohort.weights.sum() != pytest.approx(1)
        w, _ = run(FedAvg(1, 5, LocalTraining(0.1, 16)), selection=selection)
        gradients = [PROBLEM.gradient(np.zeros(3), k) for k in cohort.devices]
        np.testing.assert_allclose(w, -0.1 * cohort.weights @ gradients, rtol=1e-10)

    def test_figures_are_of_the_servers_weights(self) -> None:
        seen = []

        def evaluate(model: torch.nn.Module) -> dict[str, float]:
            seen.append(model.w.detach().clone())
            return {"first": float(model.w.detach()[0])}

        w, history = run(FedAvg(5, 3, LOCAL), evaluate=evaluate, evaluate_every=2)
        assert [bool(record.figures) for record in history.rounds] == [False, True, False, True, True]
        assert torch.equal(seen[-1], w)
        assert history.figures == {"first": float(w[0])}

    @pytest.mark.parametrize("selection", [Uniform(), Activity(), Oort(), PowerOfChoice(6)])
    def test_every_selection_rule_brings_the_loss_down(self, selection: Any) -> None:
        _, history = run(FedAvg(40, 5, LOCAL), selection=selection)
        losses = [record.loss for record in history.rounds]
        assert np.mean(losses[-5:]) < np.mean(losses[:3]) / 2


class TestSameBits:
    def test_for_any_number_of_workers(self) -> None:
        algorithm = Scaffold(3, 18, LOCAL)  # three blocks, and devices that remember
        one, history = run(algorithm, conditions=ROUGH)
        three, others = run(algorithm, conditions=ROUGH, workers=3)
        assert torch.equal(one, three)
        assert history == others

    @settings(max_examples=12, deadline=None)
    @given(stop=st.integers(1, 9), kind=st.sampled_from(["scaffold", "adam", "oort"]))
    def test_after_a_kill_at_any_round(self, tmp_path_factory: pytest.TempPathFactory, stop: int, kind: str) -> None:
        folder = tmp_path_factory.mktemp("killed")
        algorithm = {"scaffold": Scaffold(10, 6, LOCAL), "adam": FedOpt(10, 6, LOCAL, 0.1)}.get(
            kind, FedAvg(10, 6, LOCAL)
        )
        selection = Oort() if kind == "oort" else Uniform()
        more = {"selection": selection, "conditions": ROUGH, "checkpoint_every": 3}

        def die(stage: str, done: int, *_: Any) -> None:
            if done == stop:
                raise KeyError  # as sudden as a kill: nothing is written any more

        whole, history = run(algorithm, **more)
        with pytest.raises(KeyError):
            run(algorithm, folder=folder, progress=die, **more)
        resumed, again = run(algorithm, folder=folder, **more)
        assert torch.equal(resumed, whole)
        assert _rounds(again) == _rounds(history)

    def test_a_finished_one_is_only_read(self, tmp_path: Path) -> None:
        w, history = run(FedAvg(4, 3, LOCAL), folder=tmp_path)
        stages: list[int] = []
        again, same = run(FedAvg(4, 3, LOCAL), folder=tmp_path, progress=lambda _, done, *__: stages.append(done))
        assert torch.equal(w, again)
        assert history == same
        assert stages == []

    def test_another_simulation_does_not_go_on_in_the_folder(self, tmp_path: Path) -> None:
        run(FedAvg(4, 3, LOCAL), folder=tmp_path)
        for other in (
            {"streams": Streams(1)},
            {"selection": Activity()},
            {"conditions": ROUGH},
            {"given": problem([*SIZES[:-1], 3])},
        ):
            with pytest.raises(RunError, match=f"{CHECKPOINT} is of another simulation"):
                run(FedAvg(4, 3, LOCAL), folder=tmp_path, **other)
        with pytest.raises(RunError, match="another simulation"):
            run(FedAvg(4, 3, replace(LOCAL, rate=0.1)), folder=tmp_path)


class TestBadDays:
    def test_lost_late_and_faulty_devices_do_not_stop_the_training(self) -> None:
        bad = Conditions(dropout=0.3, deadline=1.08, over_selection=1.5, nan=0.1, huge=0.1)
        w, history = run(FedAvg(60, 6, LOCAL), conditions=bad)
        problems = {name for record in history.rounds for name in record.problems}
        assert problems >= {"dropped out", "late", "not finite", "too long"}
        assert np.linalg.norm(w.numpy() - PROBLEM.optimum) < np.linalg.norm(PROBLEM.optimum) / 3
        assert all(record.returned <= record.cohort for record in history.rounds)

    def test_those_who_come_back_speak_for_the_others(self) -> None:
        """With equal devices the step is as long as if nobody were missing."""
        same = problem([5] * 10)
        same.rows.x[:], same.rows.y[:] = same.rows.x[:1], same.rows.y[:1]
        whole, _ = run(FedAvg(1, 10, LOCAL), same)
        part, history = run(FedAvg(1, 10, LOCAL), same, conditions=Conditions(dropout=0.5))
        assert 0 < history.rounds[0].returned < 10
        torch.testing.assert_close(part, whole)

    def test_already_the_first_round_knows_what_is_too_long(self) -> None:
        some = Conditions(huge=0.3)
        w, history = run(FedAvg(1, 20, LOCAL), conditions=some)
        assert history.rounds[0].problems["too long"] > 1
        assert np.linalg.norm(w) < 10

    def test_a_round_from_which_nobody_returns_changes_nothing(self) -> None:
        w, history = run(FedAvg(3, 4, LOCAL), conditions=Conditions(nan=1.0))
        assert w.tolist() == [0, 0, 0]
        assert [record.problems for record in history.rounds] == [{"not finite": 4}] * 3
        assert all(math.isnan(record.loss) for record in history.rounds)

    def test_a_server_that_diverges_says_so(self) -> None:
        with pytest.raises(ModelError, match="no longer finite after round 0; lower server_rate"):
            run(FedAvg(1, 4, LocalTraining(50.0, 16), server_rate=1.7e308))

    def test_weights_at_which_no_gradient_is_finite_are_told_of(self) -> None:
        with pytest.raises(ModelError, match=r"in 20 rounds to round 19 nothing finite came back from any device"):
            run(FedAvg(30, 4, LOCAL), conditions=Conditions(nan=1.0))


class TestArguments:
    def test_more_devices_than_there_are(self) -> None:
        few = Partitioned(PROBLEM.rows, (np.arange(3), np.array([], dtype=np.int64)))
        with pytest.raises(ArgumentError, match="'cohort' must be at most the 1 devices that have texts, got 2"):
            run(FedAvg(1, 2), replace(PROBLEM, population=few))

    @pytest.mark.parametrize("name", ["workers", "evaluate_every", "checkpoint_every"])
    def test_at_least_one(self, name: str) -> None:
        with pytest.raises(ArgumentError, match=f"'{name}' must be a whole number >= 1"):
            run(FedAvg(1, 1), **{name: 0})


def _rounds(history: History) -> list[tuple[object, ...]]:
    return [
        (record.number, record.returned, record.problems, record.texts, repr(record.loss)) for record in history.rounds
    ]
