"""Lists of gendered words, pairs and occupations.

female_word_file.txt, male_word_file.txt           one word a line, line by line a pair (Zhao et al. 2018, EMNLP)
definitional_pairs.json, equalize_pairs.json       [["woman", "man"], …] (Bolukbasi et al. 2016, NeurIPS)
gender_specific_full.json                          ["he", "his", …]
professions.json                                   [["nurse", definitional, stereotypical], …], each in [-1, 1]
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trustnlp.data import json_lines
from trustnlp.data.lines import lines
from trustnlp.data.records import filled
from trustnlp.errors import MalformedCorpusError


@dataclass(frozen=True)
class Profession:
    """An occupation and how gendered people take it to be, -1 (women) to 1 (men): by definition, and by stereotype."""

    name: str
    definitional: float
    stereotypical: float


def read_word_lists(path: str | Path) -> tuple[str, ...]:
    """The words of a text file, one a line, or of a JSON list; repeated words are kept, as pairs go by place.

    Raises:
        CorpusError: no words, or JSON of another structure.
    """
    path = Path(path)
    if path.suffix.lower() != ".json":
        return filled(path, (line.strip() for _, line in lines(path) if line.strip()), "words")
    return filled(path, (_word(path, place, word) for place, word in _elements(path)), "words")


def read_word_pairs(path: str | Path) -> tuple[tuple[str, str], ...]:
    """The pairs of a JSON list of pairs, in their order.

    Raises:
        CorpusError: no pairs, or JSON of another structure.
    """
    path = Path(path)
    pairs = []
    for place, pair in _elements(path):
        if not isinstance(pair, list) or len(pair) != 2:
            raise MalformedCorpusError(path, None, f"element {place} is no pair", 'write ["woman", "man"]')
        pairs.append((_word(path, place, pair[0]), _word(path, place, pair[1])))
    return filled(path, pairs, "pairs")


def read_professions(path: str | Path) -> tuple[Profession, ...]:
    """The occupations of professions.json, in their order.

    Raises:
        CorpusError: no occupations, or an entry that is not a name and two numbers in [-1, 1].
    """
    path = Path(path)
    found = []
    for place, entry in _elements(path):
        numbers = entry[1:] if isinstance(entry, list) else []
        if len(numbers) != 2 or not all(isinstance(number, int | float) and -1 <= number <= 1 for number in numbers):
            raise MalformedCorpusError(path, None, f"element {place} is no occupation", 'write ["nurse", -0.1, -0.9]')
        found.append(Profession(_word(path, place, entry[0]), float(numbers[0]), float(numbers[1])))
    return filled(path, found, "occupations")


def _elements(path: Path) -> list[tuple[int, Any]]:
    values = json_lines.whole(path)
    if not isinstance(values, list):
        raise MalformedCorpusError(path, None, "no JSON array", "give the original file")
    return list(enumerate(values, start=1))


def _word(path: Path, place: int, word: Any) -> str:
    if not isinstance(word, str) or not word.strip():
        raise MalformedCorpusError(path, None, f"element {place} is no word", "mend or remove it")
    return word.strip()
