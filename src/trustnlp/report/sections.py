"""What a report shows, in which order: verdicts by question and model, and the sections that back them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trustnlp.report import figures
from trustnlp.report.explanations import (
    DETAILS,
    EXPLANATIONS,
    QUESTIONS,
    Explanation,
    Question,
    certainty,
    explain,
    figure,
    good,
    sentence,
)
from trustnlp.results import Direction, Finding, Results, Tone, Verdict

_WORST_FIRST = (Tone.BAD, Tone.UNKNOWN, Tone.GOOD, Tone.NEUTRAL)
ALL = ""  # the regime of findings about the corpus, which concern every model


@dataclass(frozen=True)
class Fact:
    """A figure as a sentence, and its interval and n in short."""

    says: str
    sure: str = ""


@dataclass(frozen=True)
class Cell:
    """The answer to one question for one model: the worst verdict, the figures behind it, and a count of the rest."""

    verdict: Verdict | None
    facts: tuple[Fact, ...]
    tally: str = ""


@dataclass(frozen=True)
class Answer:
    """One row of verdicts; `shared` says that its one cell holds for every model."""

    question: Question
    cells: tuple[Cell, ...]
    shared: bool


@dataclass(frozen=True)
class Line:
    """One row of a card: its name and a text for every finding."""

    name: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Card:
    """One figure explained: the findings of one id, one for every model that has it, side by side.

    `means` and `good` are empty where the card before has said the same (of another attack, for instance).
    """

    id: str
    title: str
    findings: tuple[Finding, ...]
    lines: tuple[Line, ...]
    more: tuple[Line, ...]
    means: str
    good: str
    source: str


@dataclass(frozen=True)
class Section:
    """One question with its plots and cards."""

    question: Question
    figures: tuple[figures.Figure, ...]
    cards: tuple[Card, ...]


def regimes(results: Results) -> tuple[str, ...]:
    """The models of a run: as the run names them, then any that only findings name."""
    named = results.run.get("regimes")
    declared = list(named) if isinstance(named, Mapping) else []
    met = [finding.regime for finding in results if finding.regime != ALL]
    return tuple(dict.fromkeys([*declared, *met]))


def question_of(finding: Finding) -> str:
    """The name of the question a finding answers."""
    entry = explain(finding.id)
    return entry.question if entry else "other"


def answers(results: Results) -> list[Answer]:
    """The rows of verdicts, one a question that the run has any finding for."""
    rows = []
    for question in QUESTIONS:
        own = [finding for finding in results if question_of(finding) == question.name]
        if not own or question.name == "other":
            continue
        shared = all(finding.regime == ALL for finding in own)
        columns = (ALL,) if shared else regimes(results)
        cells = (_cell(question, [f for f in own if f.regime in {regime, ALL}]) for regime in columns)
        rows.append(Answer(question, tuple(cells), shared))
    return rows


def _cell(question: Question, findings: Sequence[Finding]) -> Cell:
    if not findings:
        return Cell(None, (Fact(question.unasked),))
    # A figure that these data cannot give (a rate below 1/n) is counted, but does not hide those that they do give.
    measured = [finding for finding in findings if finding.value is not None] or findings
    ranked = sorted(measured, key=_worst_first)
    worst = [finding for finding in ranked if finding.verdict.tone is ranked[0].verdict.tone]
    counts = Counter(finding.verdict.value for finding in sorted(findings, key=_worst_first))
    tally = " · ".join(f"{count} {word}" for word, count in counts.items()) if len(counts) > 1 else ""
    return Cell(ranked[0].verdict, tuple(_fact(finding) for finding in worst[: question.facts]), tally)


def _worst_first(finding: Finding) -> tuple[int, tuple[int, float]]:
    return _WORST_FIRST.index(finding.verdict.tone), _priority(finding)


def _priority(finding: Finding) -> tuple[int, float]:
    """The figure that says most comes first, and of several like it the one that is furthest on the wrong side."""
    sign = {Direction.LOWER: -1, Direction.HIGHER: 1}.get(finding.direction, 0)
    return _place(finding.id), sign * (finding.value or 0.0)


def _fact(finding: Finding) -> Fact:
    count = f"n\u00a0=\u00a0{finding.n:,}" if finding.n is not None else ""
    return Fact(sentence(finding), ", ".join(filter(None, [finding.interval(), count])))


def summary(results: Results) -> list[str]:
    """One sentence a model: how many questions raise a concern and how many stay open."""
    columns = regimes(results)
    sentences = []
    for place, regime in enumerate(columns):
        cells = [row.cells[0 if row.shared else place] for row in answers(results)]
        tones = Counter(cell.verdict.tone for cell in cells if cell.verdict)
        concerns, open_ = tones[Tone.BAD], tones[Tone.UNKNOWN]
        raised = f"raises {_count(concerns, 'concern')}" if concerns else "raises no concern that this run could find"
        left = f", and leaves {_count(open_, 'question')} open for lack of evidence" if open_ else ""
        sentences.append(f"{regime} {raised}{left}.")
    return sentences


def _count(number: int, noun: str) -> str:
    words = ("no", "one", "two", "three", "four", "five", "six")
    return f"{words[number] if number < len(words) else number} {noun}{'' if number == 1 else 's'}"


def sections(results: Results) -> list[Section]:
    """The sections in the order of the questions; a question without findings has none."""
    made = []
    for question in QUESTIONS:
        own = [finding for finding in results if question_of(finding) == question.name]
        if own:
            ids = sorted(dict.fromkeys(finding.id for finding in own), key=_place)
            cards = [_card(id, [f for f in own if f.id == id], regimes(results)) for id in ids]
            made.append(Section(question, tuple(figures.of(question.name, own)), tuple(_without_repeats(cards))))
    return made


def _place(id: str) -> int:
    """Place in the table of explanations."""
    entry = explain(id)
    return EXPLANATIONS.index(entry) if entry else len(EXPLANATIONS)


def _without_repeats(cards: Sequence[Card]) -> Iterator[Card]:
    said: tuple[str, str] | None = None
    for card in cards:
        yield replace(card, means="", good="") if (card.means, card.good) == said else card
        said = (card.means, card.good)


def _card(id: str, own: Sequence[Finding], every: Sequence[str]) -> Card:
    found = sorted(own, key=lambda finding: [ALL, *every].index(finding.regime))
    lines = [
        Line("In words", tuple(sentence(finding) for finding in found)),
        Line("How sure we are", tuple(certainty(finding) for finding in found)),
    ]
    keys = dict.fromkeys(key for f in found for key in f.details if any(_detail(other, key) for other in found))
    lines += [_detail_line(key, found) for key in DETAILS if key in keys]
    more = tuple(_detail_line(key, found) for key in keys if key not in DETAILS)
    entry: Explanation | None = explain(id)
    means = entry.means if entry else "A figure that this version of the report has no explanation for."
    sources = dict.fromkeys(finding.source for finding in own if finding.source)
    return Card(id, own[0].title, tuple(found), tuple(lines), more, means, good(own[0]), "; ".join(sources))


def _detail_line(key: str, found: Sequence[Finding]) -> Line:
    name = DETAILS.get(key) or key.replace("_", " ").capitalize()
    return Line(name, tuple(_detail(finding, key) for finding in found))


def _detail(finding: Finding, key: str) -> str:
    """A detail as text; empty where there is none, or where it is a structure that plots and tables show."""
    value = finding.details.get(key)
    if key == "attack_ceiling" and isinstance(value, Mapping):
        return ", ".join(f"{_share(rate)} at {_share(at)} false alarms" for at, rate in value.items())
    if key in {"minimum_detectable_effect", "margin", "target"} and isinstance(value, int | float):
        return figure(finding, value)
    texts = isinstance(value, list | tuple) and all(isinstance(entry, str) for entry in value)
    return plain(value) if texts or isinstance(value, str | int | float) else ""


def _share(value: Any) -> str:
    try:
        return f"{100 * float(value):.3g}%"
    except (TypeError, ValueError):
        return str(value)


def plain(value: Any) -> str:
    """A JSON value as a reader wants it: grouped digits, no binary-looking fractions, lists by semicolons."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return re.sub(r"e([+-])0+", r"e\1", f"{value:.4g}")
    if isinstance(value, list | tuple):
        return "; ".join(plain(entry) for entry in value)
    return str(value)
