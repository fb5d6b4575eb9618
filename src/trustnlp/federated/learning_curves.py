"""How fast a federated model learns, on two axes: rounds, and texts that devices have trained on.

A run has one curve in the static setting and one for each period in the continual one, measured every few rounds. Time
to a target is the first of these measurements at which the score has reached it. Where it never does, all that is known
is that the time is longer than the period: the run is **censored**, counted at its end, and its number is always told.
So a mean is a restricted mean time (Royston and Parmar 2013, BMC Medical Research Methodology 13:152): what the first
tau rounds took, with tau the length of the period, a lower bound of the mean time.

Two arms are compared seed by seed, over a tau that both were observed for: the same number of rounds, or the smaller of
their two numbers of texts. Differences have Student's intervals over seeds, which assume that they are about normal.

Shape legend: E evaluations of one period, S seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from trustnlp import checks
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.results import Direction, Finding, Verdict
from trustnlp.uncertainty import Interval

ROUNDS, TEXTS = "rounds", "texts"
_SOURCE = "restricted mean over seeds, Student's interval"


@dataclass(frozen=True, eq=False)
class Curve:
    """One period.

    Args:
        rounds: (E,) how many rounds of the period each measurement comes after, ascending, the last at its end.
        texts: (E,) how many texts devices have trained on until then, passes counted, not descending.
        scores: (E,) in [0, 1], higher is better.

    Raises:
        ArgumentError: no measurement, lengths that differ, or times that go back.
        GuaranteeError: a score that is NaN or outside [0, 1].
    """

    rounds: NDArray[np.int64]
    texts: NDArray[np.int64]
    scores: NDArray[np.float64]

    def __post_init__(self) -> None:
        checks.same_length(rounds=self.rounds, texts=self.texts, scores=self.scores)
        checks.not_empty("rounds", self.rounds)
        if (np.diff(self.rounds) <= 0).any() or (np.diff(self.texts) < 0).any() or self.rounds[0] < 1:
            raise ArgumentError("rounds", "ascending from 1 on", [self.rounds.tolist(), self.texts.tolist()])
        if not ((self.scores >= 0) & (self.scores <= 1)).all():
            raise GuaranteeError("a learning curve has scores that are NaN or outside [0, 1]")

    def axis(self, name: str) -> NDArray[np.int64]:
        """(E,) `rounds` or `texts`."""
        return self.rounds if checks.one_of("axis", name, (ROUNDS, TEXTS)) == ROUNDS else self.texts

    def end(self, name: str) -> int:
        """Until when the run was observed."""
        return int(self.axis(name)[-1])


Run = Sequence[Curve]  # one seed: a curve for each period


@dataclass(frozen=True)
class Time:
    """How long it took until a target, over all periods of a run.

    Args:
        spent: rounds or texts, at most those observed.
        censored: in how many periods the target was never reached; `spent` is then too small.
    """

    spent: int
    censored: int


def time_to(run: Run, target: float, axis: str, *, until: Sequence[int] | None = None) -> Time:
    """The rounds or texts of each period until its score is at least `target`, added up.

    In the continual setting these are the catch-up rounds after the starts of periods.

    Args:
        run: a curve for each period.
        target: in (0, 1].
        axis: `rounds` or `texts`.
        until: tau of each period; all that was observed if None.

    Raises:
        ArgumentError: no period, another axis, a target out of range, or a tau for which a period was not observed.
    """
    checks.not_empty("run", run)
    if not 0 < target <= 1:
        raise ArgumentError("target", "a number with 0 < target <= 1", target)
    ends = [curve.end(axis) for curve in run]
    limits = list(until) if until is not None else ends
    if len(limits) != len(ends) or any(limit > end for limit, end in zip(limits, ends, strict=True)):
        raise ArgumentError("until", f"for each period at most what was observed, {ends}", limits)
    times = [_first(curve, target, axis, limit) for curve, limit in zip(run, limits, strict=True)]
    spent = sum(limit if time is None else time for time, limit in zip(times, limits, strict=True))
    return Time(spent, times.count(None))


def _first(curve: Curve, target: float, axis: str, limit: int) -> int | None:
    reached = np.flatnonzero(curve.scores >= target)
    time = int(curve.axis(axis)[reached[0]]) if len(reached) else None
    return None if time is None or time > limit else time


def area(run: Run) -> float:
    """The area under the curves over rounds, as a mean score in [0, 1]; higher is better, ideal 1.

    Trapezoids between measurements, periods by their rounds; the first measurement stands for the rounds before it.
    """
    return float(sum(_area(curve) for curve in run) / sum(curve.end(ROUNDS) for curve in run))


def _area(curve: Curve) -> float:
    rounds, scores = np.append(0, curve.rounds), np.append(curve.scores[0], curve.scores)
    return float(np.trapezoid(scores, rounds))


def saved(run: Run, other: Run, target: float, axis: str) -> float:
    """By how much `run` reaches the target before `other`, as a share of the time that both were observed for.

    In [-1, 1]; above 0 `run` is the faster one. Of two runs that never reach it, 0: nothing is known but that.

    Raises:
        ArgumentError: another number of periods.
    """
    if len(run) != len(other):
        raise ArgumentError("other", f"a run of {len(run)} periods", len(other))
    until = [min(one.end(axis), two.end(axis)) for one, two in zip(run, other, strict=True)]
    spent, others = (time_to(each, target, axis, until=until).spent for each in (run, other))
    return (others - spent) / sum(until)


def paired(differences: ArrayLike, level: float = 0.95) -> Interval | None:
    """Student's interval of a mean of S independent values, such as differences of two arms with one seed each.

    None of fewer than two values, or where they do not vary: that no variation was seen is no proof that there is none.

    Raises:
        ArgumentError: level outside (0, 1).
        GuaranteeError: NaN or infinite values.
    """
    checks.inside("level", level, 0, 1)
    values = np.asarray(differences, dtype=float)
    if not np.isfinite(values).all():
        raise GuaranteeError("a mean over seeds has NaN or infinite values")
    if len(values) < 2 or np.ptp(values) == 0:
        return None
    reach = stats.t.ppf(0.5 + level / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return Interval(float(values.mean() - reach), float(values.mean() + reach), level)


def over_seeds(id: str, title: str, values: ArrayLike, *, level: float = 0.95, **about: Any) -> Finding:
    """The mean over seeds, (S,), with Student's interval; insufficient evidence where that cannot be told."""
    given = np.asarray(values, dtype=float)
    interval = paired(given, level)
    details = {"seeds": given.tolist(), **about.pop("details", {})}
    known: dict[str, Any] = {"n": len(given), "source": _SOURCE, "details": details, **about}
    if interval is None:
        known["verdict"] = Verdict.INSUFFICIENT_EVIDENCE
        details["reason"] = "fewer than two seeds, or all gave the same"
        return Finding(id, title, float(given.mean()), **known)
    return Finding(id, title, float(given.mean()), interval.low, interval.high, level, **known)


