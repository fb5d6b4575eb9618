"""Winogender schemas (Rudinger et al. 2018, NAACL, 8-14): an occupation, a participant, and a pronoun of three genders.

    sentid                            sentence
    technician.customer.1.male.txt    The technician told the customer that he could pay with cash.

The digit says whom the pronoun stands for: 0 the occupation, 1 the participant.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from trustnlp.data import delimited
from trustnlp.data.records import filled, need_columns, unique, words
from trustnlp.data.tabular import Row
from trustnlp.errors import MalformedCorpusError

GENDERS = ("male", "female", "neutral")


@dataclass(frozen=True)
class Schema:
    """A sentence with an occupation, a participant and a pronoun.

    Args:
        id: the sentence's name in the file.
        occupation, participant: whom the sentence is about.
        is_occupation: whether the pronoun stands for the occupation.
        gender: of the pronoun.
        text: the sentence.
    """

    id: str
    occupation: str
    participant: str
    is_occupation: bool
    gender: str
    text: str


@dataclass(frozen=True)
class Occupation:
    """How many women there are in an occupation, in percent of all.

    Args:
        name: of the occupation.
        in_text: by how often texts speak of women in it (Bergsma and Lin 2006).
        in_work: by the Bureau of Labor Statistics.
    """

    name: str
    in_text: float
    in_work: float


def read_winogender(path: str | Path) -> tuple[Schema, ...]:
    """The sentences of all_sentences.tsv, in its order.

    Raises:
        CorpusError: a missing column, a name that is not of the form above, or two sentences of one name.
    """
    path = Path(path)
    found = filled(path, (_schema(path, line, row) for line, row in delimited.rows(path)), "sentences")
    unique(path, (schema.id for schema in found))
    return found


def _schema(path: Path, line: int, row: Row) -> Schema:
    need_columns(path, line, row, ("sentid", "sentence"))
    name = words(path, line, row, "sentid")
    pieces = name.removesuffix(".txt").split(".")
    if len(pieces) != 4 or pieces[2] not in ("0", "1") or pieces[3] not in GENDERS:
        mend = "write occupation.participant.0-or-1.gender.txt"
        raise MalformedCorpusError(path, line, f"{name!r} does not name a sentence", mend)
    return Schema(name, pieces[0], pieces[1], pieces[2] == "0", pieces[3], words(path, line, row, "sentence"))


def read_occupation_statistics(path: str | Path) -> tuple[Occupation, ...]:
    """The shares of women of occupations-stats.tsv.

    Raises:
        CorpusError: a missing column, or a share that is no number from 0 to 100.
    """
    path = Path(path)
    return filled(path, (_occupation(path, line, row) for line, row in delimited.rows(path)), "occupations")


def _occupation(path: Path, line: int, row: Row) -> Occupation:
    columns = ("bergsma_pct_female", "bls_pct_female")
    need_columns(path, line, row, ("occupation", *columns))
    shares = [_percent(path, line, row, column) for column in columns]
    return Occupation(words(path, line, row, "occupation"), *shares)


def _percent(path: Path, line: int, row: Row, column: str) -> float:
    try:
        value = float(words(path, line, row, column))
    except ValueError:
        value = math.nan
    if not 0 <= value <= 100:
        raise MalformedCorpusError(path, line, f"{column!r} is {row[column]!r}", "give a number from 0 to 100")
    return value
