"""The plots of a report, made from findings; a finding whose details do not hold what a plot needs gets none."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trustnlp.report import plots
from trustnlp.report.explanations import figure as shown
from trustnlp.results import Finding

_TPR = re.compile(r"membership-(.+)-tpr-at-(0-1|1)pct-fpr")
_AUC = re.compile(r"membership-(.+)-auc")
_ATTACKS = {"loss": "by loss", "reference": "by reference model"}
_ALL = "all models"
_MOST_CURVES = 4
_AT = {"0-1": 0.001, "1": 0.01}


@dataclass(frozen=True)
class Figure:
    """A plot with its title and caption, and the same data as a table."""

    title: str
    svg: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def of(question: str, findings: Sequence[Finding]) -> list[Figure]:
    """The plots of one question's section, for the findings that answer it."""
    makers = {
        "membership": _rocs,
        "secrets": _exposures,
        "audit": _ladders,
        "utility": _figures,
        "fairness": _groups,
        "devices": _partitions,
        "other": _figures,
    }
    return list(makers[question](findings)) if question in makers else []


def _regimes(findings: Sequence[Finding]) -> Iterator[tuple[str, list[Finding]]]:
    for regime in dict.fromkeys(finding.regime for finding in findings):
        yield regime, [finding for finding in findings if finding.regime == regime]


def _rocs(findings: Sequence[Finding]) -> Iterator[Figure]:
    for place, (regime, own) in enumerate(_regimes(findings)):
        curves = {}
        for finding in own:
            curve, attack = _curve(finding.details.get("roc")), _AUC.fullmatch(finding.id)
            if attack and curve:
                curves[_attack_name(attack[1])] = curve
        if curves:
            yield _roc(f"roc-{place}", regime, curves, own)


def _roc(name: str, regime: str, curves: dict[str, tuple[list[float], list[float]]], own: list[Finding]) -> Figure:
    drawn = _clearest(curves)
    points = []
    for finding in own:
        rate = _TPR.fullmatch(finding.id)
        if rate and finding.value is not None and _attack_name(rate[1]) in drawn:
            points.append((_AT[rate[2]], finding.value, finding.low, finding.high))
    header = ("false alarms", *curves)
    rows = [
        (f"{at:.1%}", *(f"{_reached(curve, at):.1%}" for curve in curves.values())) for at in (0.001, 0.01, 0.1, 0.5)
    ]
    best = max(_reached(curve, 0.01) for curve in curves.values())
    alternative = plots.Alternative(
        name,
        f"ROC of the membership attacks on the model “{regime}”",
        f"Both axes are logarithmic. At 1% false alarms the best attack recognises {best:.1%} of the training texts; "
        "guessing, the dotted diagonal, would recognise 1%.",
    )
    caption = (
        "The further a curve lies above the dotted line, the more leaks. Dots are the figures below with intervals."
    )
    if len(drawn) < len(curves):
        caption += f" The {len(drawn)} clearest of {len(curves)} attacks are drawn; the table has all."
    return Figure(regime or _ALL, plots.roc(drawn, points, alternative), caption, header, tuple(rows))


def _attack_name(attack: str) -> str:
    return _ATTACKS.get(attack, attack.replace("-", " "))


def _clearest(curves: dict[str, tuple[list[float], list[float]]]) -> dict[str, tuple[list[float], list[float]]]:
    """At most four curves that can be told apart: those that recognise most at 1% false alarms.

    A score of few values, such as right or wrong, has no corner there, and steps would draw it as if it found nothing.
    """
    reached = {name: _reached(curve, 0.01) for name, curve in curves.items()}
    best = sorted((name for name in curves if reached[name] > 0), key=lambda name: -reached[name])[:_MOST_CURVES]
    return {name: curve for name, curve in curves.items() if name in best} or curves


def _reached(curve: tuple[list[float], list[float]], at: float) -> float:
    """The highest true-positive rate at a false-positive rate of at most `at`."""
    return max((tpr for fpr, tpr in zip(*curve, strict=True) if fpr <= at), default=0.0)


