"""The three parallel files of intent and slot corpora: `seq.in` (tokens), `seq.out` (BIO tags), `label` (intents).

Line i of each file is utterance i. The layout of SNIPS and ATIS in Goo et al. 2018, "Slot-gated modeling for
joint slot filling and intent prediction".
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from trustnlp.data import bio
from trustnlp.data.corpus import Example
from trustnlp.data.lines import lines
from trustnlp.errors import MalformedCorpusError

FILES = ("seq.in", "seq.out", "label")


def read(folder: Path) -> Iterator[Example]:
    """The utterances of one split; spaces at the ends of lines are ignored.

    Raises:
        MalformedCorpusError: with path and line: an utterance is empty, has another number of tags than tokens,
            a tag that is not BIO or no label, or the files have different numbers of lines.
    """
    texts, tag_lines, labels = (folder / name for name in FILES)
    for rows in zip_longest(lines(texts), lines(tag_lines), lines(labels)):
        if None in rows:
            raise _different_lengths(folder)
        (line, text), (_, tags), (_, label) = rows
        yield _example(folder, line, text.strip(), tags.split(), label.strip())


def _example(folder: Path, line: int, text: str, tags: list[str], label: str) -> Example:
    if not text:
        raise MalformedCorpusError(
            folder / "seq.in", line, "an empty utterance", "remove the line from all three files"
        )
    if not label:
        raise MalformedCorpusError(folder / "label", line, "no label", "give every utterance one intent")
    tokens = len(text.split())
    if tokens != len(tags):
        reason = f"{len(tags)} tags for the {tokens} tokens of the same line of seq.in"
        raise MalformedCorpusError(folder / "seq.out", line, reason, "give every token one tag")
    return Example(text, label, bio.check(folder / "seq.out", line, tags))


def _different_lengths(folder: Path) -> MalformedCorpusError:
    counts = {name: sum(1 for _ in lines(folder / name)) for name in FILES}
    reason = "different numbers of lines: " + ", ".join(f"{name} {count:,}" for name, count in counts.items())
    return MalformedCorpusError(folder, None, reason, f"they part at line {min(counts.values()) + 1} at the latest")
