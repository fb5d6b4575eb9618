"""Plots as inline SVG: matplotlib draws, then the drawing is made part of the page.

Part of the page means: colours are CSS variables, text takes the page's font and stays text, ids are unique, nothing
is fetched, the drawing has a text alternative, and the same data give the same bytes.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}"
# Colours that stand in the drawing for the page's CSS variables.
INK, MUTED, GRID, FIRST, SECOND, WARN = (f"#00000{digit}" for digit in range(1, 7))
_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--line", FIRST: "--first", SECOND: "--second", WARN: "--bad"}
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "trustnlp",  # ids do not depend on chance
    "text.parse_math": False,  # a dollar sign in a label is a dollar sign
    "font.family": "DejaVu Sans",  # ships with matplotlib, so every machine measures text alike
    "font.size": 8.5,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
}


@dataclass(frozen=True)
class Alternative:
    """The text alternative of a plot: its name, and what is seen in it. `name` also makes its ids unique."""

    name: str
    title: str
    seen: str


@dataclass(frozen=True)
class Dot:
    """A figure with its interval, in a row of its own."""

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None


@contextmanager
def _axes(height: float, width: float = 3.7) -> Iterator[tuple[Any, Any]]:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the page's font draws the text
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure, figure.subplots()


def roc(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    points: Sequence[tuple[float, float, float | None, float | None]],
    alternative: Alternative,
) -> str:
    """Log-log ROC: the curve (fpr, tpr) of each attack, and `points` (fpr, tpr, low, high) with their intervals."""
    lowest = 5e-4
    with _axes(3.1) as (figure, axes):
        axes.set(xscale="log", yscale="log", xlim=(lowest, 1.15), ylim=(lowest, 1.15))
        axes.plot([lowest, 1], [lowest, 1], color=MUTED, linewidth=0.9, linestyle=(0, (1, 2)))
        axes.annotate("guessing", (0.03, 0.03), (6, -3), textcoords="offset points", va="top", color=MUTED)
        styles = [(FIRST, "-"), (SECOND, (0, (5, 2))), (INK, (0, (2, 1))), (MUTED, "-.")]
        for index, (fpr, tpr) in enumerate(curves.values()):
            colour, dashes = styles[index % len(styles)]
            axes.plot(*_thin(fpr, tpr, lowest), color=colour, linewidth=1.7, linestyle=dashes, drawstyle="steps-post")
        _name_curves(axes, curves, [colour for colour, _ in styles])
        for at, value, low, high in points:
            ends = [
                max(end, lowest) for end in (low if low is not None else value, high if high is not None else value)
            ]
            axes.plot([at, at], ends, color=INK, linewidth=1.1)
            axes.plot([at], [max(value, lowest)], "o", color=INK, markersize=3.5)
        _percent_ticks(axes)
        axes.set_xlabel("false alarms")
        _title(axes, "training texts recognised")
        axes.grid(True, which="major")
        return _inline(figure, alternative)


def _thin(fpr: Sequence[float], tpr: Sequence[float], lowest: float) -> tuple[list[float], list[float]]:
    """A curve small enough for a page: of points that share a 200th of the log axis the last is kept."""
    kept: dict[int, tuple[float, float]] = {}
    for x, y in zip(fpr, tpr, strict=True):
        x, y = max(x, lowest), max(y, lowest)
        kept[round(200 * math.log10(x))] = (x, y)
    xs, ys = zip(*(kept[key] for key in sorted(kept)), strict=True)
    return list(xs), list(ys)


def _name_curves(axes: Any, curves: Mapping[str, Any], colours: Sequence[str]) -> None:
    """Names at the upper left, where a log-log ROC is empty, in the vertical order of the curves' left ends."""
    heights = {
        name: max([t for f, t in zip(*curve, strict=True) if f <= 0.01], default=0) for name, curve in curves.items()
    }
    order = sorted(curves, key=lambda name: -heights[name])
    for row, name in enumerate(order):
        colour = colours[list(curves).index(name) % len(colours)]
        axes.text(0.03, 0.97 - 0.08 * row, name, transform=axes.transAxes, va="top", color=colour, fontweight="bold")


