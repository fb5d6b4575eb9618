"""User-level privacy inside a simulation: what leaves a round is bounded, noised and divided by a constant."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from convex import Regression, problem
from simulated import train

from trustnlp.dp import Ledger, accounting
from trustnlp.dp.adaptive_thresholds import Quantile
from trustnlp.errors import ArgumentError, GuaranteeError, RunError
from trustnlp.federated.algorithm import Algorithm
from trustnlp.federated.cohort import Cohort
from trustnlp.federated.conditions import Conditions
from trustnlp.federated.factorised_privacy import FactorisedPrivacy
from trustnlp.federated.fedavg import FedAvg
from trustnlp.federated.feddyn import FedDyn
from trustnlp.federated.fednova import FedNova
from trustnlp.federated.local_training import LocalTraining
from trustnlp.federated.oort import Oort
from trustnlp.federated.poisson_activity import PoissonActivity
from trustnlp.federated.private_rounds import Plan, begin, plan_for, read_ledger
from trustnlp.federated.scaffold import Scaffold
from trustnlp.federated.selection import Activity, Uniform
from trustnlp.federated.simulator import CHECKPOINT, History, Server
from trustnlp.federated.user_privacy import UserPrivacy
from trustnlp.randomness import Streams

SIZES = [3, 9, 4, 5, 6, 2, 7, 8, 1, 5]
PROBLEM = problem(SIZES, spread=0.5)
FED = FedAvg(6, 4, LocalTraining(0.05, 4))
POISSON = PoissonActivity(gamma=0.5)
RATES = POISSON.begin(np.array(SIZES)).rates(4)
PLAN = UserPrivacy(10, 6, 4.0, RATES.largest, noise_multiplier=0.8, delta=0.01, clip_norm=0.05)
FACTORISED = FactorisedPrivacy.for_budget(
    8.0, 0.01, 6, devices=10, cohort=4.0, separation=2, clip_norm=0.05, participations=3
)


def run(
    algorithm: Algorithm = FED, selection: Any = POISSON, privacy: Plan | None = PLAN, **more: Any
) -> tuple[np.ndarray, History]:
    model = Regression(3)
    history = train(PROBLEM, model, algorithm, selection=selection, privacy=privacy, **more)
    return model.w.detach().numpy().copy(), history


def test_three_rounds_by_hand() -> None:
    """Each drawn device's change is clipped; their sum with the round's noise is divided by 4, however many came."""
    streams, w = Streams(0), np.zeros(3)
    for number in range(3):
        cohort = POISSON.begin(np.array(SIZES)).select(number, 4, streams.numpy("selection", number))
        total = torch.zeros(3, dtype=torch.float64)
        for device in cohort.devices:
            own = w.copy()
            mine = PROBLEM.population.devices[device]
            for draw in FED.local.draws(len(mine), streams.numpy("batches", number, int(device))):
                x, y = PROBLEM.rows.x[mine[draw]], PROBLEM.rows.y[mine[draw]]
                own -= 0.05 * x.T @ (x @ own - y) / len(draw)
            change = own - w
            total += torch.from_numpy(change * min(1, 0.05 / np.linalg.norm(change)))
        w = w + PLAN.release(total, number, streams).numpy()
    found, _ = run(replace(FED, rounds=3))
    np.testing.assert_allclose(found, w, rtol=1e-5)


def test_nothing_of_private_texts_is_told_of_a_round() -> None:
    _, history = run(evaluate=lambda model: {"public": 1.0}, evaluate_every=2)
    for record in history.rounds:
        assert (record.cohort, record.returned, record.texts, record.largest, record.problems) == (0, 0, 0, 0, {})
        assert math.isnan(record.loss)
        assert math.isnan(record.seconds)
    assert history.figures == {"public": 1.0}


def test_a_round_without_devices_is_noised_like_any_other() -> None:
    rare = replace(FED, cohort=1)
    plan = replace(PLAN, expected_cohort=1.0, largest_rate=0.5)
    empty = [number for number in range(6) if not len(_drawn(number))]
    assert empty
    found, _ = run(replace(rare, rounds=empty[0] + 1), privacy=plan)
    before, _ = run(replace(rare, rounds=empty[0]), privacy=plan) if empty[0] else (np.zeros(3), None)
    noise = plan.release(torch.zeros(3, dtype=torch.float64), empty[0], Streams(0)).numpy()
    np.testing.assert_allclose(found - before, noise, rtol=1e-9)


def _drawn(number: int) -> np.ndarray:
    return POISSON.begin(np.array(SIZES)).select(number, 1, Streams(0).numpy("selection", number)).devices


def test_a_device_moves_the_model_by_its_clip_norm_at_most() -> None:
    """However much it sends: with and without it, the same noise leaves the models so far apart at most."""
    one = replace(FED, rounds=1)
    drawn = POISSON.begin(np.array(SIZES)).select(0, 4, Streams(0).numpy("selection", 0)).devices
    honest, _ = run(one)
    for damage in (Conditions(huge=1.0), Conditions(nan=1.0)):
        other, _ = run(one, conditions=damage)
        assert np.linalg.norm(other - honest) <= 2 * len(drawn) * 0.05 / 4 * (1 + 1e-6)
        assert np.isfinite(other).all()


def test_an_adapting_clip_norm_follows_the_votes_and_stays_on_the_server() -> None:
    plan = replace(PLAN, adapt=Quantile(0.5, 0.5), clip_norm=100.0)
    wide, _ = run(privacy=plan)
    narrow, _ = run(privacy=replace(plan, clip_norm=1e-4))
    fixed, _ = run(privacy=replace(PLAN, clip_norm=1e-4))
    assert np.linalg.norm(narrow) > np.linalg.norm(fixed)  # nearly all votes say that it is too small
    assert np.isfinite(wide).all()


@pytest.mark.parametrize(("selection", "privacy"), [(POISSON, PLAN), (Uniform("equal"), FACTORISED)])
def test_the_same_bits_with_workers_and_after_a_kill(selection: Any, privacy: Plan, tmp_path: Path) -> None:
    def die(stage: str, done: int, *_: Any) -> None:
        if done == 4:
            raise KeyError

    whole, _ = run(selection=selection, privacy=privacy)
    others, _ = run(selection=selection, privacy=privacy, workers=2)
    with pytest.raises(KeyError):
        run(selection=selection, privacy=privacy, folder=tmp_path, checkpoint_every=3, progress=die)
    resumed, _ = run(selection=selection, privacy=privacy, folder=tmp_path, checkpoint_every=3)
    assert whole.tolist() == others.tolist() == resumed.tolist()


def test_correlated_noise_takes_devices_as_seldom_as_it_paid_for() -> None:
    """Of ten devices at most once in two rounds: eight are busy, and the rest cannot fill a cohort of six."""
    found, _ = run(selection=Activity(), privacy=FACTORISED)
    assert np.isfinite(found).all()


def test_a_plan_for_a_budget_spends_it() -> None:
    plan = plan_for(8.0, 0.01, FED, POISSON, np.array(SIZES), clip_norm=0.05)
    assert 7.9 < plan.epsilon() <= 8
    assert plan.largest_rate == RATES.largest
    run(privacy=plan)


class TestRefusals:
    @pytest.mark.parametrize(("algorithm", "sent"), [(Scaffold(6, 4), "control"), (FedNova(6, 4), "reach")])
    def test_what_is_sent_beside_the_change(self, algorithm: Algorithm, sent: str) -> None:
        with pytest.raises(GuaranteeError, match=f"sends {sent} beside the change"):
            run(algorithm)

    def test_what_stays_on_devices_is_no_matter(self) -> None:
        run(FedDyn(6, 4))

    @pytest.mark.parametrize("selection", [Uniform(), Activity(), Oort()])
    def test_draws_that_are_not_independent(self, selection: Any) -> None:
        with pytest.raises(GuaranteeError, match="does not draw each device by itself"):
            run(selection=selection)

    def test_choices_by_loss(self) -> None:
        with pytest.raises(GuaranteeError, match="Oort chooses by losses of private texts"):
            run(selection=Oort(), privacy=FACTORISED)

    def test_rounds_that_end_when_enough_have_come(self) -> None:
        with pytest.raises(GuaranteeError, match="leaves out one device because of another"):
            run(conditions=Conditions(over_selection=1.5))

    def test_higher_rates_than_were_paid_for(self) -> None:
        with pytest.raises(GuaranteeError, match=r"a device is drawn with probability .* pays for"):
            run(selection=PoissonActivity(gamma=2.0))

    @pytest.mark.parametrize(
        ("plan", "said"),
        [
            (replace(PLAN, devices=11), "a plan of 10 devices, got 11"),
            (replace(PLAN, rounds=5), "a plan of at least 6 rounds, got 5"),
            (replace(PLAN, expected_cohort=5.0), "expected_cohort=4, got 5"),
            (replace(FACTORISED, cohort=5.0), "cohort=4, got 5"),
        ],
    )
    def test_a_plan_of_another_training(self, plan: Plan, said: str) -> None:
        with pytest.raises(ArgumentError, match=f"'privacy' must be .*{said}"):
            run(selection=POISSON if isinstance(plan, UserPrivacy) else Uniform("equal"), privacy=plan)


class TestLedger:
    def test_it_has_a_line_for_each_round_with_unit_adjacency_and_delta(self, tmp_path: Path) -> None:
        run(folder=tmp_path)
        header, *lines = map(json.loads, (tmp_path / "ledger.jsonl").read_text().splitlines())
        assert (header["kind"], header["plan"]["unit"], header["plan"]["adjacency"]) == (
            "UserPrivacy",
            "device",
            "add-remove",
        )
        assert lines == [
            {"step": i, "block": i, "sample_rate": PLAN.largest_rate, "noise_multiplier": 0.8} for i in range(6)
        ]
        ledger = read_ledger(tmp_path / "ledger.jsonl")
        assert (ledger.plan, ledger.spent_epsilon()) == (PLAN, PLAN.epsilon())

    def test_fewer_rounds_than_the_plan_pays_for_are_charged_as_they_were(self, tmp_path: Path) -> None:
        run(replace(FED, rounds=2), folder=tmp_path)
        assert read_ledger(tmp_path / "ledger.jsonl").spent_epsilon() == PLAN.epsilon(2) < PLAN.epsilon()

    def test_correlated_noise_is_charged_whole_with_its_first_round(self, tmp_path: Path) -> None:
        run(replace(FED, rounds=2), Uniform("equal"), FACTORISED, folder=tmp_path)
        ledger = read_ledger(tmp_path / "ledger.jsonl")
        assert (ledger.spent, ledger.plan, ledger.spent_epsilon()) == (2, FACTORISED, FACTORISED.epsilon())

    def test_a_torn_line_is_charged(self, tmp_path: Path) -> None:
        for private, selection in ((PLAN, POISSON), (FACTORISED, Uniform("equal"))):
            run(replace(FED, rounds=1), selection, private, folder=tmp_path / private.adjacency)
            path = tmp_path / private.adjacency / "ledger.jsonl"
            path.write_bytes(path.read_bytes()[:-9])
            assert read_ledger(path).spent_epsilon() == accounting.epsilon([private.event(0)], 0.01)

    def test_it_is_told_of_by_no_reader_of_other_plans(self, tmp_path: Path) -> None:
        run(folder=tmp_path)
        with pytest.raises(RunError, match="is of a UserPrivacy, and not of PrivacyPlan"):
            Ledger.read(tmp_path / "ledger.jsonl")

    @pytest.mark.parametrize("other", [replace(PLAN, noise_multiplier=0.9), FACTORISED])
    def test_a_folder_with_the_ledger_of_another_plan_is_refused(self, other: Plan, tmp_path: Path) -> None:
        run(folder=tmp_path)
        (tmp_path / CHECKPOINT).unlink()
        with pytest.raises(GuaranteeError, match=r"of (another plan|a UserPrivacy), and their privacy"):
            run(
                selection=POISSON if isinstance(other, UserPrivacy) else Uniform("equal"),
                privacy=other,
                folder=tmp_path,
            )

    def test_what_is_refused_leaves_no_ledger(self, tmp_path: Path) -> None:
        with pytest.raises(GuaranteeError, match="does not draw each device by itself"):
            run(selection=Uniform(), folder=tmp_path)
        assert not list(tmp_path.iterdir())

    def test_two_plans_share_no_noise_whatever_the_seed(self) -> None:
        zeros = torch.zeros(5)
        first, other = (p.release(zeros, 0, Streams(1)) for p in (PLAN, replace(PLAN, noise_multiplier=1.6)))
        assert not torch.allclose(2 * first, other)


class TestGoingOn:
    """A run that was killed after its third round was charged and before it was kept."""

    def lose(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **more: Any) -> None:
        def killed(self: Server, path: Path) -> None:
            if self.number == 3:
                raise KeyError
            kept(self, path)

        kept = Server.save
        with monkeypatch.context() as patch:
            patch.setattr(Server, "save", killed)
            with pytest.raises(KeyError):
                run(folder=folder, **more)

    @pytest.mark.parametrize("noise", ["seeded", "secure"])
    def test_no_round_is_released_twice(self, noise: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[int] = []
        release = UserPrivacy.release

        def told(self: UserPrivacy, total: Any, round: int, *more: Any) -> Any:
            asked.append(round)
            return release(self, total, round, *more)

        monkeypatch.setattr(UserPrivacy, "release", told)
        private = replace(PLAN, noise=noise)
        self.lose(tmp_path, monkeypatch, privacy=private)
        found, history = run(privacy=private, folder=tmp_path, evaluate=lambda model: {"public": 1.0})
        assert asked == [0, 1, 2, 3, 4, 5]
        assert [record.number for record in history.rounds] == asked
        assert history.figures == {"public": 1.0}
        assert np.isfinite(found).all()
        assert read_ledger(tmp_path / "ledger.jsonl").spent_epsilon() == private.epsilon()

    def test_correlated_noise_cannot_do_without_a_lost_round(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given: dict[str, Any] = {"selection": Uniform("equal"), "privacy": FACTORISED}
        self.lose(tmp_path, monkeypatch, **given)
        with pytest.raises(GuaranteeError, match="round 2 was charged, and a kill has lost"):
            run(folder=tmp_path, **given)

    @pytest.mark.parametrize(
        ("private", "selection"),
        [(replace(PLAN, noise="secure"), POISSON), (replace(FACTORISED, noise="secure"), Uniform("equal"))],
    )
    def test_secure_noise_goes_on_between_rounds(self, private: Plan, selection: Any, tmp_path: Path) -> None:
        def die(stage: str, done: int, *_: Any) -> None:
            if done == 4:
                raise KeyError

        with pytest.raises(KeyError):
            run(selection=selection, privacy=private, folder=tmp_path, progress=die)
        found, history = run(selection=selection, privacy=private, folder=tmp_path)
        assert len(history.rounds) == 6
        assert np.isfinite(found).all()

    def test_a_ledger_without_checkpoint_or_the_reverse(self, tmp_path: Path) -> None:
        run(folder=tmp_path)
        ledger = (tmp_path / "ledger.jsonl").read_bytes()
        (tmp_path / "ledger.jsonl").unlink()
        with pytest.raises(GuaranteeError, match="made after 6 rounds, but the ledger knows of 0"):
            run(folder=tmp_path)
        (tmp_path / "ledger.jsonl").write_bytes(ledger)
        (tmp_path / CHECKPOINT).unlink()
        with pytest.raises(GuaranteeError, match="all 6 rounds are spent, and no checkpoint"):
            run(folder=tmp_path)

    def test_two_processes_cannot_train_one_run(self, tmp_path: Path) -> None:
        """Each would draw the same noise for sums of its own."""
        rounds = begin(PLAN, FED, POISSON, POISSON.begin(np.array(SIZES)), Conditions(), 10, Streams(0), tmp_path)
        run(folder=tmp_path)
        with pytest.raises(GuaranteeError, match="changed by another process"):
            rounds.release({}, 0, Cohort(np.array([], dtype=np.int64), np.array([])), torch.zeros(3))
