"""Toxicity of filled templates (Dixon et al. 2018, AIES, 67-73), and of Wikipedia comments with exchanged identities.

bias_madlibs_77k.csv              Text, Label (BAD or NOT_BAD), Template
en_sentence_templates.csv         phrase, toxicity (toxic or nontoxic), template
toxicity_(non)fuzzed_testset.csv  comment, toxic (True or False), rev_id
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trustnlp.data import delimited
from trustnlp.data.records import choice, filled, words
from trustnlp.data.tabular import Row
from trustnlp.errors import MalformedCorpusError

_TOXIC = {"BAD": True, "NOT_BAD": False, "toxic": True, "nontoxic": False, "True": True, "False": False}
_FORMS = (
    ("Text", "Label", "Template", ("BAD", "NOT_BAD")),
    ("phrase", "toxicity", "template", ("toxic", "nontoxic")),
    ("comment", "toxic", "rev_id", ("True", "False")),
)


@dataclass(frozen=True)
class ToxicityItem:
    """A text, whether it is toxic, and what it was made from: its template, or the comment's number."""

    text: str
    is_toxic: bool
    source: str


def read_madlibs(path: str | Path) -> tuple[ToxicityItem, ...]:
    """The texts of a file in one of the forms above, in its order.

    Raises:
        CorpusError: other columns, an empty text, or an unknown label.
    """
    path = Path(path)
    return filled(path, (_item(path, line, row) for line, row in delimited.rows(path)), "texts")


def _item(path: Path, line: int, row: Row) -> ToxicityItem:
    form = next((form for form in _FORMS if all(name in row for name in form[:3])), None)
    if form is None:
        have = ", ".join(map(repr, row))
        raise MalformedCorpusError(path, line, f"the columns are {have}", f"they must be {', '.join(_FORMS[0][:3])}")
    text, label, source, labels = form
    is_toxic = _TOXIC[choice(path, line, row, label, labels)]
    return ToxicityItem(words(path, line, row, text), is_toxic, words(path, line, row, source))