def exposure(dots: Sequence[tuple[float, float]], most: float | None, alternative: Alternative) -> str:
    """Exposure in bits of each canary over its repetitions in training; `most` is that of a fully memorised one."""
    from matplotlib.ticker import NullLocator

    with _axes(2.7) as (figure, axes):
        repetitions = sorted({repeats for repeats, _ in dots})
        axes.set(xscale="symlog", xlim=(-0.4 if repetitions[0] < 1 else 0.7, max(repetitions[-1] * 1.6, 2)))
        top = max([most or 0, *(bits for _, bits in dots), 2])
        axes.set_ylim(0, top * 1.14)
        if most:
            axes.axhline(most, color=WARN, linewidth=0.9, linestyle=(0, (4, 2)))
            axes.annotate(
                "read out exactly",
                (1, most),
                (-2, 3),
                ("axes fraction", "data"),
                "offset points",
                color=WARN,
                ha="right",
            )
        axes.axhline(1.44, color=MUTED, linewidth=0.9, linestyle=(0, (1, 2)))
        axes.annotate("chance", (1, 1.44), (-2, 3), ("axes fraction", "data"), "offset points", color=MUTED, ha="right")
        axes.plot(*zip(*dots, strict=True), "o", color=FIRST, markersize=5, alpha=0.75, markeredgewidth=0)
        axes.set_xticks(repetitions, [f"{repeats:g}" for repeats in repetitions])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("copies of the secret in the training data")
        _title(axes, "exposure (bits)")
        axes.grid(True, axis="y")
        return _inline(figure, alternative)


def dots(rows: Sequence[Dot], label: str, percent: bool, alternative: Alternative, span: tuple[float, float]) -> str:
    """One row a figure: a dot, its interval, and its name; `span` is the range of the axis."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    with _axes(0.75 + 0.34 * len(rows)) as (figure, axes):
        for height, row in enumerate(reversed(rows)):
            if row.low is not None and row.high is not None:
                axes.plot(
                    [row.low, row.high],
                    [height, height],
                    color=FIRST,
                    linewidth=2.2,
                    alpha=0.55,
                    solid_capstyle="round",
                )
            if row.value is None:
                axes.annotate(
                    "too little data", (0.02, height), xycoords=("axes fraction", "data"), va="center", color=MUTED
                )
            else:
                axes.plot([row.value], [height], "o", color=FIRST, markersize=5)
        axes.set(xlim=span, ylim=(-0.6, len(rows) - 0.4))
        axes.set_yticks(range(len(rows)), [_short(row.label, 28) for row in reversed(rows)], color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        if percent:
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}%"))
        axes.set_xlabel(label)
        axes.spines["left"].set_visible(False)
        axes.grid(True, axis="x")
        return _inline(figure, alternative)


def ladder(rungs: Sequence[Dot], upper: float | None, alternative: Alternative) -> str:
    """One row a lower bound on epsilon: a dot, and a line to its cap (`high`); the promise `upper` as a line down."""
    from matplotlib.ticker import MaxNLocator

    with _axes(0.95 + 0.34 * len(rungs)) as (figure, axes):
        for height, rung in enumerate(reversed(rungs)):
            axes.plot([rung.value, rung.high], [height, height], color=FIRST, linewidth=1, alpha=0.55)
            axes.plot([rung.high], [height], "|", color=FIRST, markersize=8, alpha=0.55)
            axes.plot([rung.value], [height], "o", color=FIRST, markersize=5)
        if upper is not None:
            axes.axvline(upper, color=WARN, linewidth=1.1, linestyle=(0, (4, 2)))
            label = f"promised {upper:.3g}"
            axes.annotate(
                label, (upper, 1), (0, 3), ("data", "axes fraction"), "offset points", color=WARN, ha="center"
            )
        most = max([upper or 0.0, 0.1, *(end for rung in rungs for end in (rung.value, rung.high) if end is not None)])
        axes.set(xlim=(-0.03 * most, 1.08 * most), ylim=(-0.6, len(rungs) - 0.4))
        axes.set_yticks(range(len(rungs)), [_short(rung.label, 24) for rung in reversed(rungs)], color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("epsilon")
        axes.spines["left"].set_visible(False)
        axes.grid(True, axis="x")
        return _inline(figure, alternative)


def lines(
    series: Mapping[str, Sequence[Dot]], columns: Sequence[str], label: str, percent: bool, alternative: Alternative
) -> str:
    """One line a series over the columns in their order, each figure with its interval; gaps where there is none."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    styles = [(FIRST, "-", "o"), (SECOND, (0, (5, 2)), "s"), (INK, (0, (2, 1)), "D"), (MUTED, "-.", "^")]
    with _axes(2.9) as (figure, axes):
        for number, (name, row) in enumerate(series.items()):
            colour, dashes, marker = styles[number % len(styles)]
            shift = (number - (len(series) - 1) / 2) * 0.07  # so that intervals do not hide each other
            shown = [(place + shift, dot) for place, dot in enumerate(row) if dot.value is not None]
            axes.plot(
                [x for x, _ in shown],
                [dot.value for _, dot in shown],
                color=colour,
                linestyle=dashes,
                marker=marker,
                markersize=4,
                linewidth=1.6,
                label=_short(name, 28),
            )
            for x, dot in shown:
                if dot.low is not None and dot.high is not None:
                    axes.plot([x, x], [dot.low, dot.high], color=colour, linewidth=1.2, alpha=0.55)
        axes.set_xticks(range(len(columns)), [_short(column, 14) for column in columns])
        axes.set_xlim(-0.35, len(columns) - 0.65)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if percent:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}%"))
        _title(axes, label)
        axes.grid(True, axis="y")
        axes.legend(frameon=False, loc="best", handlelength=2.4)
        return _inline(figure, alternative)


