"""Whom a model serves: accuracy or loss by the activity of the device, by group, and from device to device.

A selection rule that favours active devices can raise the average and still fail those that write little. So a figure
of all texts is told apart:

    ACCURACY-by-activity-decile       the worst tenth of the devices, ordered by their number of training texts
    ACCURACY-light-half, -heavy-half  the less and the more active half; -half-gap, how much worse the light half fares
    ACCURACY-by-group                 the worst group
    ACCURACY-per-device               the mean over devices, each counted once however much it writes
    ACCURACY-worst-tenth-of-devices   what nine of ten devices are served at least as well as

and the same of the loss. Devices of equal activity are never parted, so that there may be fewer than ten tenths.

Texts of one device are alike, so devices are the units of all intervals: by the jackknife for accuracy
(`uncertainty.ratio`), by the bootstrap for losses, by order statistics for the tenth. Those of all parts of one kind
hold at once (Bonferroni), so that the worst figure lies between the worst lower and the worst upper end; the worst
estimate itself, as every extreme, is biased away from the others.

Shape legend: n texts, K devices, u devices that have some of the texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from trustnlp import checks
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.results import Direction, Finding, Verdict
from trustnlp.uncertainty import Interval, bonferroni, bootstrap, difference, effective_units, ratio

Floats = NDArray[np.float64]
# Below these a part of the devices is not judged: its interval would be too wide to say anything.
FEWEST_TEXTS, FEWEST_DEVICES = 30, 5
_ENOUGH = f"{FEWEST_TEXTS} texts that weigh as much as {FEWEST_DEVICES} devices"
_TENTH = 0.1


def accuracy(
    correct: ArrayLike,
    devices: ArrayLike,
    sizes: ArrayLike,
    *,
    groups: Sequence[str | None] | None = None,
    least_texts: int = 5,
    level: float = 0.95,
) -> tuple[Finding, ...]:
    """The findings of the head of this module for right and wrong answers; higher is better, ideal 1.

    Args:
        correct: (n,) whether each text was answered right.
        devices: (n,) the device of each text, 0 to K - 1.
        sizes: (K,) how many training texts each device has: its activity.
        groups: (n,) the group of each text, None where it is unknown; None leaves the finding by group out.
        least_texts: devices with fewer of the texts have no say in the worst tenth, as their own figure is chance.
        level: of the intervals, in (0, 1).

    Returns:
        A finding each; `details["parts"]` has every decile or group that is large enough to be judged, the worst
        first, and `details["not_compared"]` the others. What cannot be judged is insufficient evidence.

    Raises:
        ArgumentError: no texts, lengths that differ, a device that does not exist, or another argument out of range.
        GuaranteeError: an answer that is neither right nor wrong, NaN included.
    """
    values = np.asarray(correct, dtype=float)
    if not np.isin(values, (0.0, 1.0)).all():
        raise GuaranteeError("'correct' must hold only true and false", "leave out texts without an answer")
    scale = _Scale("accuracy", "fraction", Direction.HIGHER, 1.0, ratio)
    return _findings(_Texts(values, devices, sizes, groups), scale, least_texts, level)


def loss(
    losses: ArrayLike,
    devices: ArrayLike,
    sizes: ArrayLike,
    *,
    generator: np.random.Generator,
    groups: Sequence[str | None] | None = None,
    least_texts: int = 5,
    level: float = 0.95,
) -> tuple[Finding, ...]:
    """The findings of the head of this module for losses; lower is better.

    Args:
        losses: (n,) of each text, in nats, finite.
        generator: drawn from by the bootstrap.
        devices, sizes, groups, least_texts, level: as for `accuracy`.

    Raises:
        ArgumentError: as for `accuracy`.
        GuaranteeError: a loss is NaN or infinite.
    """
    values = np.asarray(losses, dtype=float)
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise GuaranteeError(f"{bad} of {values.size} losses are NaN or infinite", "leave these texts out")
    scale = _Scale("loss", "nats", Direction.LOWER, None, partial(_bootstrapped, generator=generator))
    return _findings(_Texts(values, devices, sizes, groups), scale, least_texts, level)


@dataclass(frozen=True)
class _Scale:
    """What kind of figure it is: `interval(sums, counts, level)` is that of sum(sums) / sum(counts), by device."""

    name: str
    unit: str
    direction: Direction
    ideal: float | None
    interval: Callable[[Floats, Floats, float], Interval]

    @property
    def higher_is_better(self) -> bool:
        return self.direction is Direction.HIGHER

    def worst(self, figures: Sequence[float]) -> float:
        return min(figures) if self.higher_is_better else max(figures)

    def finding(self, what: str, title: str, value: float | None, interval: Interval | None, **known: Any) -> Finding:
        if interval is not None:
            known |= {"low": interval.low, "high": interval.high, "level": interval.level}
        known = {"direction": self.direction, "ideal": self.ideal, **known}
        return Finding(
            id=f"{self.name}-{what}",
            title=f"{self.name.capitalize()} {title}",
            value=value,
            unit=self.unit,
            verdict=Verdict.INSUFFICIENT_EVIDENCE if value is None else Verdict.MEASURED,
            **known,
        )

    def of_part(self, what: str, title: str, part: _Part, level: float) -> Finding:
        """The figure of one part, if it can be judged."""
        interval, n = part.interval(self, level), len(part.counts)
        if interval is None:
            reason = {"reason": f"less than {_ENOUGH}, or no two figures differ"}
            return self.finding(what, title, None, None, n=n, details=part.size() | reason)
        return self.finding(what, title, part.value, interval, n=n, details=part.size())


@dataclass(frozen=True, eq=False)
class _Part:
    """Some texts: their devices' activities, sums and counts, (u,) each."""

    name: str
    activities: NDArray[np.int64]
    sums: Floats
    counts: Floats

    @property
    def value(self) -> float:
        return float(self.sums.sum() / self.counts.sum())

    def interval(self, scale: _Scale, level: float) -> Interval | None:
        """None where there is too little to judge it by, or nothing varies."""
        if self.counts.sum() < FEWEST_TEXTS or effective_units(self.counts) < FEWEST_DEVICES:
            return None
        try:
            return scale.interval(self.sums, self.counts, level)
        except GuaranteeError:
            return None

    def size(self) -> dict[str, Any]:
        return {"name": self.name, "devices": len(self.counts), "texts": int(self.counts.sum())}


