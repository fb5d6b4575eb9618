"""StereoSet (Nadeem, Bethke and Reddy 2021, ACL, 5356-5371): a context, and three ways to go on from it.

{"data": {"intrasentence": [{"id": …, "bias_type": …, "target": …, "context": "… BLANK …", "sentences": [
    {"sentence": …, "gold_label": "stereotype" | "anti-stereotype" | "unrelated"}, … three of them]}, …],
          "intersentence": [the same, with a whole sentence as context]}}
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trustnlp.data import json_lines
from trustnlp.data.records import choice, filled, listed, unique, words
from trustnlp.errors import MalformedCorpusError

StereoKind = Literal["intrasentence", "intersentence"]
KINDS: tuple[StereoKind, ...] = ("intrasentence", "intersentence")
BLANK = "BLANK"
_LABELS = ("stereotype", "anti-stereotype", "unrelated")


@dataclass(frozen=True)
class StereoItem:
    """A context with its three sentences.

    Args:
        id: of the item, unique in its file.
        kind: whether the three differ in the word for `BLANK`, or are the sentence after the context.
        bias_type: such as "gender".
        target: the term that the stereotype is about.
        context: with `BLANK` (intrasentence), or a whole sentence.
        stereotype, anti_stereotype, unrelated: whole sentences.
    """

    id: str
    kind: StereoKind
    bias_type: str
    target: str
    context: str
    stereotype: str
    anti_stereotype: str
    unrelated: str


def read_stereoset(path: str | Path) -> tuple[StereoItem, ...]:
    """The items of an original file (dev.json), intrasentence ones first.

    Raises:
        CorpusError: another structure, an item without one sentence of each label, a context without `BLANK`, or two
            items of one id; the message names the item.
    """
    path = Path(path)
    whole = json_lines.whole(path)
    data = whole.get("data") if isinstance(whole, dict) else None
    if not isinstance(data, dict) or not any(kind in data for kind in KINDS):
        raise MalformedCorpusError(path, None, "no object 'data' with items by kind", "give StereoSet's dev.json")
    items = filled(path, (item for kind in KINDS if kind in data for item in _items(path, data, kind)), "items")
    unique(path, (item.id for item in items))
    return items


def _items(path: Path, data: Any, kind: StereoKind) -> Iterator[StereoItem]:
    for place, entry in enumerate(listed(path, None, data, kind), start=1):
        where = f"{kind} item {place}"
        sentences: dict[str, str] = {}
        for sentence in listed(path, None, entry, "sentences", where):
            label = choice(path, None, sentence, "gold_label", _LABELS, where)
            if label in sentences:
                raise MalformedCorpusError(path, None, f"{where} has two sentences labelled {label!r}", "keep one")
            sentences[label] = words(path, None, sentence, "sentence", where)
        context = words(path, None, entry, "context", where)
        if kind == "intrasentence" and BLANK not in context:
            raise MalformedCorpusError(path, None, f"the context of {where} has no {BLANK}", f"write {BLANK} there")
        yield StereoItem(
            words(path, None, entry, "id", where),
            kind,
            words(path, None, entry, "bias_type", where),
            words(path, None, entry, "target", where),
            context,
            *(words(path, None, sentences, label, where) for label in _LABELS),
        )
