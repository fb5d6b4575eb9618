"""Periods one after another: who can train on what, the same bits after any kill, both settings by one function."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from convex import Regression, Rows
from hypothesis import given, settings
from hypothesis import strategies as st
from periods import SIZES, Numbers, encode, score

from trustnlp import models
from trustnlp.data.corpus import Corpus, Example
from trustnlp.data.synthetic import Parameters
from trustnlp.data.synthetic_devices import SyntheticDevices
from trustnlp.errors import ArgumentError, CorpusError
from trustnlp.federated.algorithm import Algorithm
from trustnlp.federated.continual import UNKNOWN, AllAtOnce, Course, kept, learn, of_corpus, population
from trustnlp.federated.fedavg import FedAvg
from trustnlp.federated.fedopt import FedOpt
from trustnlp.federated.local_training import LocalTraining
from trustnlp.federated.oort import Oort
from trustnlp.federated.scaffold import Scaffold
from trustnlp.federated.selection import Uniform
from trustnlp.randomness import Streams

LOCAL = LocalTraining(0.1, 4)


def run(algorithm: Algorithm, periods: Any = None, **more: Any) -> tuple[torch.Tensor, Course]:
    model = Regression(3)
    fixed = {"encode": encode, "score": score, "streams": Streams(0), "evaluate_every": 2} | more
    course = learn(periods or Numbers(), model, algorithm, **fixed)
    return model.w.detach().clone(), course


class TestWhatIsOnADevice:
    @pytest.mark.parametrize("replay", [0, 1, 3])
    def test_census_of_deleted_texts(self, replay: int) -> None:
        """In each period every device trains on its own texts and on at most `replay` of its earlier ones."""
        seen: list[list[str]] = []

        def watch(examples: Sequence[Example], for_training: bool = False) -> Rows:
            if for_training:
                seen.append([example.text for example in examples])
            return encode(examples)

        visits = []
        for period in range(3):
            own = Streams(0)
            there = population(Numbers(), period, encode=watch, streams=own, replay=replay)
            for device in np.flatnonzero(there.sizes):
                seen.clear()
                assert len(there.data(int(device))) == there.sizes[device]
                visits.append((period, int(device), seen[0]))
        for period, device, texts in visits:
            owners = [tuple(map(int, text.split()[1:3])) for text in texts]
            assert {who for _, who in owners} == {device}
            assert all(when <= period for when, _ in owners)
            assert len(set(texts)) == len(texts)
            ages = Counter(when == period for when, _ in owners)
            past = SIZES[:period, device].sum()
            assert ages[True] == SIZES[period, device]
            assert ages[False] == min(past, replay)

    @pytest.mark.parametrize("replay", [0, 2])
    def test_census_of_a_whole_course(self, replay: int) -> None:
        """While a period is learned nothing else is encoded, whoever is visited however often."""
        period, old = 0, set()

        def watch(examples: Sequence[Example], for_training: bool = False) -> Rows:
            for example in examples if for_training else ():
                _, when, device, _ = example.text.split()
                assert int(when) <= period
                if int(when) < period:
                    old.add((period, device, example.text))
            return encode(examples)

        def follow(stage: str, done: int, total: int, figures: Any) -> None:
            nonlocal period
            period = int(stage.split()[1]) - 1 + (done == total)

        run(FedAvg(6, 3, LOCAL), encode=watch, replay=replay, progress=follow)
        most = Counter((when, device) for when, device, _ in old)
        assert max(most.values(), default=0) == replay

    def test_reservoir_keeps_each_text_as_often(self) -> None:
        """Of device 3, which had 4 and 2 texts, 2 of these 6 are kept, each as often."""
        counts = Counter(example.text for seed in range(3_000) for example in kept(Numbers(), 2, 3, 2, Streams(seed)))
        assert len(counts) == 6
        share = np.array(list(counts.values())) / 3_000
        assert np.abs(share - 2 / 6).max() < 4 * np.sqrt(2 / 6 * 4 / 6 / 3_000)

    def test_what_was_dropped_does_not_come_back(self) -> None:
        for seed in range(50):
            first = {example.text for example in kept(Numbers(), 1, 3, 2, Streams(seed))}
            later = {example.text for example in kept(Numbers(), 2, 3, 2, Streams(seed)) if " 0 3 " in example.text}
            assert later <= first

    def test_everything_is_kept_where_the_budget_is_large(self) -> None:
        every = [*Numbers().texts(0, 3), *Numbers().texts(1, 3)]
        assert kept(Numbers(), 2, 3, 100, Streams(0)) == every

    def test_all_at_once_is_every_text(self) -> None:
        whole = AllAtOnce(Numbers())
        np.testing.assert_array_equal(whole.sizes(0), SIZES.sum(0))
        assert [len(whole.texts(0, device)) for device in range(4)] == SIZES.sum(0).tolist()
        assert (len(whole), whole.tests) == (1, 3)


class TestCourse:
    def test_a_model_that_forgets_by_construction(self) -> None:
        """Each period's truth replaces the last, so that what was learned is lost: R has a diagonal of ones."""
        _, course = run(FedAvg(80, 3, LOCAL))
        assert course.scores.shape == (3, 3)
        assert (course.scores.diagonal() > 0.97).all()
        assert (course.scores[np.tril_indices(3, -1)] < 0.7).all()
        _, remembering = run(FedAvg(80, 3, LOCAL), replay=100)
        assert remembering.scores[2].mean() > course.scores[2].mean()

    def test_static_is_one_period_of_all_texts_on_the_same_tests(self) -> None:
        _, course = run(FedAvg(20, 3, LOCAL), AllAtOnce(Numbers()))
        assert course.scores.shape == (1, 3)
        (curve,) = course.curves
        np.testing.assert_array_equal(curve.rounds, range(2, 21, 2))
        assert curve.scores[-1] == pytest.approx(course.scores.mean())

    def test_curves_are_of_each_periods_own_test(self) -> None:
        _, course = run(FedAvg(6, 3, LOCAL))
        assert [curve.rounds.tolist() for curve in course.curves] == [[2, 4, 6]] * 3
        assert [curve.scores[-1] for curve in course.curves] == course.scores.diagonal().tolist()
        for curve, history in zip(course.curves, course.histories, strict=True):
            assert curve.texts[-1] == sum(record.texts for record in history.rounds)
        assert course.largest == np.mean([r.largest for history in course.histories for r in history.rounds])

    def test_one_period_is_the_simulation(self) -> None:
        """With a single period nothing but its name distinguishes the two settings."""
        one = Numbers(SIZES[:1])
        continual, static = run(FedAvg(5, 3, LOCAL), one), run(FedAvg(5, 3, LOCAL), AllAtOnce(one))
        assert torch.equal(continual[0], static[0])

    @pytest.mark.parametrize("algorithm", [FedOpt(6, 3, LOCAL, 0.1), Scaffold(6, 3, LOCAL)])
    def test_state_is_carried_or_begun_anew(self, algorithm: Algorithm) -> None:
        carried, fresh = run(algorithm)[0], run(algorithm, carry=False)[0]
        assert not torch.equal(carried, fresh)
        nothing = FedAvg(6, 3, LOCAL)
        assert torch.equal(run(nothing)[0], run(nothing, carry=False)[0])

    def test_carried_momentum_goes_on(self) -> None:
        """A hand-computed case: the direction of the first period still moves the first step of the second."""
        two = Numbers(np.array([[2, 0], [0, 2]]))
        momentum = FedOpt(1, 1, LocalTraining(0.1, 4), 1.0, optimiser="momentum", beta1=0.5)
        first = run(momentum, Numbers(two.given[:1]))[0]
        carried, fresh = run(momentum, two)[0], run(momentum, two, carry=False)[0]
        torch.testing.assert_close(carried - fresh, 0.5 * first)

    @settings(max_examples=6, deadline=None)
    @given(stop=st.integers(1, 14), kind=st.sampled_from(["scaffold", "adam", "oort"]))
    def test_same_bits_after_a_kill_in_any_round(
        self, tmp_path_factory: pytest.TempPathFactory, stop: int, kind: str
    ) -> None:
        folder = tmp_path_factory.mktemp("killed")
        algorithm = {"scaffold": Scaffold(5, 3, LOCAL), "adam": FedOpt(5, 3, LOCAL, 0.1)}.get(kind, FedAvg(5, 3, LOCAL))
        more = {"selection": Oort() if kind == "oort" else Uniform(), "checkpoint_every": 2, "replay": 1}
        rounds = 0

        def die(*_: Any) -> None:
            nonlocal rounds
            rounds += 1
            if rounds == stop:
                raise KeyError

        whole, course = run(algorithm, **more)
        with pytest.raises(KeyError):
            run(algorithm, folder=folder, progress=die, **more)
        resumed, again = run(algorithm, folder=folder, **more)
        assert torch.equal(resumed, whole)
        np.testing.assert_array_equal(again.scores, course.scores)

    def test_a_selector_that_remembers_devices_never_chooses_those_that_left(self) -> None:
        """Oort has seen device 1 in the first period; it is not there in the others."""
        _, course = run(FedAvg(8, 3, LOCAL), selection=Oort())
        assert all(record.cohort == 3 for history in course.histories for record in history.rounds)

    @pytest.mark.slow
    def test_same_bits_for_any_number_of_workers(self) -> None:
        one, _ = run(Scaffold(3, 3, LOCAL), replay=1)
        two, _ = run(Scaffold(3, 3, LOCAL), replay=1, workers=2)
        assert torch.equal(one, two)

    def test_a_language_model_learns_from_synthetic_devices(self) -> None:
        made = SyntheticDevices(Parameters(120, 12, periods=2, canaries=False), churn=0.25, test_size=30)
        schema = Corpus("synthetic", tuple(Example("x", label) for label in made.labels))
        small = {"width": 8, "hidden": 4, "char_filters": 0, "buckets": 64}
        model = models.build("bilstm", schema, streams=Streams(0), **small)
        course = learn(made, model, FedAvg(2, 4), streams=Streams(0), evaluate_every=1)
        assert course.scores.shape == (2, 2)
        assert all(0 <= value <= 1 for value in course.scores.ravel())

    def test_more_devices_than_there_are_is_refused(self) -> None:
        with pytest.raises(ArgumentError, match="cohort"):
            run(FedAvg(2, 4, LOCAL))


