from __future__ import annotations

import numpy as np
import pytest

from trustnlp.attacks import blind
from trustnlp.errors import ArgumentError
from trustnlp.results import Direction, Verdict

WORDS = [f"{a}{b}" for a in ("pla", "sto", "wea", "bo", "ra", "tu", "mi") for b in ("y", "p", "ther", "ok", "te", "ne")]


def texts(seed, n, extra=(), share=0.0):
    """n texts of 3 to 9 random words; a share of them also holds a word of `extra`."""
    generator = np.random.default_rng(seed)
    drawn = [" ".join(generator.choice(WORDS, generator.integers(3, 10))) for _ in range(n)]
    return [f"{t} {generator.choice(extra)}" if generator.random() < share else t for t in drawn]


def judge(members, nonmembers, seed=0, **options):
    return blind.check(members, nonmembers, generator=np.random.default_rng(seed), **options)


def test_an_unbiased_split_passes():
    finding = judge(texts(0, 600), texts(1, 600))
    assert (finding.id, finding.regime, finding.ideal) == ("blind-classifier-auc", "", 0.5)
    assert finding.direction is Direction.LOWER
    assert finding.verdict is Verdict.NO_BIAS_FOUND
    assert finding.low <= 0.5 <= finding.high < 0.6
    assert finding.n == 600  # half of either side is judged


def test_false_alarms_on_unbiased_splits_are_rare():
    runs, alarms = 120, 0
    for seed in range(runs):
        alarms += judge(texts(2 * seed, 50), texts(2 * seed + 1, 50), seed).verdict is Verdict.BIASED_SPLIT
    assert alarms / runs <= 0.06  # 2.5% are nominal


@pytest.mark.slow
def test_false_alarms_on_unbiased_splits_are_rare_in_many_runs():
    alarms = [judge(texts(2 * s, 100), texts(2 * s + 1, 100), s).verdict is Verdict.BIASED_SPLIT for s in range(800)]
    assert np.mean(alarms) <= 0.035


@pytest.mark.parametrize(
    "biased",
    [
        texts(1, 500, extra=["2024", "covid"], share=0.4),
        [f"{text} {text}" for text in texts(1, 500)],
        [text.upper() if i % 2 else text.replace("ok", "okay") for i, text in enumerate(texts(1, 500))],
    ],
    ids=["words", "lengths", "spelling"],
)
def test_a_planted_bias_is_found(biased):
    finding = judge(texts(0, 500), biased)
    assert finding.verdict is Verdict.BIASED_SPLIT
    assert finding.value > 0.55


def test_twins_are_left_out_as_both_halves_would_hold_them():
    generator = np.random.default_rng(0)
    members, nonmembers = (
        [f"{text} {generator.integers(1000)}" for text in texts(seed, 120) for _ in range(5)] for seed in (0, 1)
    )
    finding = judge(members, nonmembers)
    assert finding.details["duplicates_left_out"] == 2 * 4 * 120
    assert (finding.details["members"], finding.details["nonmembers"]) == (120, 120)
    assert finding.verdict is not Verdict.BIASED_SPLIT
    scores = blind._judged_scores(members, nonmembers, generator)
    assert blind.auc(*scores)[0] > 0.8  # what would be found if twins were kept


def test_few_texts_show_nothing_either_way():
    finding = judge(texts(0, 500), texts(1, 39))
    assert finding.value is None
    assert finding.verdict is Verdict.INSUFFICIENT_EVIDENCE
    assert "40" in finding.details["reason"]
    verdicts = {judge(texts(2 * s, 50), texts(2 * s + 1, 50)).verdict for s in range(20)}
    assert Verdict.INSUFFICIENT_EVIDENCE in verdicts


def test_the_same_generator_gives_the_same_finding_and_no_text_is_in_it():
    members, nonmembers = texts(0, 100), texts(1, 100)
    finding = judge(members, nonmembers)
    assert finding == judge(members, nonmembers)
    assert not any(word in str(finding.details.values()) for word in WORDS)


def test_wrong_arguments_are_refused():
    for options in ({"margin": 0.5}, {"level": 1.0}):
        with pytest.raises(ArgumentError):
            judge(texts(0, 50), texts(1, 50), **options)
    with pytest.raises(ArgumentError, match="nonmembers"):
        judge(texts(0, 50), [])