class _Texts:
    """What was measured, text by text."""

    def __init__(
        self, values: Floats, devices: ArrayLike, sizes: ArrayLike, groups: Sequence[str | None] | None
    ) -> None:
        self.values, self.groups = values, groups
        self._devices, self._sizes = np.asarray(devices), np.asarray(sizes)
        checks.not_empty("devices", self._devices)
        checks.same_length(devices=self._devices, values=values, groups=self._devices if groups is None else groups)
        ends, last = [self._devices.min(), self._devices.max()], len(self._sizes) - 1
        if self._devices.dtype.kind not in "iu" or ends[0] < 0 or ends[1] > last:
            raise ArgumentError("devices", f"whole numbers from 0 to {last}", ends)

    def part(self, name: str, rows: NDArray[Any] | None = None) -> _Part:
        """The devices that have texts among `rows`, or among all."""
        chosen = slice(None) if rows is None else rows
        found, place = np.unique(self._devices[chosen], return_inverse=True)
        sums, counts = (np.bincount(place, each).astype(np.float64) for each in (self.values[chosen], None))
        return _Part(name, self._sizes[found], sums, counts)

    def by_group(self) -> list[_Part]:
        names = np.array(self.groups, dtype=object)
        return [self.part(name, names == name) for name in sorted({name for name in names if name is not None})]


def _findings(texts: _Texts, scale: _Scale, least_texts: int, level: float) -> tuple[Finding, ...]:
    checks.inside("level", level, 0, 1)
    checks.at_least("least_texts", least_texts, 1)
    everybody = texts.part("all")
    tenths = _by_activity(everybody, 10)
    found = [_worst_part(scale, "by-activity-decile", "in the tenth of devices served worst", tenths, level)]
    found += _halves(scale, everybody, level)
    if texts.groups is not None:
        found.append(_worst_part(scale, "by-group", "in the group served worst", texts.by_group(), level))
    means = _Part("all", everybody.activities, everybody.sums / everybody.counts, np.ones(len(everybody.counts)))
    found.append(scale.of_part("per-device", "of a device, the mean over devices", means, level))
    return (*found, _worst_tenth(scale, everybody, least_texts, level))


def _by_activity(everybody: _Part, parts: int) -> list[_Part]:
    """Parts of about as many devices each, the least active first; those of equal activity stay together."""
    activities = everybody.activities
    edges = np.unique(np.quantile(activities, np.arange(1, parts) / parts, method="inverted_cdf"))
    places = np.searchsorted(edges, activities)  # those up to an edge, that included, are below it
    found = []
    for place in np.unique(places):
        rows = places == place
        low, high = activities[rows].min(), activities[rows].max()
        name = (f"{low} to {high}" if low < high else f"{low}") + (" text" if high == 1 else " texts")
        found.append(_Part(name, activities[rows], everybody.sums[rows], everybody.counts[rows]))
    return found


