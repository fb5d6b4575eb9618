"""Regard (Sheng et al. 2019, EMNLP, 3407-3412): how a text makes one think of the person whom it speaks of.

Tab-separated, without header: a code (-1, 0, 1 or 2) and a text, in which XYZ stands for the person; or, for samples
of a generator, the text alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trustnlp.data.lines import lines
from trustnlp.data.records import filled
from trustnlp.errors import MalformedCorpusError

LABELS = {"-1": "negative", "0": "neutral", "1": "positive", "2": "other"}


@dataclass(frozen=True)
class RegardText:
    """A text and the regard that it shows; None where nobody labelled it."""

    text: str
    label: str | None


def read_regard(path: str | Path) -> tuple[RegardText, ...]:
    """The texts of a file, in its order; a file is labelled if its first line is.

    Raises:
        CorpusError: an unknown code, or a line without text.
    """
    path = Path(path)
    return filled(path, _texts(path), "texts")


def _texts(path: Path) -> Iterator[RegardText]:
    labelled: bool | None = None
    for number, line in lines(path):
        if not line.strip():
            continue
        code, _, text = line.partition("\t")
        if labelled is None:
            labelled = code.strip() in LABELS and bool(text.strip())
        if not labelled:
            yield RegardText(line.strip(), None)
        elif code.strip() not in LABELS or not text.strip():
            raise MalformedCorpusError(path, number, "no code and text parted by a tab", "write -1, 0, 1 or 2 first")
        else:
            yield RegardText(text.strip(), LABELS[code.strip()])