class TestCorpus:
    def test_periods_are_by_time_and_devices_by_user(self) -> None:
        train = tuple(Example(f"t{i}", "a", user=f"u{i % 3}", time=float(i)) for i in range(12))
        test = tuple(Example(f"e{i}", "a", user=f"u{i}", time=time) for i, time in enumerate((-1.0, 4.5, 7.9, 8.0, 99)))
        periods = of_corpus(Corpus("c", train, test=test), 3)
        assert [periods.sizes(period).tolist() for period in range(3)] == [[2, 1, 1], [1, 2, 1], [1, 1, 2]]
        texts = [[e.text for k in range(3) for e in periods.texts(p, k)] for p in range(3)]
        assert [sorted(each, key=lambda text: int(text[1:])) for each in texts] == [
            [f"t{i}" for i in range(4 * p, 4 * p + 4)] for p in range(3)
        ]
        assert all(e.user == f"u{k}" for p in range(3) for k in range(3) for e in periods.texts(p, k))
        assert [[e.text for e in periods.test(p)] for p in range(3)] == [["e0"], ["e1", "e2"], ["e3", "e4"]]
        assert [periods.device_of(user) for user in ("u0", "u2", "u9")] == [0, 2, UNKNOWN]

    def test_a_period_without_test_texts_is_refused(self) -> None:
        train = tuple(Example(f"t{i}", "a", user="u", time=float(i)) for i in range(4))
        test = (Example("e", "a", user="u", time=0.0),)
        with pytest.raises(CorpusError, match=r"periods \[1\]"):
            of_corpus(Corpus("c", train, test=test), 2)
        with pytest.raises(CorpusError, match="no time"):
            of_corpus(Corpus("c", train, test=(Example("e", "a"),)), 2)