def _worst_part(scale: _Scale, what: str, title: str, parts: Sequence[_Part], level: float) -> Finding:
    each = bonferroni(level, len(parts)) if parts else level
    known = [(part, part.interval(scale, each)) for part in parts]
    judged = [(part, interval) for part, interval in known if interval is not None]
    judged.sort(key=lambda pair: pair[0].value, reverse=not scale.higher_is_better)
    small = [part.size() for part, interval in known if interval is None]
    details: dict[str, Any] = {
        "parts": [_record(part, interval) for part, interval in judged],
        "not_compared": small,
    }
    about = {"n": sum(len(part.counts) for part, _ in judged), "source": "simultaneous intervals, clustered by device"}
    if not judged:
        details["reason"] = f"no part has {_ENOUGH} and figures that differ"
        return scale.finding(what, title, None, None, details=details, **about)
    low, high = (scale.worst([getattr(interval, end) for _, interval in judged]) for end in ("low", "high"))
    return scale.finding(what, title, judged[0][0].value, Interval(low, high, level), details=details, **about)


def _halves(scale: _Scale, everybody: _Part, level: float) -> list[Finding]:
    """The two halves, and the gap between them; equally active devices are all in the lighter one."""
    light, heavy = [*_by_activity(everybody, 2), _Part("none", *np.empty((3, 0)))][:2]
    found = [
        scale.of_part("light-half", "of the less active half of the devices", light, level),
        scale.of_part("heavy-half", "of the more active half of the devices", heavy, level),
    ]
    return [*found, _half_gap(scale, *(found if scale.higher_is_better else found[::-1]))]


def _half_gap(scale: _Scale, light: Finding, heavy: Finding) -> Finding:
    """Of losses the two change places, so that above 0 the less active half is always the one served worse."""
    about: dict[str, Any] = {"direction": Direction.NONE, "ideal": 0.0, "n": (light.n or 0) + (heavy.n or 0)}
    title = "by which the less active half of the devices is served worse"
    ends = [
        (half.value, Interval(half.low, half.high, half.level))
        for half in (heavy, light)
        if half.value is not None and half.low is not None and half.high is not None
    ]
    if len(ends) < 2:
        details = {"reason": f"there are no two halves with {_ENOUGH}"}
        return scale.finding("half-gap", title, None, None, details=details, **about)
    return scale.finding("half-gap", title, ends[0][0] - ends[1][0], difference(*ends[0], *ends[1]), **about)


def _worst_tenth(scale: _Scale, everybody: _Part, least_texts: int, level: float) -> Finding:
    """The tenth of the devices' own figures, counted from the worst, between two of the figures themselves.

    Of u devices the number below the quantile is binomial with share 1/10 (`uncertainty.median` has one half). It is
    the quantile of figures as they are measured, on few texts each, which vary more than the devices do.
    """
    title = (
        f"of the device that nine of ten are served at least as well as, of devices with {least_texts} texts or more"
    )
    heard = everybody.counts >= least_texts
    figures = np.sort(everybody.sums[heard] / everybody.counts[heard])
    ordered = figures if scale.higher_is_better else figures[::-1]
    u = len(ordered)
    tail = (1 - level) / 2
    first, last = (int(stats.binom.ppf(share, u, _TENTH)) for share in (tail, 1 - tail)) if u else (0, 0)
    details: dict[str, Any] = {"least_texts": least_texts, "left_out": int((~heard).sum())}
    about = {"n": u, "source": "order statistics (Thompson 1936, Annals of Mathematical Statistics 7(3))"}
    if first < 1 or last + 1 > u:
        details |= {"reason": f"{u} devices give no {level:.0%} interval of their worst tenth"}
        return scale.finding("worst-tenth-of-devices", title, None, None, details=details, **about)
    low, high = sorted((float(ordered[first - 1]), float(ordered[last])))
    value = float(ordered[int(np.ceil(_TENTH * u)) - 1])
    return scale.finding("worst-tenth-of-devices", title, value, Interval(low, high, level), details=details, **about)


def _record(part: _Part, interval: Interval) -> dict[str, Any]:
    return {**part.size(), "value": part.value, "low": interval.low, "high": interval.high}


def _bootstrapped(sums: Floats, counts: Floats, level: float, *, generator: np.random.Generator) -> Interval:
    def mean(rows: Floats) -> Floats:
        return np.asarray(rows[..., 0].sum(1) / rows[..., 1].sum(1))

    return bootstrap(mean, np.stack([sums, counts], axis=1), generator=generator, level=level)