def _exposures(findings: Sequence[Finding]) -> Iterator[Figure]:
    for place, finding in enumerate(findings):
        canaries = _records(finding.details.get("canaries"), ("repetitions", "exposure"))
        if not canaries:
            continue
        candidates = [canary["candidates"] for canary in canaries if _is_number(canary.get("candidates"))]
        most = math.log2(max(candidates)) if candidates and max(candidates) > 1 else None
        dots = [(float(canary["repetitions"]), float(canary["exposure"])) for canary in canaries]
        alternative = plots.Alternative(
            f"exposure-{place}",
            f"Exposure of the planted secrets in the model “{finding.regime}”",
            f"{len(dots)} secrets, planted {_range([repeats for repeats, _ in dots], '{:g}')} times, have "
            f"{_range([bits for _, bits in dots], '{:.1f}')} bits of exposure"
            + (f"; {most:.1f} is a secret read out exactly." if most else "."),
        )
        keys = ("repetitions", "rank", "exposure", "candidates")
        rows = tuple(tuple(_cell(canary.get(key)) for key in keys) for canary in canaries)
        caption = "One dot a secret. The more copies of it were in the training data, the easier it is to memorise."
        header = ("copies", "rank", "exposure (bits)", "possible secrets")
        yield Figure(finding.regime or _ALL, plots.exposure(dots, most, alternative), caption, header, rows)


def _ladders(findings: Sequence[Finding]) -> Iterator[Figure]:
    """One plot for each ladder: a row for each lower bound, and the promise as a line."""
    for place, finding in enumerate(findings):
        bounds = _records(finding.details.get("bounds"), ("epsilon", "cap"))
        if finding.id != "epsilon-ladder" or not bounds:
            continue
        target = finding.details.get("target")
        upper = float(target) if isinstance(target, int | float) and _is_number(target) else None
        rungs = [plots.Dot(_bound_name(bound), bound["epsilon"], None, bound["cap"]) for bound in bounds]
        best = max(bound["epsilon"] for bound in bounds)
        alternative = plots.Alternative(
            f"ladder-{place}",
            f"Lower bounds on epsilon of the model “{finding.regime}”",
            f"The best of {len(bounds)} bounds shows an epsilon of at least {best:.3g}; "
            + (f"{upper:.3g} was promised." if upper is not None else "nothing was promised."),
        )
        header = ("bound", "epsilon is at least", "could have shown", "confidence", "n")
        table = tuple(
            (
                _bound_name(bound),
                *(_cell(bound[key]) for key in ("epsilon", "cap")),
                _percent(bound.get("level")),
                _cell(bound.get("n")),
            )
            for bound in bounds
        )
        caption = "A dot is what an attack has shown at least, the end of its line what a perfect one could have shown."
        if upper is not None:
            caption += " A dot to the right of the promise breaks it."
        granted = dict.fromkeys(str(bound["assumes"]) for bound in bounds if bound.get("assumes"))
        caption += "".join(f" * takes {assumed} for granted." for assumed in granted)
        yield Figure(finding.regime or _ALL, plots.ladder(rungs, upper, alternative), caption, header, table)


def _bound_name(bound: Mapping[str, Any]) -> str:
    name = str(bound.get("method", "bound")).replace("-", " ").replace("f dp", "f-DP")
    return f"{name} *" if bound.get("assumes") else name


def _figures(findings: Sequence[Finding]) -> Iterator[Figure]:
    """One plot for each finding that several regimes share: a row a regime."""
    for place, id in enumerate(dict.fromkeys(finding.id for finding in findings)):
        own = [finding for finding in findings if finding.id == id]
        measured = [finding for finding in own if finding.value is not None]
        if len(measured) < 2:
            continue
        first = measured[0]
        rows = [plots.Dot(finding.regime or "all", finding.value, finding.low, finding.high) for finding in own]
        seen = "; ".join(f"{finding.regime}: {shown(finding, finding.value)}" for finding in own)
        alternative = plots.Alternative(f"{id}-{place}", f"{first.title} by model", f"{seen}.")
        svg = plots.dots(rows, "", first.unit == "fraction", alternative, _span(rows, first.unit == "fraction"))
        table = tuple((f.regime or "all", shown(f, f.value), f.interval() or "–", _cell(f.n)) for f in own)
        yield Figure(
            first.title, svg, "One dot a model, with its interval.", ("model", "figure", "interval", "n"), table
        )


