"""WinoBias (Zhao et al. 2018, NAACL, 15-20): sentences of two occupations and a pronoun that stands for one of them.

    3 [The mechanic] gave the clerk a present because [he] won the lottery.

The brackets are around the occupation and its pronouns; a line's number is the same in the pro- and the anti-
stereotyped file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from trustnlp.data.lines import lines
from trustnlp.data.records import filled
from trustnlp.errors import MalformedCorpusError

MALE, FEMALE = ("he", "him", "his", "himself"), ("she", "her", "hers", "herself")
_LINE = re.compile(r"\s*(\d+)\s+(\S.*?)\s*")
_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
_ARTICLE = re.compile(r"^(the|an?|some)\s+", re.IGNORECASE)


@dataclass(frozen=True)
class OccupationSentence:
    """A sentence whose pronouns stand for one of its occupations.

    Args:
        id: the line's number in the file.
        text: without brackets.
        occupation: that the pronouns stand for, without its article.
        pronouns: that stand for it, as they stand in the text.
        gender: of the pronouns, "male" or "female".
    """

    id: str
    text: str
    occupation: str
    pronouns: tuple[str, ...]
    gender: str


def read_winobias(path: str | Path) -> tuple[OccupationSentence, ...]:
    """The sentences of an original file, such as pro_stereotyped_type1.txt.dev.

    Raises:
        CorpusError: a line without number, without one bracketed occupation and bracketed pronouns of one
            gender.
    """
    path = Path(path)
    found = (_sentence(path, number, line) for number, line in lines(path) if line.strip())
    return filled(path, found, "sentences")


def _sentence(path: Path, number: int, line: str) -> OccupationSentence:
    match = _LINE.fullmatch(line)
    mend = "write: 1 [The clerk] left because [he] was late."
    if match is None:
        raise MalformedCorpusError(path, number, "the line does not begin with its number", mend)
    marked = [piece.strip() for piece in _BRACKETS.findall(match[2])]
    pronouns = tuple(piece for piece in marked if piece.lower() in MALE + FEMALE)
    occupations = [piece for piece in marked if piece.lower() not in MALE + FEMALE]
    genders = {"male" if piece.lower() in MALE else "female" for piece in pronouns}
    if len(genders) != 1 or len(occupations) != 1:
        reason = f"{len(occupations)} occupations and pronouns of {len(genders)} genders in [brackets]"
        raise MalformedCorpusError(path, number, reason, mend)
    text = _BRACKETS.sub(lambda piece: piece[1].strip(), match[2])
    return OccupationSentence(match[1], text, _ARTICLE.sub("", occupations[0]), pronouns, genders.pop())


def read_occupations(path: str | Path) -> tuple[str, ...]:
    """The occupations of male_occupations.txt or female_occupations.txt, one a line.

    Raises:
        CorpusError: there are none.
    """
    path = Path(path)
    return filled(path, (line.strip() for _, line in lines(path) if line.strip()), "occupations")
