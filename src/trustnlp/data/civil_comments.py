"""Civil Comments with identities (Borkan et al. 2019, WWW companion, 491-500), by its public schema.

CSV or JSON lines with `comment_text` (or `text`), `target` (or `toxicity`), the share of annotators who found the
comment toxic, and a column for each identity, the share who saw it mentioned; identities that nobody was asked about
are empty.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trustnlp.data import delimited, json_lines
from trustnlp.data.records import filled, words
from trustnlp.data.tabular import Row
from trustnlp.errors import MalformedCorpusError

IDENTITIES = (
    "male",
    "female",
    "transgender",
    "other_gender",
    "heterosexual",
    "homosexual_gay_or_lesbian",
    "bisexual",
    "other_sexual_orientation",
    "christian",
    "jewish",
    "muslim",
    "hindu",
    "buddhist",
    "atheist",
    "other_religion",
    "black",
    "white",
    "asian",
    "latino",
    "other_race_or_ethnicity",
    "physical_disability",
    "intellectual_or_learning_disability",
    "psychiatric_or_mental_illness",
    "other_disability",
)
_TEXT, _TOXICITY = ("comment_text", "text"), ("target", "toxicity")


@dataclass(frozen=True)
class Comment:
    """A comment.

    Args:
        text: of the comment.
        toxicity: share of annotators who found it toxic, in [0, 1].
        identities: share who saw each identity mentioned, in [0, 1]; empty where nobody was asked.
    """

    text: str
    toxicity: float
    identities: Mapping[str, float]


def read_civil_comments(path: str | Path) -> tuple[Comment, ...]:
    """The comments of a file, in its order.

    Raises:
        CorpusError: no column of texts or of toxicity, no column of an identity, or a share that is no number from 0
            to 1.
    """
    path = Path(path)
    rows = json_lines.rows(path) if path.suffix.lower() in (".jsonl", ".ndjson") else delimited.rows(path)
    return filled(path, (_comment(path, line, row) for line, row in rows), "comments")


def _comment(path: Path, line: int, row: Row) -> Comment:
    identities = [name for name in IDENTITIES if name in row]
    if not identities:
        raise MalformedCorpusError(path, line, "no column of an identity", f"such as {', '.join(IDENTITIES[:3])}")
    toxicity = _share(path, line, row, _column(path, line, row, _TOXICITY))
    if toxicity is None:
        raise MalformedCorpusError(path, line, "the comment has no toxicity", "remove the row")
    found = {name: _share(path, line, row, name) for name in identities}
    named = {name: share for name, share in found.items() if share is not None}
    return Comment(words(path, line, row, _column(path, line, row, _TEXT)), toxicity, named)


def _column(path: Path, line: int, row: Row, names: tuple[str, ...]) -> str:
    found = next((name for name in names if name in row), None)
    if found is None:
        have = ", ".join(map(repr, row))
        raise MalformedCorpusError(path, line, f"no column {' or '.join(map(repr, names))}", f"the columns are {have}")
    return found


def _share(path: Path, line: int, row: Row, name: str) -> float | None:
    value = row[name]
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        share = float(value)
    except (TypeError, ValueError):
        share = math.nan
    if not 0 <= share <= 1:
        raise MalformedCorpusError(path, line, f"{name!r} is {value!r}", "give a number from 0 to 1, or nothing")
    return share
