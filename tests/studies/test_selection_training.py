from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trustnlp.data.corpus import Corpus, Example
from trustnlp.errors import ModelError
from trustnlp.federated.continual import AllAtOnce, of_corpus
from trustnlp.studies import selection_training
from trustnlp.studies.device_selection import ARMS, BASELINE, CLAIMED
from trustnlp.studies.selection_training import Scale, Training, chance, curves

TINY = Scale(2, 1, (2.0, 4.0), 4, 3, 2, 12, 60, 2, 40)


def training(setting: str = "static", arm: str = BASELINE, scale: Scale = TINY, seed: int = 0) -> Training:
    return Training(None, setting, next(each for each in ARMS if each.name == arm), 2.0, seed, scale)


def test_an_arm_and_the_baseline_see_the_same_devices() -> None:
    one, other = (training(arm=arm)._periods() for arm in (BASELINE, CLAIMED))
    np.testing.assert_array_equal(one.sizes(0), other.sizes(0))
    assert one.test(0) == other.test(0)
    assert (training(seed=1)._periods().sizes(0) != one.sizes(0)).any()


@pytest.mark.parametrize("arm", ["uniform, larger cohort", "uniform, more epochs"])
def test_matched_arms_train_on_as_many_texts_a_round_as_gamma_1(arm: str) -> None:
    asked = training(arm=arm, scale=Scale(users=200, texts=2_000))
    periods = asked._periods()
    algorithm, sizes = asked._algorithm(periods), periods.sizes(0)
    sizes = sizes[sizes > 0].astype(float)
    by_activity = 20 * (sizes**2).sum() / sizes.sum()
    assert algorithm.cohort * algorithm.local.epochs * sizes.mean() == pytest.approx(by_activity, rel=0.2)
    baseline = training(scale=asked.scale)._algorithm(periods)
    assert (baseline.cohort, baseline.local.epochs) == (20, 1)


def test_both_settings_have_as_many_rounds() -> None:
    for setting, periods in (("static", 1), ("continual", 2)):
        asked = training(setting)
        assert asked._algorithm(asked._periods()).rounds * periods == TINY.rounds


def test_a_training_that_diverges_never_reaches_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(*_: Any, **__: Any) -> None:
        raise ModelError("no longer finite")

    monkeypatch.setattr(selection_training, "learn", diverge)
    given = training("continual").run(tmp_path)
    assert given["diverged"] == 1
    assert [curve.scores.tolist() for curve in curves(given)] == [[0.0], [0.0]]
    assert all(curve.rounds[-1] == 2 for curve in curves(given))


def test_a_corpus_with_users_and_times_is_learned_in_both_settings(tmp_path: Path) -> None:
    examples = tuple(
        Example(f"{word} it {i}", label, user=f"u{i % 6}", time=float(i))
        for i, (word, label) in enumerate([("play", "music"), ("call", "phone")] * 30)
    )
    corpus = Corpus("c", examples, test=examples[::3])
    for setting, periods in (("static", 1), ("continual", 2)):
        given = Training(corpus, setting, ARMS[0], 2.0, 0, TINY).run(tmp_path / setting)
        assert len(curves(given)) == periods
        assert given["scores"].shape == (periods, 2)
        assert given["chance"] == 0.5


def test_chance_is_the_share_of_the_most_frequent_label() -> None:
    train = tuple(Example(f"t{i}", "a", user="u", time=float(i)) for i in range(4))
    test = tuple(Example(f"e{i}", label, user="u", time=0.0 if i < 4 else 3.0) for i, label in enumerate("aaabab"))
    periods = of_corpus(Corpus("c", train, test=test), 2)
    assert chance(periods) == chance(AllAtOnce(periods)) == pytest.approx((3 / 4 + 1 / 2) / 2)