def findings(runs: Sequence[Run], target: float, *, level: float = 0.95) -> tuple[Finding, ...]:
    """How fast one arm learns: `learning-curve-area`, `rounds-to-target` and `texts-to-target`.

    Args:
        runs: (S,) the same arm with different seeds.
        target: in (0, 1].

    Returns:
        Findings with the mean over seeds; `details["censored"]` says how many periods of how many never reached it.
    """
    checks.not_empty("runs", runs)
    higher: dict[str, Any] = {"direction": Direction.HIGHER, "ideal": 1.0}
    title = "Mean score over all rounds: the area under the learning curve"
    about = over_seeds("learning-curve-area", title, [area(run) for run in runs], level=level, **higher)
    return (about, *(_to_target(runs, target, axis, level) for axis in (ROUNDS, TEXTS)))


def _to_target(runs: Sequence[Run], target: float, axis: str, level: float) -> Finding:
    times = [time_to(run, target, axis) for run in runs]
    return over_seeds(
        f"{axis}-to-target",
        f"{axis.capitalize()} until the score is {target:.3g}, added up over periods",
        [time.spent for time in times],
        level=level,
        unit=axis,
        direction=Direction.LOWER,
        details={
            "target": target,
            "censored": sum(time.censored for time in times),
            "periods": sum(len(run) for run in runs),
        },
    )


def compared(runs: Sequence[Run], others: Sequence[Run], target: float, *, level: float = 0.95) -> tuple[Finding, ...]:
    """One arm against another, seed by seed: `rounds-saved`, `texts-saved` and `learning-curve-lead`.

    Args:
        runs, others: (S,) both arms, with the same seeds in the same order.
        target: in (0, 1].

    Raises:
        ArgumentError: not as many seeds, or periods, in both.
    """
    checks.same_length(runs=runs, others=others)
    pairs = list(zip(runs, others, strict=True))
    higher: dict[str, Any] = {"level": level, "direction": Direction.HIGHER}
    return (
        *(_saved(pairs, target, axis, level) for axis in (ROUNDS, TEXTS)),
        over_seeds(
            "learning-curve-lead",
            "Mean score over all rounds, less that of the other arm",
            [area(run) - area(other) for run, other in pairs],
            **higher,
        ),
    )


def _saved(pairs: Sequence[tuple[Run, Run]], target: float, axis: str, level: float) -> Finding:
    censored = [sum(time_to(run, target, axis).censored for run in arm) for arm in zip(*pairs, strict=True)]
    return over_seeds(
        f"{axis}-saved",
        f"Share of the {axis} saved until the score is {target:.3g}, against the other arm",
        [saved(run, other, target, axis) for run, other in pairs],
        level=level,
        direction=Direction.HIGHER,
        details={"target": target, "censored": censored, "periods": sum(len(run) for run, _ in pairs)},
    )