def _groups(findings: Sequence[Finding]) -> Iterator[Figure]:
    """One plot for each finding with groups: a row a group; the plots of one finding share their axis."""
    grouped = [(finding, *_group_dots(finding)) for finding in findings]
    for place, (finding, measure, rows) in enumerate(grouped):
        if not rows:
            continue
        span = _span([row for other, _, dots in grouped if other.id == finding.id for row in dots], True)
        measured = sorted((row for row in rows if row.value is not None), key=lambda row: row.value or 0)
        seen = f"From {_named(measured[0])} to {_named(measured[-1])}." if measured else "No group could be measured."
        alternative = plots.Alternative(f"groups-{place}", f"{measure} by group, model “{finding.regime}”", seen)
        records = _group_records(finding)
        counts = [_cell(record.get("n")) for record in records]
        table = tuple(
            (row.label, _percent(row.value), f"{_percent(row.low)} to {_percent(row.high)}", n)
            for row, n in zip(rows, counts, strict=True)
        )
        dots = [
            plots.Dot(f"{row.label} (n={n})", row.value, row.low, row.high) for row, n in zip(rows, counts, strict=True)
        ]
        svg = plots.dots(dots, measure, True, alternative, span)
        title, caption = finding.regime or _ALL, f"{measure} by group, with intervals. n counts the texts of a group."
        yield Figure(title, svg, caption, ("group", measure, "interval", "n"), table)


def _partitions(findings: Sequence[Finding]) -> Iterator[Figure]:
    """Two plots for a partition: which labels its devices have, and how many texts."""
    for place, finding in enumerate(finding for finding in findings if finding.id == "partition"):
        details = finding.details
        names = _names(details.get("labels"))
        prior = _shares(details.get("prior"), len(names))
        records = _records(details.get("columns"), ("devices",))
        columns = [(c["devices"], shares) for c in records if (shares := _shares(c.get("shares"), len(names)))]
        if columns and prior:
            yield _label_map(f"labels-{place}", finding, names, prior, columns)
        sizes = _records(details.get("sizes"), ("rank", "size", "reached"))
        if sizes and all(entry["rank"] >= 1 and entry["size"] >= 0 for entry in sizes) and sizes[-1]["reached"] > 0:
            yield _activity(f"activity-{place}", sizes)


def _label_map(
    name: str,
    finding: Finding,
    names: Sequence[str],
    prior: Sequence[float],
    columns: Sequence[tuple[int, Sequence[float]]],
) -> Figure:
    counts, shares = zip(*columns, strict=True)
    largest = [max(own) for own in shares]
    value = (
        f" The device explains {shown(finding, finding.value)} of the variation." if finding.value is not None else ""
    )
    alternative = plots.Alternative(
        name,
        "Share of each label by device",
        f"{len(names)} labels on {sum(counts):,} devices. The commonest label of a column holds "
        f"{_percent(min(largest))} to {_percent(max(largest))} of its texts, that of the corpus "
        f"{_percent(max(prior))}.{value}",
    )
    rows = tuple(
        (label, _percent(prior[row]), *(_percent(quantile) for quantile in _extremes([own[row] for own in shares])))
        for row, label in enumerate(names)
    )
    svg = plots.shares(names, prior, shares, "devices", alternative)
    header = ("label", "all texts", "least column", "median", "most")
    return Figure("Labels by device", svg, _map_caption(finding, counts), header, rows)


def _map_caption(finding: Finding, counts: Sequence[int]) -> str:
    merged = _range(counts, "{:,}")
    caption = (
        ("A column is one device" if merged == "1" else f"A column is the mean of {merged} devices")
        + "; devices with the same commonest label stand side by side. The stronger a cell's colour, the larger the "
        "label's share."
    )
    distance, chance = (finding.details.get(f"distance_{which}") for which in ("to_whole", "by_chance"))
    if isinstance(distance, float) and isinstance(chance, float):
        caption += f" Mean distance to the mix of all texts: {distance:.2f}, where chance alone makes it {chance:.2f}."
    return caption