_SHADES = 16


def shares(
    rows: Sequence[str],
    whole: Sequence[float],
    columns: Sequence[Sequence[float]],
    label: str,
    alternative: Alternative,
) -> str:
    """A heat map: the share of each row in each column, and at the left, set apart, in the `whole`, by shade."""
    with _axes(0.95 + 0.165 * len(rows)) as (figure, axes):
        gap, width = 1 + len(columns) / 40, len(columns) / 24
        cells = [(-gap - width, width, column) for column in [whole]]
        cells += [(float(place), 1.0, column) for place, column in enumerate(columns)]
        boxes: dict[int, list[tuple[float, float, float]]] = {}
        for left, across, column in cells:
            for row, share in enumerate(column):
                boxes.setdefault(_shade(share), []).append((left, float(row), across))
        for shade, places in sorted(boxes.items()):
            _boxes(axes, places, shade)
        axes.set(xlim=(-gap - width, len(columns)), ylim=(len(rows) - 0.5, -0.5))
        axes.set_yticks(range(len(rows)), [_short(row, 24) for row in rows], color=INK)
        axes.set_xticks([-gap - width / 2, len(columns) / 2], ["all", label])
        for spine in axes.spines.values():
            spine.set_visible(False)
        _scale(axes)
        return _inline(figure, alternative)


def _shade(share: float) -> int:
    """The darkness of a share, 0 to _SHADES: its square root, as most shares are small."""
    return round(_SHADES * math.sqrt(min(max(share, 0.0), 1.0)))


def _boxes(axes: Any, places: Sequence[tuple[float, float, float]], shade: int) -> None:
    """Boxes of one shade as one path, which keeps the page small: (left, row, width) each."""
    from matplotlib.patches import PathPatch, Rectangle
    from matplotlib.path import Path

    if not shade:
        return
    outlines = [Rectangle((x + 0.04 * w, y - 0.46), 0.92 * w, 0.92) for x, y, w in places]
    paths = [box.get_transform().transform_path(box.get_path()) for box in outlines]
    axes.add_patch(PathPatch(Path.make_compound_path(*paths), color=FIRST, alpha=shade / _SHADES, linewidth=0))


