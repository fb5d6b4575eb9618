"""False alarms: how often a lower bound on epsilon is above the truth, counted on scores whose truth is known.

A bound at 95% may be wrong in 5% of runs. Whoever doubts the code, the design or the independence of the scores can
count: on scores of a model that never saw the canaries, every bound above 0 is a false alarm.

    rate = count(bound, tossed(scores_of_a_model_that_saw_no_canary), runs=1000, streams=streams)
    print(rate.finding())
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from trustnlp import checks
from trustnlp.attacks.lower_bound import Array, LowerBound, finite_scores
from trustnlp.errors import ArgumentError
from trustnlp.randomness import Streams
from trustnlp.results import Direction, Finding, Verdict
from trustnlp.uncertainty import Interval, proportion

Draw = Callable[[np.random.Generator], tuple[Array, Array]]
Bound = Callable[[Array, Array, np.random.Generator], LowerBound]


@dataclass(frozen=True)
class FalseAlarms:
    """How many of `runs` bounds lay above the true epsilon.

    Args:
        alarms, runs: 0 <= alarms <= runs, runs >= 1.
        nominal: the share that the bound allows itself, 1 - its level.
        method: of the bound.
    """

    alarms: int
    runs: int
    nominal: float
    method: str

    def __post_init__(self) -> None:
        checks.inside("nominal", self.nominal, 0, 1)
        if checks.at_least("alarms", self.alarms, 0) > checks.at_least("runs", self.runs, 1):
            raise ArgumentError("alarms", f"at most the {self.runs} runs", self.alarms)

    @property
    def rate(self) -> float:
        """alarms / runs; lower is better, and at most `nominal` where the bound holds."""
        return self.alarms / self.runs

    def interval(self, level: float = 0.95) -> Interval:
        """The exact interval of the rate."""
        return proportion(self.alarms, self.runs, level)

    def finding(self, level: float = 0.95) -> Finding:
        """Finding `false-alarm-rate-{method}`; lower is better, ideal 0.

        `violated` where the whole interval lies above `nominal`, `consistent` where the rate does not and the interval
        ends below twice of it, else `insufficient evidence`.
        """
        found = self.interval(level)
        sound = self.rate <= self.nominal and found.high < 2 * self.nominal
        verdict = Verdict.CONSISTENT if sound else Verdict.INSUFFICIENT_EVIDENCE
        return Finding(
            f"false-alarm-rate-{self.method}",
            f"False alarms of the lower bound on epsilon ({self.method.replace('-', ' ')})",
            self.rate,
            found.low,
            found.high,
            level=level,
            n=self.runs,
            direction=Direction.LOWER,
            ideal=0.0,
            verdict=Verdict.VIOLATED if found.low > self.nominal else verdict,
            source="Clopper and Pearson 1934",
            details={"nominal": self.nominal},
        )


def count(bound: Bound, draw: Draw, *, runs: int, streams: Streams, truth: float = 0.0) -> FalseAlarms:
    """Draws scores and bounds epsilon `runs` times, and counts the bounds above `truth`.

    Args:
        bound: (scores (m,), included (m,) bool, generator) -> a lower bound.
        draw: generator -> (scores, included) of one run, with a true epsilon of `truth`.
        runs: >= 1; 300 tell 5% from 9%.
        streams: each run has its own, so more runs begin with the same ones.
        truth: the true epsilon, >= 0; of a model that saw no canary, 0.
    """
    checks.at_least("runs", runs, 1)
    checks.non_negative("truth", truth)
    found = [
        bound(*draw(generator), generator) for generator in (streams.numpy("false-alarms", run) for run in range(runs))
    ]
    alarms = sum(one.epsilon > truth for one in found)
    return FalseAlarms(alarms, runs, 1 - found[0].level, found[0].method)


def tossed(scores: ArrayLike) -> Draw:
    """The same scores in each run, with coins tossed anew: for scores of a model that saw none of the canaries.

    Raises:
        ArgumentError: not a list of at least two numbers.
        GuaranteeError: a score is NaN or infinite.
    """
    fixed = finite_scores("scores", scores)
    return lambda generator: (fixed, generator.random(len(fixed)) < 0.5)
