"""Oort: devices whose texts the model gets wrong, and that are quick, with some newcomers in every round.

    utility     U = n_k sqrt(mean loss^2), over the texts of device k when it last took part       (statistical)
    score       scaled U + sqrt(0.1 log R / L), R the round and L the last in which it took part   (staleness)
                times (T / t)^alpha where it took t seconds and t > T                              (system)
    exploit     (1 - epsilon) m devices, drawn by score among those with c times the (1 - epsilon) m-th best or more
    explore     the others among devices never heard of; epsilon falls from round to round
    pacer       T grows when the last W rounds gathered less utility than the W before

Source: Lai et al., "Oort: Efficient Federated Learning via Guided Participant Selection", OSDI 2021, arXiv 2010.06081,
algorithm 1. Where that leaves a choice, the authors' code is followed (github.com/SymbioticLab/Oort): utilities are
clipped at a quantile and scaled to [0, 1] before staleness is added, and T is a quantile of the seconds seen so far.
Newcomers are drawn evenly, as nothing is known of their speed here. Left out is the removal of devices that have taken
part often, which the authors' code does not do by default either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustnlp import checks
from trustnlp.federated.cohort import Cohort, Devices, PlainSelector, Request, Selector, shares
from trustnlp.federated.size_classes import Draws, Floats, SizeClasses, even, successive

_STALENESS = 0.1


@dataclass(frozen=True)
class Oort:
    """See the head of this module; biased by design, towards high losses, many texts and quick devices.

    Args:
        weighting: `equal` or `samples`, as for `TopK`.
        exploration: epsilon of the first round, in [0, 1].
        decay: its factor from round to round, in (0, 1].
        least_exploration: where it stops falling.
        cutoff: c, in [0, 1]; 1 exploits the best alone.
        clip: quantile of the utilities above which they count as equal, in (0, 1]; guards against outliers.
        penalty: alpha >= 0; 0 takes no account of speed.
        pace: T of the beginning, as a quantile of the seconds seen, in [0, 1]; 1 is no preference.
        pace_step: by how much the quantile grows, >= 0.
        window: W, in rounds.
    """

    weighting: str = "equal"
    exploration: float = 0.9
    decay: float = 0.98
    least_exploration: float = 0.2
    cutoff: float = 0.95
    clip: float = 0.95
    penalty: float = 2.0
    pace: float = 0.3
    pace_step: float = 0.05
    window: int = 20

    def __post_init__(self) -> None:
        checks.one_of("weighting", self.weighting, ("equal", "samples"))
        for name in ("exploration", "decay", "least_exploration", "cutoff", "clip", "pace"):
            checks.within(name, getattr(self, name), 0, 1)
        for name in ("decay", "clip"):
            checks.positive(name, getattr(self, name))
        for name in ("penalty", "pace_step"):
            checks.non_negative(name, getattr(self, name))
        checks.at_least("window", self.window, 1)

    @property
    def unbiased(self) -> bool:
        """Never: that is what it is for."""
        return False

    def begin(self, sizes: NDArray[np.int64]) -> Selector:
        """See `Selection`."""
        return OortSelector(self, sizes)


@dataclass
class _Memory:
    """What is known of the devices that have come back at least once, (J,) each, and of the rounds so far.

    Args:
        devices: ascending.
        utilities: U of each.
        seconds: t of each.
        last: L of each, from 1.
        round: R, the newest, from 1; 0 before the first.
        pace: the quantile that gives T.
        gathered: sums of U over those who came back, of the last 2 W rounds.
        rounds: how many rounds came back.
    """

    devices: Devices
    utilities: Floats
    seconds: Floats
    last: NDArray[np.int64]
    gathered: Floats
    pace: float
    round: int = 0
    rounds: int = 0


class OortSelector(PlainSelector):
    """`Oort` at work on one population."""

    def __init__(self, rule: Oort, sizes: NDArray[np.int64]) -> None:
        classes = SizeClasses.of(sizes)
        self._rule, self._sizes = rule, sizes
        self._draws = Draws(classes, even(classes))
        nobody, nothing = np.empty(0, np.int64), np.empty(0)
        self._known = _Memory(nobody, nothing, nothing, nobody, nothing, rule.pace)

    def choose(self, request: Request) -> Cohort:
        """Some of the known by score, and newcomers."""
        self._known.round = request.round + 1
        there = request.there(self._known.devices)
        known, scores = self._known.devices[there], self.scores()[there]
        exploited = min(int(request.cohort * (1 - self.exploration(request.round)) + 1e-9), len(known))
        newcomers = self._draws.distinct(
            request.cohort - exploited,
            request.generator,
            lambda devices: self._unknown(devices) & request.there(devices),
        )
        exploited = min(request.cohort - len(newcomers), len(known))
        chosen = np.sort(np.append(known[self._exploit(scores, exploited, request.generator)], newcomers))
        return Cohort(chosen, shares(self._rule.weighting, np.ones(len(chosen)), self._sizes[chosen]))

    def exploration(self, round: int) -> float:
        """Epsilon of a round, 0-based."""
        rule = self._rule
        return max(rule.exploration * rule.decay**round, min(rule.least_exploration, rule.exploration))

    def scores(self) -> Floats:
        """(J,) the score of every known device, >= 0, in the order of their numbers."""
        known = self._known
        if len(known.devices) == 0:
            return np.empty(0)
        clipped = np.minimum(known.utilities, np.quantile(known.utilities, self._rule.clip))
        scaled = (clipped - clipped.min()) / (np.ptp(clipped) or 1.0)
        score = scaled + np.sqrt(_STALENESS * np.log(known.round) / known.last)
        preferred = np.quantile(known.seconds, known.pace)
        slow = (known.seconds > preferred) if known.pace < 1 else np.zeros(len(score), dtype=bool)
        score[slow] *= (preferred / known.seconds[slow]) ** self._rule.penalty
        return np.asarray(score)

    def observe(self, devices: Devices, losses: NDArray[np.float64], seconds: NDArray[np.float64]) -> None:
        """Takes in a round.

        Args:
            devices: (m,) those that came back.
            losses: (m,) the root mean square of their texts' losses in training, or the mean, which is a lower bound
                of it. A device whose loss or time is not finite tells nothing and stays as it was.
            seconds: (m,) how long they took, > 0.
        """
        checks.same_length(devices=devices, losses=losses, seconds=seconds)
        usable = np.isfinite(losses) & np.isfinite(seconds)
        devices, utilities = devices[usable], (self._sizes[devices] * np.abs(losses))[usable]
        known, fresh = self._known, ~np.isin(self._known.devices, devices)
        every = np.append(known.devices[fresh], devices)
        order = np.argsort(every, kind="stable")
        last = np.append(known.last[fresh], np.full(len(devices), known.round))
        known.devices, known.last = every[order], last[order]
        known.utilities = np.append(known.utilities[fresh], utilities)[order].astype(float)
        known.seconds = np.append(known.seconds[fresh], seconds[usable])[order]
        self._keep_pace(float(utilities.sum()))

    def state(self) -> dict[str, Any]:
        """See `Selector`."""
        return {field.name: getattr(self._known, field.name) for field in fields(_Memory)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Selector`."""
        self._known = _Memory(**state)

    def _unknown(self, devices: Devices) -> NDArray[np.bool_]:
        place = np.searchsorted(self._known.devices, devices)
        return np.append(self._known.devices, -1)[place] != devices

    def _exploit(self, scores: Floats, count: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """`count` places among the scores, drawn by score from those near the top."""
        if count == 0:
            return np.empty(0, np.int64)
        admitted = np.flatnonzero(scores >= self._rule.cutoff * np.sort(scores)[-count])
        return admitted[successive(scores[admitted], count, generator)]

    def _keep_pace(self, gathered: float) -> None:
        """Prefers slower devices, too, when a window brought less than the one before."""
        known, window = self._known, self._rule.window
        known.gathered = np.append(known.gathered, gathered)[-2 * window :]
        known.rounds += 1
        full = known.rounds >= 2 * window and known.rounds % window == 0
        if full and known.gathered[:window].sum() > known.gathered[window:].sum():
            known.pace = min(1.0, known.pace + self._rule.pace_step)
