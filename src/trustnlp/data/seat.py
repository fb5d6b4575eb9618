"""Sets of words (WEAT) or sentences (SEAT) whose association is tested, as the authors of SEAT keep them.

    {"targ1": {"category": "Flowers", "examples": [...]}, "targ2": …, "attr1": …, "attr2": …}

Source: May et al. 2019, NAACL, 622-628; one JSON object in each file, whatever its ending.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trustnlp.data import json_lines
from trustnlp.data.records import listed, words
from trustnlp.errors import MalformedCorpusError

_SETS = ("targ1", "targ2", "attr1", "attr2")


@dataclass(frozen=True)
class AssociationTest:
    """Two sets of targets and two of attributes.

    Args:
        name: of the test, the file's name.
        targets_x, targets_y, attributes_a, attributes_b: words or sentences.
        categories: what the four sets are called.
    """

    name: str
    targets_x: tuple[str, ...]
    targets_y: tuple[str, ...]
    attributes_a: tuple[str, ...]
    attributes_b: tuple[str, ...]
    categories: tuple[str, ...]


def read_seat(path: str | Path) -> tuple[AssociationTest, ...]:
    """The test of a file, or of every `*.jsonl` in a folder, in the order of their names.

    Raises:
        CorpusError: no file, another structure, or an empty set.
    """
    path = Path(path)
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not files:
        raise MalformedCorpusError(path, None, "no *.jsonl in this folder", "give a folder of tests, or one file")
    return tuple(_test(file) for file in files)


def _test(path: Path) -> AssociationTest:
    whole = json_lines.whole(path)
    sets: list[tuple[str, ...]] = []
    names: list[str] = []
    for key in _SETS:
        entry = whole.get(key) if isinstance(whole, dict) else None
        examples = listed(path, None, entry, "examples", f"{key!r}")
        if not examples or not all(isinstance(example, str) and example.strip() for example in examples):
            raise MalformedCorpusError(path, None, f"{key!r} has an empty example, or none", "mend or remove it")
        sets.append(tuple(examples))
        names.append(words(path, None, entry, "category", f"{key!r}"))
    return AssociationTest(path.stem, sets[0], sets[1], sets[2], sets[3], tuple(names))
