from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from trustnlp.attacks.exposure import (
    Exposure,
    evaluate,
    expected_by_chance,
    exposure,
    memorisation_p_value,
    of_canary,
    score_candidates,
)
from trustnlp.data.canaries import Canary
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.results import Direction, Verdict

SPACE = 10_000
CANARY = Canary(("my", "pin", "code", "is"), tuple("407"), "ask", ("O",) * 7, repetitions=4)


def by_chance(generator, canaries, repetitions=4, space=SPACE):
    return [Exposure(int(generator.integers(1, space + 1)), space, repetitions) for _ in range(canaries)]


# One canary


@given(st.lists(st.integers(0, 5), min_size=2, max_size=30), st.data())
def test_the_rank_counts_ties_against_the_attacker(losses, data):
    index = data.draw(st.integers(0, len(losses) - 1))
    found = exposure(losses, index, repetitions=1)
    assert found.rank == 1 + sum(loss <= losses[index] for i, loss in enumerate(losses) if i != index)
    assert 0 <= found.bits <= math.log2(len(losses))


def test_exposure_is_all_bits_of_a_first_guess_and_none_of_a_constant_model():
    assert exposure(np.arange(SPACE), 0, 1).bits == pytest.approx(math.log2(SPACE))
    assert exposure(np.arange(SPACE), SPACE // 2 - 1, 1).bits == pytest.approx(1)
    assert exposure(np.zeros(SPACE), 0, 1).bits == 0


def memorised(examples):
    """A model that knows the canary's digits but for the last."""
    return [sum(a != b for a, b in zip(e.tokens[-3:], "409", strict=True)) for e in examples]


@pytest.mark.parametrize("batch", [1, 7, 1000, 5000])
def test_candidates_are_scored_in_their_order_whatever_the_batch(batch):
    sizes = []

    def loss_of(examples):
        sizes.append(len(examples))
        return memorised(examples)

    losses = score_candidates(loss_of, CANARY, batch)
    assert losses.tolist() == memorised([CANARY.example(secret) for secret in CANARY.candidates()])
    assert max(sizes) == min(batch, 1000)
    found = of_canary(losses, CANARY)
    # 409 has no error; 407 ties with 9 others of the last digit, 9 of the first and 9 of the second.
    assert (found.rank, found.candidates, found.repetitions) == (1 + 27, 1000, 4)


def test_scores_that_are_no_scores_are_refused():
    with pytest.raises(GuaranteeError, match="1 of 3 candidates"):
        exposure([1.0, float("nan"), 2.0], 0, 1)
    for losses, index in [([], 0), ([1.0], 0), ([[1.0, 2.0]], 0), ([1.0, 2.0], 2), ([1.0, 2.0], -1)]:
        with pytest.raises(ArgumentError):
            exposure(losses, index, 1)
    with pytest.raises(ArgumentError, match="one per candidate"):
        of_canary(np.zeros(10), CANARY)
    with pytest.raises(ArgumentError, match="loss_of"):
        score_candidates(lambda examples: [0.5], CANARY)
    with pytest.raises(ArgumentError, match="batch"):
        score_candidates(memorised, CANARY, 0)


# What ranks prove


@pytest.mark.parametrize("space", [2, 10, 10_000])
def test_chance_gives_its_expected_exposure(space):
    every = [Exposure(rank, space, 1).bits for rank in range(1, space + 1)]
    assert expected_by_chance(space) == pytest.approx(np.mean(every))
    assert expected_by_chance(10**9) == pytest.approx(math.log2(math.e), abs=1e-6)


def test_the_combined_p_value_is_that_of_its_definitions():
    found = [Exposure(rank, SPACE, 1) for rank in (30, 2000, 9000)]
    p_values = [0.003, 0.2, 0.9]
    fisher = stats.combine_pvalues(p_values, method="fisher").pvalue
    simes = min(3 * 0.003 / 1, 3 * 0.2 / 2, 3 * 0.9 / 3)
    assert memorisation_p_value(found) == pytest.approx(2 * min(fisher, simes))


@pytest.mark.parametrize("canaries", [1, 3, 6, 24])
@pytest.mark.parametrize("space", [10, 10_000])
def test_false_alarms_on_models_that_memorised_nothing_are_rare(canaries, space):
    generator = np.random.default_rng(canaries)
    runs = [evaluate(by_chance(generator, canaries, space=space)) for _ in range(500)]
    for place in (0, 1):
        assert np.mean([findings[place].verdict is Verdict.LEAKS for findings in runs]) <= 0.05


def test_one_canary_among_many_and_a_little_of_each_both_show():
    generator = np.random.default_rng(0)
    one = [Exposure(1, SPACE, 16), *by_chance(generator, 23)]
    each = [Exposure(int(generator.integers(1, SPACE // 4)), SPACE, 4) for _ in range(12)]
    assert evaluate(one)[0].verdict is Verdict.LEAKS
    assert evaluate(one)[1].verdict is Verdict.LEAKS
    assert evaluate(each)[0].verdict is Verdict.LEAKS
    assert evaluate(each)[1].verdict is Verdict.INSUFFICIENT_EVIDENCE


def test_the_interval_of_the_mean_exposure_covers_for_few_all_or_nothing_canaries():
    generator = np.random.default_rng(1)
    truth = 0.3 * math.log2(SPACE) + 0.7 * expected_by_chance(SPACE)
    covered = 0
    for _ in range(300):
        ranks = np.where(generator.random(5) < 0.3, 1, generator.integers(1, SPACE + 1, 5))
        finding = evaluate([Exposure(int(rank), SPACE, 1) for rank in ranks])[0]
        covered += finding.low <= truth <= finding.high
    assert covered / 300 >= 0.95


def test_few_canaries_cannot_show_that_nothing_leaks():
    middling = [Exposure(rank, SPACE, 1) for rank in (2000, 4000, 6000, 8000)]
    assert [f.verdict for f in evaluate(middling)] == [Verdict.INSUFFICIENT_EVIDENCE] * 2
    many = [Exposure(rank, SPACE, 1) for rank in range(100, SPACE, 200)]
    assert [f.verdict for f in evaluate(many)] == [Verdict.NO_LEAK_FOUND] * 2


# Findings


def test_findings_say_ranks_and_no_secrets():
    exposures = [Exposure(1, SPACE, 16), Exposure(40, SPACE, 4), Exposure(5000, SPACE, 0)]
    bits, rate = evaluate(exposures)
    assert (bits.id, bits.unit, bits.direction, bits.n) == ("canary-exposure", "bits", Direction.LOWER, 2)
    assert bits.value == pytest.approx(np.mean([math.log2(SPACE), math.log2(SPACE / 40)]))
    assert bits.ideal == pytest.approx(1.44, abs=0.01)
    assert [sorted(canary) for canary in bits.details["canaries"]] == [
        ["candidates", "exposure", "rank", "repetitions"]
    ] * 3
    assert bits.details["controls_p_value"] == pytest.approx(1.0)
    assert (rate.id, rate.value, rate.n, rate.unit) == ("canary-extraction-rate", 0.5, 2, "fraction")
    json.dumps([dict(bits.details), dict(rate.details)], allow_nan=False)


def test_exposures_that_say_nothing_are_refused():
    for exposures in ([], by_chance(np.random.default_rng(0), 3, repetitions=0)):
        with pytest.raises(ArgumentError, match="repetitions > 0"):
            evaluate(exposures)
    for broken in ((0, 10, 1), (11, 10, 1), (1, 1, 1), (1, 10, -1)):
        with pytest.raises(ArgumentError):
            Exposure(*broken)
    with pytest.raises(ArgumentError, match="margin"):
        evaluate([Exposure(1, 10, 1)], margin=1.0)