def _scale(axes: Any) -> None:
    """What the shades mean, in a line above the map."""
    from matplotlib.patches import Rectangle

    start = 0.0
    for share in (0.05, 0.2, 0.5, 1.0):
        box = Rectangle(
            (start, 1.03), 0.045, 0.04, transform=axes.transAxes, clip_on=False, linewidth=0,
            color=FIRST, alpha=_shade(share) / _SHADES,
        )  # fmt: skip
        axes.add_patch(box)
        axes.text(start + 0.06, 1.05, f"{share:.0%}", transform=axes.transAxes, va="center", color=MUTED)
        start += 0.25


def activity(sizes: Sequence[tuple[float, float]], half: float, alternative: Alternative) -> str:
    """Texts of a device over its rank (rank, size), both logarithmic; `half` is the rank by which half of all lie."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    with _axes(2.7) as (figure, axes):
        ranks, texts = zip(*sizes, strict=True)
        axes.set(xscale="log", yscale="log", xlim=(0.9, max(ranks[-1] * 1.1, 2)))
        axes.set_ylim(min(0.8, min(texts) / 1.25), max(texts) * 1.6)
        axes.plot(ranks, texts, color=FIRST, linewidth=1.7, solid_capstyle="round")
        axes.axvline(half, color=MUTED, linewidth=0.9, linestyle=(0, (1, 2)))
        right = half < math.sqrt(ranks[-1])
        axes.annotate(
            "half of all texts", (half, 1), (4 if right else -4, -3), ("data", "axes fraction"), "offset points",
            va="top", ha="left" if right else "right", color=MUTED,
        )  # fmt: skip
        for axis, most in ((axes.xaxis, ranks[-1]), (axes.yaxis, max(texts))):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            if most >= 10:
                axis.set_minor_locator(NullLocator())
        axes.set_xlabel("devices, the most active first")
        _title(axes, "texts on the device")
        axes.grid(True, which="major")
        return _inline(figure, alternative)


def _short(label: str, most: int = 18) -> str:
    label = _printable(" ".join(label.split()))
    return label if len(label) <= most else label[: most - 1] + "…"


def _printable(label: str) -> str:
    """`label` without what XML cannot hold (control characters, half surrogates)."""
    return re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", label)


def _title(axes: Any, text: str) -> None:
    """The name of the vertical axis, written across, which reads better than upwards."""
    axes.set_title(text, loc="left", color=MUTED, fontsize=_STYLE["font.size"])


def _percent_ticks(axes: Any) -> None:
    from matplotlib.ticker import NullLocator

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks([1e-3, 1e-2, 1e-1, 1], ["0.1%", "1%", "10%", "100%"])
        axis.set_minor_locator(NullLocator())


def _inline(figure: Any, alternative: Alternative) -> str:
    """The figure as an `<svg>` element for an HTML page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())  # noqa: S314 - matplotlib has just written it
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in {f"{_SVG}metadata", f"{_SVG}style"}:
                parent.remove(child)
    for element in root.iter():
        _adopt(element, alternative.name)
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-labelledby": f"{alternative.name}-title"}
    root.attrib["aria-describedby"] = f"{alternative.name}-seen"
    for place, (tag, id, text) in enumerate(
        [("title", "title", alternative.title), ("desc", "seen", alternative.seen)]
    ):
        element = ElementTree.Element(tag, id=f"{alternative.name}-{id}")
        element.text = _printable(text)
        root.insert(place, element)
    return ElementTree.tostring(root, encoding="unicode")


def _adopt(element: ElementTree.Element, name: str) -> None:
    """Takes an element out of matplotlib's namespace, fonts and colours into the page's."""
    element.tag = element.tag.removeprefix(_SVG)
    attributes = {key.removeprefix(_LINK): value for key, value in element.attrib.items()}
    if "id" in attributes:
        attributes["id"] = f"{name}-{attributes['id']}"
    if attributes.get("href", "").startswith("#"):
        attributes["href"] = f"#{name}-{attributes['href'][1:]}"
    for key, value in attributes.items():
        attributes[key] = value.replace("url(#", f"url(#{name}-")
    if "style" in attributes:
        style = re.sub(r"font-family: [^;]*;? ?", "", attributes["style"])
        attributes["style"] = re.sub(r"#00000[1-6]", lambda match: f"var({_VARIABLES[match[0]]})", style)
    element.attrib = attributes