def _extremes(values: Sequence[float]) -> tuple[float, float, float]:
    ordered = sorted(values)
    return ordered[0], ordered[len(ordered) // 2], ordered[-1]


def _activity(name: str, sizes: Sequence[Mapping[str, Any]]) -> Figure:
    total = sizes[-1]["reached"]
    half = next(entry["rank"] for entry in sizes if entry["reached"] >= total / 2)
    alternative = plots.Alternative(
        name,
        "Texts by device",
        f"The most active of {sizes[-1]['rank']:,} devices has {sizes[0]['size']:,} texts, the least active "
        f"{sizes[-1]['size']:,}; about {half:,} devices hold half of all {total:,}.",
    )
    rows = tuple((_cell(entry["rank"]), _cell(entry["size"]), _percent(entry["reached"] / total)) for entry in sizes)
    svg = plots.activity([(entry["rank"], max(entry["size"], 0.5)) for entry in sizes], half, alternative)
    caption = f"How active devices are, on logarithmic axes. About {half:,} of them hold half of all texts."
    return Figure("Texts by device", svg, caption, ("rank", "texts", "share up to here"), rows)


def _names(value: Any) -> list[str]:
    """`value` if it is a list of names; else nothing."""
    sound = isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)
    return list(value) if sound else []


def _shares(value: Any, count: int) -> list[float]:
    """`value` if it is a list of `count` shares; else nothing."""
    if not isinstance(value, list | tuple) or len(value) != count:
        return []
    return list(value) if all(_is_number(share) and 0 <= share <= 1 for share in value) else []


def _group_records(finding: Finding) -> list[Mapping[str, Any]]:
    """The groups that were compared, then those too small to be."""
    records = [record for key in ("groups", "not_compared") for record in _records(finding.details.get(key), ())]
    return [record for record in records if "group" in record]


def _group_dots(finding: Finding) -> tuple[str, list[plots.Dot]]:
    records = _group_records(finding)
    key = "f1" if any("f1" in record for record in records) else "error"
    numbers = [
        {name: record[name] for name in (key, "low", "high") if _is_number(record.get(name))} for record in records
    ]
    rows = [
        plots.Dot(str(record["group"]), number.get(key), number.get("low"), number.get("high"))
        for record, number in zip(records, numbers, strict=True)
    ]
    return ("Slot F1" if key == "f1" else "Error rate"), rows


def _span(rows: Sequence[plots.Dot], fraction: bool) -> tuple[float, float]:
    """The range of an axis around all figures and intervals, within [0, 1] for fractions that lie there."""
    ends = [end for row in rows for end in (row.value, row.low, row.high) if end is not None] or [0.0, 1.0]
    low, high = min(ends), max(ends)
    margin = 0.12 * (high - low) or 0.05 * (abs(high) or 1)
    inside = fraction and low >= 0 and high <= 1
    return (max(low - margin, -0.01), min(high + margin, 1.01)) if inside else (low - margin, high + margin)


def _curve(roc: Any) -> tuple[list[float], list[float]] | None:
    if not isinstance(roc, Mapping):
        return None
    fpr, tpr = roc.get("fpr"), roc.get("tpr")
    if not isinstance(fpr, list | tuple) or not isinstance(tpr, list | tuple) or len(fpr) != len(tpr) or len(fpr) < 2:
        return None
    return (list(fpr), list(tpr)) if all(_is_number(rate) and 0 <= rate <= 1 for rate in [*fpr, *tpr]) else None


def _records(value: Any, numbers: Sequence[str]) -> list[Mapping[str, Any]]:
    """`value` if it is a list of records that each hold `numbers`; else nothing."""
    if not isinstance(value, list | tuple):
        return []
    sound = all(isinstance(entry, Mapping) and all(_is_number(entry.get(name)) for name in numbers) for entry in value)
    return list(value) if sound else []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _named(row: plots.Dot) -> str:
    return f"{_percent(row.value)} for “{row.label}”"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}%"


def _cell(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3g}" if _is_number(value) else "–"


def _range(values: Sequence[float], form: str) -> str:
    low, high = form.format(min(values)), form.format(max(values))
    return low if low == high else f"{low} to {high}"
