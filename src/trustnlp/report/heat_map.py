"""Tokens coloured by a figure of each, as part of a page: colour, underline and number, so that none is needed alone.

Colours are steps of one hue of which the page's ink stays readable on each; the figure is told on hover and to screen
readers. Tokens of the group are underlined. Nothing is fetched, everything is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from trustnlp import checks
from trustnlp.errors import ArgumentError

_STEPS = 5
# Contrast of the ink with the darkest step is above 7 on the light page and above 5 on the dark one.
STYLE = (
    ".heat{--hot:#e98a5b;--ink:#1d1c1a;--rule:#2456a6;color:var(--ink);margin:.5rem 0 1rem}"
    "@media screen and (prefers-color-scheme:dark){.heat{--hot:#a3541a;--ink:#ecebe7;--rule:#9dc1f7}}"
    ".heat p{margin:.35rem 0;line-height:2}"
    ".heat span.t{padding:.1em .25em;border-radius:.2em;margin-right:.15em}"
    ".heat span.g{text-decoration:underline;text-decoration-color:var(--rule);"
    "text-decoration-thickness:.15em;text-underline-offset:.25em}"
    + "".join(
        f".heat .h{step}{{background:color-mix(in srgb,var(--hot) {100 * step // (_STEPS - 1)}%,transparent)}}"
        for step in range(_STEPS)
    )
    + ".heat .said{font-size:.85em;opacity:.85;margin-left:.5em;white-space:nowrap}"
    ".heat .hidden{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}"
    ".heat .legend{font-size:.85em;line-height:1.8}"
)


@dataclass(frozen=True)
class Row:
    """One text to be shown.

    Args:
        tokens: L of them; empty ones (special tokens) are left out.
        values: (L,) the figure of each, finite, >= 0.
        marked: (L,) in [0, 1]: above a half, or if the largest of the row and above 0, the token is underlined.
        said: what stands behind the text, such as the predicted label.
    """

    tokens: Sequence[str]
    values: Sequence[float]
    marked: Sequence[float]
    said: str = ""

    def __post_init__(self) -> None:
        checks.same_length(tokens=self.tokens, values=self.values, marked=self.marked)
        if not all(0 <= value < float("inf") for value in self.values):
            raise ArgumentError("values", "finite numbers >= 0", list(self.values))


def html(rows: Sequence[Row], *, figure: str = "sensitivity", marks: str = "tells the group") -> str:
    """A heat map of texts, one paragraph each, with its legend; colours are on one scale over all rows.

    Args:
        rows: at least one.
        figure: what the colour means, in one word.
        marks: what the underline means.
    """
    checks.not_empty("rows", rows)
    top = max((value for row in rows for value in row.values), default=0.0)
    body = "".join(_paragraph(row, top, figure, marks) for row in rows)
    return f'<style>{STYLE}</style><div class="heat">{body}{_legend(top, figure, marks)}</div>'


def _paragraph(row: Row, top: float, figure: str, marks: str) -> str:
    most = max(row.marked, default=0.0)
    tokens = [
        _token(token, value, top, mark > 0.5 or (mark > 0 and mark == most), figure, marks)
        for token, value, mark in zip(row.tokens, row.values, row.marked, strict=True)
        if token
    ]
    said = f'<span class="said">{escape(row.said)}</span>' if row.said else ""
    return f"<p>{' '.join(tokens)}{said}</p>"


def _token(token: str, value: float, top: float, is_marked: bool, figure: str, marks: str) -> str:
    told = f"{figure} {value:.3g}" + (f", {marks}" if is_marked else "")
    kind = f"t h{_step(value, top)}" + (" g" if is_marked else "")
    spoken = f'<span class="hidden"> ({escape(told)})</span>' if is_marked else ""
    return f'<span class="{kind}" title="{escape(told)}">{escape(token)}</span>{spoken}'


def _step(value: float, top: float) -> int:
    return round((_STEPS - 1) * value / top) if top > 0 else 0


def _legend(top: float, figure: str, marks: str) -> str:
    steps = "".join(
        f'<span class="t h{step}">{top * step / (_STEPS - 1):.2g}</span> ' for step in range(_STEPS if top > 0 else 1)
    )
    return f'<p class="legend">{escape(figure)} {steps}<span class="t g">underlined</span> {escape(marks)}</p>'
