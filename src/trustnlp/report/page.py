"""The report: one results.json in, one self-contained HTML file out.

The page fetches nothing and runs no script (its own policy forbids both); every string that comes from a run is
escaped; the same results give the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2

from trustnlp import files
from trustnlp.report import sections, study
from trustnlp.report.explanations import GLOSSARY, LIMITS, MARKS, REGIMES, figure
from trustnlp.results import Results

FILE_NAME = "report.html"

# Key of the run record -> its name for the reader; other keys follow under their own names.
_RECORD = {
    "command": "Command",
    "created": "Made on",
    "seed": "Seed",
    "seconds": "Time taken (seconds)",
    "hardware": "Computer",
    "versions": "Software",
    "corpus": "Texts",
    "regimes": "Models",
    "hashes": "Fingerprints (SHA-256)",
    "study": "Study",
}


# Not strftime's, whose names follow the machine's language.
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


def render(results: Results) -> str:
    """The report of a run as one HTML document without scripts, links or requests."""
    folder = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(figure=figure, marks=MARKS, plain=sections.plain)
    template, content = ("study", _study(results)) if study.is_study(results) else ("page", _assessment(results))
    page = environment.get_template(f"{template}.html.jinja").render(
        style=(folder / "page.css").read_text(encoding="utf-8"),
        created=_day(results.run.get("created")),
        record=list(_record(_without_seed(results))),
        history=_history(results.run),
        **content,
    )
    return page.encode("utf-8", "replace").decode("utf-8")  # half surrogates, which JSON may hold and UTF-8 may not


def _assessment(results: Results) -> dict[str, Any]:
    return {
        "kind": "Trust report",
        "title": _title(results.run),
        "regimes": [(regime, REGIMES.get(regime, "")) for regime in sections.regimes(results)],
        "summary": sections.summary(results),
        "answers": sections.answers(results),
        "sections": sections.sections(results),
        "glossary": GLOSSARY,
        "limits": LIMITS,
    }


def _study(results: Results) -> dict[str, Any]:
    about = _mapping(results.run["study"])
    return {
        "kind": f"Study {about.get('system', '')}".strip(),
        "title": str(about.get("name", "")).replace("-", " ").capitalize(),
        "about": str(about.get("claim", "")),
        "claim": study.claim(results),
        "says": study.says(results),
        "sections": study.sections(results),
    }


def write(folder: str | Path, results: Results) -> Path:
    """Writes `folder`/report.html, whole or not at all, and returns its path."""
    path = Path(folder) / FILE_NAME
    files.write_text(path, render(results))
    return path


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _title(run: Mapping[str, Any]) -> str:
    corpus = run.get("corpus")
    name = _mapping(corpus).get("name") if isinstance(corpus, Mapping) else corpus
    return str(name) if name else "an assessed model"


def _day(created: Any) -> str:
    """An ISO time as a reader writes it, in its own time zone; anything else as it is."""
    try:
        moment = datetime.fromisoformat(created)
    except (TypeError, ValueError):
        return "" if created is None else str(created)
    zone = moment.tzname() or ""
    return f"{moment.day} {_MONTHS[moment.month - 1]} {moment.year}, {moment:%H:%M} {zone}".strip()


def _without_seed(results: Results) -> Mapping[str, Any]:
    """The run record; after private training without its seed, from which the noise could be computed again."""
    if not any(finding.id == "epsilon" for finding in results):
        return results.run
    kept = "not shown: whoever knows it can compute the noise again and undo the protection (it is in results.json)"
    hidden = {"seed": kept, "command": re.sub(r"(--seed[= ]+)\S+", r"\1…", str(results.run.get("command", "")))}
    return {key: hidden.get(key, value) for key, value in results.run.items()}


def _record(run: Mapping[str, Any]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The run record as named lists of (name, text); training histories have a table of their own."""
    for key in [*_RECORD, *(key for key in run if key not in _RECORD)]:
        if key in run:
            yield _RECORD.get(key, key.replace("_", " ").capitalize()), list(_flat(run[key]))


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key != "history":
                yield from _flat(inner, f"{name} › {key}" if name else str(key))
    elif isinstance(value, list | tuple) and any(isinstance(entry, Mapping) for entry in value):
        yield name, f"{len(value)} records in results.json"
    else:  # a seed or a version is a name, so its digits are not grouped
        yield name, str(value) if isinstance(value, int) else sections.plain(value)


def _history(run: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """For every model with a training history: its name, the columns and the rows."""
    tables = []
    for regime, record in _mapping(run.get("regimes")).items():
        history = _mapping(record).get("history")
        if isinstance(history, list | tuple) and history and all(isinstance(entry, Mapping) for entry in history):
            columns = list(dict.fromkeys(key for entry in history for key in entry))
            rows = [[sections.plain(entry.get(column)) for column in columns] for entry in history]
            tables.append((str(regime), [str(column) for column in columns], rows))
    return tables
