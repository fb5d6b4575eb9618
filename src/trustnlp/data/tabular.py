"""Examples from rows with named columns, whatever file the rows come from.

Columns are found by their names or common synonyms, or named outright by `columns`, a mapping from roles (text,
label, user, group, time, tags, question, answers, target, split) to column names, or to positions from 0 where the
file has no header. Questions, answers and targets have no synonyms: a column of summaries may well stand beside reviews
to be classified. Answers are lists of {"answer_start", "text"}, or a mapping from both names to lists, as `datasets`
keeps SQuAD's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trustnlp.data import bio
from trustnlp.data.corpus import Answer, Example
from trustnlp.errors import ArgumentError, MalformedCorpusError

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")

Column = str | int
Row = Mapping[Any, Any]
Placed = tuple[str | None, Example]
"""An example and the split it names, if any."""

SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "text": (
        *("text", "utterance", "sentence", "query", "question", "tweet", "review", "reviewText"),
        *("content", "comment", "message", "body", "document", "tokens", "words"),
    ),
    "label": ("label", "category", "intent", "class", "sentiment", "rating", "stars", "target"),
    "user": ("user", "user_id", "speaker", "speaker_id", "author", "author_id"),
    "group": ("group", "speaker_group", "demographic"),
    "time": ("time", "timestamp", "date", "datetime", "created_at", "unixReviewTime"),
    "tags": ("tags", "slots", "bio_tags", "ner_tags"),
}
_FOLDED = {role: {name.lower().replace("_", "") for name in names} for role, names in SYNONYMS.items()}
ROLES = (*SYNONYMS, "question", "answers", "target", "split")

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "dev", "development"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What the splits are called by others, and here."""


def refuse_empty(path: Path, line: int) -> None:
    """What is done about a row without text unless asked otherwise: it raises."""
    raise MalformedCorpusError(path, line, "an empty text", "remove the row, or leave such rows out (skip_empty)")


@dataclass(frozen=True)
class Options:
    """How rows are read.

    Args:
        columns: column by role; roles that are not named are found by synonym.
        label_names: names for labels that are codes.
        on_empty: called with path and line for each row without text; the row is left out if it returns.
    """

    columns: Mapping[str, Column] = field(default_factory=dict)
    label_names: Mapping[str, str] = field(default_factory=dict)
    on_empty: Callable[[Path, int], None] = refuse_empty

    def __post_init__(self) -> None:
        for role in self.columns:
            if role not in ROLES:
                raise ArgumentError("columns", "a mapping from " + ", ".join(ROLES), role)

    @property
    def has_header(self) -> bool:
        """Whether columns have names: they have unless `columns` gives positions."""
        return not any(isinstance(column, int) for column in self.columns.values())


def examples(path: Path, rows: Iterator[tuple[int, Row]], options: Options) -> Iterator[Placed]:
    """The examples of `rows`, with their splits where a column names them.

    Raises:
        MalformedCorpusError: with path and line: no column holds the text, several may, or a row lacks its text,
            its label or its split, or has a value that cannot be read.
    """
    roles: dict[str, Column] = {}
    first: set[Column] = set()
    for line, row in rows:
        if not roles:
            roles, first = resolve(path, list(row), options.columns), set(row)
        elif row.keys() != first:
            _check_same_roles(path, line, row, roles)
        text = _text(path, line, row.get(roles["text"]))
        if text:
            yield _split(path, line, row, roles), _example(path, line, row, text, roles, options)
        else:
            options.on_empty(path, line)


def resolve(path: Path, names: list[Column], wanted: Mapping[str, Column]) -> dict[str, Column]:
    """The column of each role that `names` has, `wanted` first, then by synonym.

    Raises:
        MalformedCorpusError: a wanted column is missing, no column is the text, or several may be.
    """
    listed = ", ".join(repr(name) for name in names)
    for role, column in wanted.items():
        if column not in names:
            raise MalformedCorpusError(path, 1, f"no column {column!r} for the {role}", f"the columns are {listed}")
    roles = dict(wanted)
    for role in SYNONYMS:
        free = [name for name in names if name not in wanted.values() and _is_synonym(name, role)]
        exact = [name for name in free if name == role]
        if role not in roles and len(exact or free) > 1:
            several = ", ".join(repr(name) for name in free)
            mend = f"say which with columns={{'{role}': …}}"
            raise MalformedCorpusError(path, 1, f"several columns may be the {role}: {several}", mend)
        if role not in roles and free:
            roles[role] = (exact or free)[0]
    if "text" not in roles:
        mend = f"the columns are {listed}: say which is the text with columns={{'text': …}}"
        raise MalformedCorpusError(path, 1, "no column holds the text", mend)
    return roles


