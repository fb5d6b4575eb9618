from __future__ import annotations

import numpy as np
import pytest

from trustnlp.attacks import one_run, two_sample
from trustnlp.attacks.false_alarms import FalseAlarms, count, tossed
from trustnlp.attacks.lower_bound import LowerBound
from trustnlp.attacks.trade_off import gaussian_epsilon
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.randomness import Streams
from trustnlp.results import Verdict

STREAMS = Streams(4)
DELTA = 1e-5


def by_one_run(**options):
    def bound(scores, included, generator):
        return one_run.from_scores(scores, included, delta=DELTA, generator=generator, **options)

    return bound


def by_two_samples(**options):
    def bound(scores, included, generator):
        return two_sample.lower_bound(scores[included], scores[~included], delta=DELTA, generator=generator, **options)

    return bound


ONE_RUN = [
    by_one_run(analysis=analysis, guesses=guesses, sides=sides)
    for analysis in ("f-dp", "binomial", "approximate")
    for guesses in (None, 60)
    for sides in ("both", "top")
]
TWO_SAMPLE = [
    by_two_samples(analysis=analysis, correction=correction)
    for analysis in ("joint", "clopper-pearson", "gaussian")
    for correction in ("bonferroni", "split")
]


def gaussian(canaries, mu):
    """Independent canaries behind N(0, 1) noise: mu-Gaussian privacy, exactly."""

    def draw(generator):
        included = generator.random(canaries) < 0.5
        return mu * included + generator.normal(size=canaries), included

    return draw


@pytest.mark.parametrize("bound", ONE_RUN + TWO_SAMPLE)
def test_bounds_on_a_model_that_saw_nothing_are_rarely_above_zero(bound):
    found = count(bound, gaussian(100, 0.0), runs=800, streams=STREAMS)
    assert found.rate <= 0.05
    assert found.nominal == pytest.approx(0.05)


@pytest.mark.parametrize("bound", ONE_RUN + TWO_SAMPLE)
def test_bounds_on_a_leaky_model_are_rarely_above_the_truth(bound):
    found = count(bound, gaussian(100, 1.5), runs=30, streams=STREAMS, truth=gaussian_epsilon(1.5, DELTA))
    assert found.interval().low <= 0.05


def test_scores_of_a_null_model_are_tossed_anew():
    scores = STREAMS.numpy("scores").normal(size=300)
    drawn = [tossed(scores)(STREAMS.numpy("coins", run)) for run in range(200)]
    assert all((again == scores).all() for again, _ in drawn)
    assert np.mean([coins.mean() for _, coins in drawn]) == pytest.approx(0.5, abs=0.01)
    assert count(by_one_run(analysis="binomial"), tossed(scores), runs=300, streams=STREAMS).rate <= 0.05
    with pytest.raises(GuaranteeError, match="scores"):
        tossed([0.0, float("inf")])


def test_a_dishonest_bound_is_found_out():
    def dishonest(scores, included, generator):
        """Tries every number of guesses, and pays for none."""
        ordered = included[np.argsort(-scores)]
        best = max(
            one_run.lower_bound(
                one_run._right(ordered, guesses, "both"), guesses, len(scores), delta=0.0, analysis="binomial"
            ).epsilon
            for guesses in range(10, len(scores) + 1, 10)
        )
        return LowerBound(best, 9.0, 0.95, 0.0, len(scores), "unpaid")

    found = count(dishonest, gaussian(200, 0.0), runs=200, streams=STREAMS).finding()
    assert found.verdict is Verdict.VIOLATED
    assert found.id == "false-alarm-rate-unpaid"
    assert found.low > 0.05


def test_verdicts_need_enough_runs():
    assert FalseAlarms(9, 300, 0.05, "m").finding().verdict is Verdict.CONSISTENT
    assert FalseAlarms(0, 20, 0.05, "m").finding().verdict is Verdict.INSUFFICIENT_EVIDENCE
    assert FalseAlarms(3, 40, 0.05, "m").finding().verdict is Verdict.INSUFFICIENT_EVIDENCE
    assert FalseAlarms(40, 300, 0.05, "m").finding().verdict is Verdict.VIOLATED
    with pytest.raises(ArgumentError):
        FalseAlarms(4, 3, 0.05, "m")


def test_the_same_streams_give_the_same_count():
    first, again = (count(ONE_RUN[0], gaussian(100, 1.0), runs=30, streams=STREAMS, truth=1.0) for _ in range(2))
    assert first == again
