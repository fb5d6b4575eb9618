"""Bias in Bios (De-Arteaga et al. 2019, FAT*, 120-128): online biographies with occupation and gender.

A CSV or JSON lines file with columns hard_text (the biography without its first sentence, which tells the
occupation), profession and gender. Genders are Male and Female, M and F, or 0 and 1; professions may be codes, whose
names in order are `PROFESSIONS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trustnlp.data import delimited, json_lines
from trustnlp.data.records import filled, need_columns, words
from trustnlp.data.tabular import Row
from trustnlp.errors import MalformedCorpusError

GENDERS = {"male": "male", "female": "female", "m": "male", "f": "female", "0": "male", "1": "female"}
PROFESSIONS = (
    "accountant",
    "architect",
    "attorney",
    "chiropractor",
    "comedian",
    "composer",
    "dentist",
    "dietitian",
    "dj",
    "filmmaker",
    "interior_designer",
    "journalist",
    "model",
    "nurse",
    "painter",
    "paralegal",
    "pastor",
    "personal_trainer",
    "photographer",
    "physician",
    "poet",
    "professor",
    "psychologist",
    "rapper",
    "software_engineer",
    "surgeon",
    "teacher",
    "yoga_teacher",
)


@dataclass(frozen=True)
class Biography:
    """One person's biography; text, profession, and gender as "male" or "female"."""

    text: str
    profession: str
    gender: str


def read_bios(path: str | Path) -> tuple[Biography, ...]:
    """The biographies of a file, in its order.

    Raises:
        CorpusError: a missing column, an empty text, or a gender or profession code that is not known.
    """
    path = Path(path)
    rows = json_lines.rows(path) if path.suffix.lower() in (".jsonl", ".ndjson") else delimited.rows(path)
    return filled(path, (_biography(path, line, row) for line, row in rows), "biographies")


def _biography(path: Path, line: int, row: Row) -> Biography:
    need_columns(path, line, row, ("hard_text", "profession", "gender"))
    codes = {name: str(row[name]).strip() for name in ("profession", "gender")}
    gender = GENDERS.get(codes["gender"].lower())
    if gender is None:
        raise MalformedCorpusError(
            path, line, f"'gender' is {codes['gender']!r}", "it must be Male, Female, M, F, 0 (male) or 1"
        )
    if codes["profession"].isdecimal():
        number = int(codes["profession"])
        if number >= len(PROFESSIONS):
            mend = f"codes go from 0 to {len(PROFESSIONS) - 1}; or write names"
            raise MalformedCorpusError(path, line, f"'profession' is {number}", mend)
        profession = PROFESSIONS[number]
    else:
        profession = words(path, line, codes, "profession")
    return Biography(words(path, line, row, "hard_text"), profession, gender)