def _is_synonym(name: Column, role: str) -> bool:
    return str(name).lower().replace("_", "") in _FOLDED[role]


def _check_same_roles(path: Path, line: int, row: Row, roles: Mapping[str, Column]) -> None:
    # A key that only later rows have would be silently left out.
    for role in SYNONYMS:
        late = [name for name in row if role not in roles and _is_synonym(name, role)]
        if late:
            raise MalformedCorpusError(path, line, f"{late[0]!r} is here but not in the first row", "give all rows one")


def _example(path: Path, line: int, row: Row, text: str, roles: Mapping[str, Column], options: Options) -> Example:
    values = {role: row.get(column) for role, column in roles.items()}
    label = None
    if "label" in roles:
        label = _name(path, line, "label", values["label"])
        if label is None:
            raise MalformedCorpusError(path, line, "no label, as other rows have one", "label the row or remove it")
        label = options.label_names.get(label, label)
    return Example(
        text,
        label=label,
        tags=_tags(path, line, values["tags"], len(text.split())) if "tags" in roles else None,
        user=_name(path, line, "user", values.get("user")),
        group=_name(path, line, "group", values.get("group")),
        time=_time(path, line, values.get("time")),
        question=_wanted(path, line, "question", values["question"]) if "question" in roles else None,
        answers=_answers(path, line, values["answers"], values["text"], text) if "answers" in roles else None,
        target=_wanted(path, line, "target", values["target"]) if "target" in roles else None,
    )


def _wanted(path: Path, line: int, role: str, value: Any) -> str:
    text = _text(path, line, value)
    if not text:
        raise MalformedCorpusError(path, line, f"no {role}, as other rows have one", "give one or remove the row")
    return text


def _answers(path: Path, line: int, value: Any, raw: Any, text: str) -> tuple[Answer, ...]:
    """Answers by their places in `text`, which may have lost white space of `raw` at its start."""
    lost = len(raw) - len(raw.lstrip()) if isinstance(raw, str) else 0
    try:
        found = tuple(Answer(int(start) - lost, str(piece)) for start, piece in _pairs(value))
        Example(text, question="?", answers=found)
    except (KeyError, TypeError, ValueError) as error:
        reason = str(error) if isinstance(error, ArgumentError) else "the answers are no lists of answer_start and text"
        raise MalformedCorpusError(path, line, reason, "mend or remove the row") from None
    return found


def _pairs(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return list(zip(value["answer_start"], value["text"], strict=True))
    return [(answer["answer_start"], answer["text"]) for answer in value]


def _split(path: Path, line: int, row: Row, roles: Mapping[str, Column]) -> str | None:
    if "split" not in roles:
        return None
    value = str(row.get(roles["split"])).strip().lower()
    if value not in SPLITS:
        raise MalformedCorpusError(path, line, f"{value[:40]!r} is no split", "write train, valid or test")
    return SPLITS[value]


def _text(path: Path, line: int, value: Any) -> str:
    if isinstance(value, list):
        if not all(isinstance(token, str) and len(token.split()) == 1 for token in value):
            raise MalformedCorpusError(path, line, "a token that is empty, no text or holds a space", "mend the list")
        return " ".join(token.strip() for token in value)
    if value is not None and not isinstance(value, str):
        raise MalformedCorpusError(path, line, f"the text is of type {type(value).__name__}", "write it as a string")
    return (value or "").strip()


def _name(path: Path, line: int, role: str, value: Any) -> str | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if not isinstance(value, str | int | float):
        raise MalformedCorpusError(path, line, f"the {role} is of type {type(value).__name__}", "write one name")
    return str(value).strip() or None


def _tags(path: Path, line: int, value: Any, tokens: int) -> tuple[str, ...]:
    tags = value.split() if isinstance(value, str) else value
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise MalformedCorpusError(path, line, "the tags are no list of BIO tags", "write one tag per token")
    if len(tags) != tokens:
        raise MalformedCorpusError(path, line, f"{len(tags)} tags for {tokens} tokens", "give every token one tag")
    return bio.check(path, line, tags)


def _time(path: Path, line: int, value: Any) -> float | None:
    if value is None or value == "":
        return None
    try:
        seconds = _seconds(value)
    except (ValueError, TypeError, OverflowError):
        seconds = math.nan
    if not math.isfinite(seconds):
        mend = "write seconds or a date such as 2014-02-28"
        raise MalformedCorpusError(path, line, f"{str(value)[:40]!r} is no time", mend)
    return seconds


def _seconds(value: Any) -> float:
    if isinstance(value, str) and not _NUMBER.fullmatch(value.strip()):
        value = datetime.fromisoformat(value.strip())
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return float(value)
