"""Which format a file or folder has, by its name and layout, and the reader of each format."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from trustnlp.data import (
    arrow_folder,
    conll,
    delimited,
    json_lines,
    parallel,
    plain_text,
    slot_annotations,
    slot_files,
    squad,
    tabular,
    tei,
)
from trustnlp.data.corpus import Example
from trustnlp.data.tabular import SPLITS, Options, Placed
from trustnlp.errors import CorpusError

Reader = Callable[[Path, Options], Iterator[Placed]]


def _fixed(read: Callable[[Path], Iterator[Example]]) -> Reader:
    return lambda path, _: ((None, example) for example in read(path))


READERS: dict[str, Reader] = {
    "csv": lambda path, how: tabular.examples(path, delimited.rows(path, header=how.has_header), how),
    "jsonl": lambda path, how: tabular.examples(path, json_lines.rows(path), how),
    "json": lambda path, how: tabular.examples(path, json_lines.array_rows(path), how),
    "arrow": lambda path, how: tabular.examples(path, arrow_folder.rows(path), how),
    "seq": _fixed(slot_files.read),
    "slot annotations": _fixed(slot_annotations.read),
    "conll": _fixed(conll.read_columns),
    "conllu": _fixed(conll.read_universal),
    "conllu by genre": _fixed(partial(conll.read_universal, genres=True)),
    "text": _fixed(plain_text.read),
    "text by writer": _fixed(partial(plain_text.read, writers=True)),
    "squad": _fixed(squad.read),
    "parallel en-de": partial(parallel.read, target="de"),
    "tei": tei.read,
}

WITH_COLUMNS = ("csv", "jsonl", "json", "arrow")
"""The formats whose columns can be chosen."""

ENDINGS = {
    **dict.fromkeys((".csv", ".tsv"), "csv"),
    **dict.fromkeys((".jsonl", ".ndjson"), "jsonl"),
    ".json": "json",
    **dict.fromkeys((".conll", ".bio", ".iob", ".iob2"), "conll"),
    ".conllu": "conllu",
    **dict.fromkeys((".txt", ".text", ".tokens", ".raw"), "text"),
}
_NO_DATA = ("readme", "license", "licence", "source", "notice", "citation")


@dataclass(frozen=True)
class Layout:
    """The files of a corpus.

    Args:
        format: a key of `READERS`.
        files: split (None if the files are not split) and path, in the order they are read.
        notes: what a reader of the report should know about the choice.
    """

    format: str
    files: tuple[tuple[str | None, Path], ...]
    notes: tuple[str, ...] = ()


def find(path: Path) -> Layout:
    """The layout of a file or folder.

    Raises:
        CorpusError: it is in no known format, in several, or has splits but none for training.
    """
    if path.is_file():
        return Layout(_format(path), ((None, path),))
    if arrow_folder.is_dataset(path):
        return _datasets(path)
    folders = {child: SPLITS[child.name] for child in _children(path) if child.is_dir() and child.name in SPLITS}
    if any(_is_parallel(folder) for folder in folders):
        return _with_training(path, "seq", [(split, folder) for folder, split in folders.items()])
    if _is_parallel(path):
        return Layout("seq", ((None, path),))
    return _files(path)


def _children(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if not child.name.startswith("."))


def _is_parallel(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("seq.in", "seq.out"))


def _format(path: Path) -> str:
    if path.suffix.lower() not in ENDINGS:
        known = ", ".join(sorted(ENDINGS))
        raise CorpusError(f"{path}: no format has the ending {path.suffix!r}", f"known endings are {known}")
    name = ENDINGS[path.suffix.lower()]
    return "squad" if name == "json" and squad.is_squad(path) else name


def _datasets(folder: Path) -> Layout:
    named = arrow_folder.splits(folder)
    if set(named) == {""}:
        return Layout("arrow", ((None, folder),))
    left = [name for name in named if name not in SPLITS]
    notes = (f"splits left out: {', '.join(left)}",) if left else ()
    return _with_training(folder, "arrow", [(SPLITS[name], named[name]) for name in named if name in SPLITS], notes)


def _files(folder: Path) -> Layout:
    files = [
        child
        for child in _children(folder)
        if child.is_file() and child.suffix.lower() in ENDINGS and child.stem.lower() not in _NO_DATA
    ]
    split = [(name, path) for path in files if (name := _split_of(path))]
    chosen = [path for _, path in split] or files
    formats = {_format(path) for path in chosen}
    if not chosen:
        listed = ", ".join(sorted(ENDINGS))
        mend = f"it needs files ending in {listed}, train/seq.in and so on, or a folder saved by `datasets`"
        raise CorpusError(f"{folder}: no corpus in this folder", mend)
    if len(formats) > 1:
        names = ", ".join(path.name for path in chosen[:6])
        raise CorpusError(f"{folder}: files of several formats ({names})", "give one file, or a folder of one format")
    if split:
        return _with_training(folder, formats.pop(), split)
    one = formats.pop()
    return Layout("text by writer" if one == "text" and len(files) > 1 else one, tuple((None, path) for path in files))


def _split_of(path: Path) -> str | None:
    found = {SPLITS[piece] for piece in re.split(r"[^a-z]+", path.stem.lower()) if piece in SPLITS}
    return found.pop() if len(found) == 1 else None


def _with_training(folder: Path, name: str, files: list[tuple[str, Path]], notes: tuple[str, ...] = ()) -> Layout:
    if "train" not in {split for split, _ in files}:
        found = ", ".join(path.name for _, path in files) or "none"
        raise CorpusError(f"{folder}: no training split (found: {found})", "name one train, or give a single file")
    order = list(dict.fromkeys(SPLITS.values()))
    ordered = sorted(files, key=lambda file: order.index(file[0]))
    return Layout(name, tuple(ordered), notes)
