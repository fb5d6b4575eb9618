"""CrowS-Pairs (Nangia, Vania, Bhalerao and Bowman 2020, EMNLP, 1953-1967): pairs of sentences, one more stereotyping.

A CSV file with columns sent_more, sent_less, stereo_antistereo, bias_type, and the row's number in the first one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trustnlp.data import delimited
from trustnlp.data.records import choice, filled, need_columns, unique, words
from trustnlp.data.tabular import Row

DIRECTIONS = ("stereo", "antistereo")
_COLUMNS = ("sent_more", "sent_less", "stereo_antistereo", "bias_type")


@dataclass(frozen=True)
class StereotypePair:
    """Two sentences that differ in the group they speak of.

    Args:
        id: the row's number, or its place in the file.
        more, less: the sentence that stereotypes more, and the one that does less.
        bias_type: such as "gender".
        direction: "stereo" where `more` states a stereotype of a disadvantaged group, "antistereo" where `less` goes
            against one.
    """

    id: str
    more: str
    less: str
    bias_type: str
    direction: str


def read_crows_pairs(path: str | Path) -> tuple[StereotypePair, ...]:
    """The pairs of an original file (crows_pairs_anonymized.csv), in its order.

    Raises:
        CorpusError: a missing column, an empty sentence, an unknown direction, or two pairs of one id.
    """
    path = Path(path)
    pairs = filled(path, (_pair(path, line, row, n) for n, (line, row) in enumerate(delimited.rows(path))), "pairs")
    unique(path, (pair.id for pair in pairs))
    return pairs


def _pair(path: Path, line: int, row: Row, place: int) -> StereotypePair:
    need_columns(path, line, row, _COLUMNS)
    return StereotypePair(
        str(row.get("") or place),
        words(path, line, row, "sent_more"),
        words(path, line, row, "sent_less"),
        words(path, line, row, "bias_type"),
        choice(path, line, row, "stereo_antistereo", DIRECTIONS),
    )
