from pathlib import Path

import pytest

from trustnlp.data import formats
from trustnlp.errors import CorpusError


def tree(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x\n")
    return folder


def found(folder: Path) -> tuple[str, list[tuple[str | None, str]]]:
    layout = formats.find(folder)
    return layout.format, [(split, str(path.relative_to(folder))) for split, path in layout.files]


@pytest.mark.parametrize(
    ("names", "layout"),
    [
        (["train/seq.in", "valid/seq.in", "test/seq.in"], ("seq", [(s, s) for s in ("train", "valid", "test")])),
        (["train/seq.in", "dev/seq.out"], ("seq", [("train", "train"), ("valid", "dev")])),
        (["test.csv", "train.csv", "categories.json"], ("csv", [("train", "train.csv"), ("test", "test.csv")])),
        (
            ["en_ewt-ud-dev.conllu", "en_ewt-ud-train.conllu", "README.txt"],
            ("conllu", [("train", "en_ewt-ud-train.conllu"), ("valid", "en_ewt-ud-dev.conllu")]),
        ),
        (
            ["wiki.train.tokens", "wiki.validation.tokens", "LICENSE.txt"],
            ("text", [("train", "wiki.train.tokens"), ("valid", "wiki.validation.tokens")]),
        ),
        (["train-1.tsv", "train-2.tsv"], ("csv", [("train", "train-1.tsv"), ("train", "train-2.tsv")])),
        (
            ["Ann_A_1900.txt", "Bob_B_1901.txt", ".hidden.csv"],
            ("text by writer", [(None, "Ann_A_1900.txt"), (None, "Bob_B_1901.txt")]),
        ),
        (["letters.txt"], ("text", [(None, "letters.txt")])),
        (["a.conll", "b.conll"], ("conll", [(None, "a.conll"), (None, "b.conll")])),
    ],
)
def test_layouts_of_folders(tmp_path: Path, names: list[str], layout: tuple[str, list[tuple[str | None, str]]]) -> None:
    assert found(tree(tmp_path, *names)) == layout


def test_the_files_themselves_are_a_layout_without_splits(tmp_path: Path) -> None:
    assert formats.find(tree(tmp_path, "train.csv") / "train.csv").files == ((None, tmp_path / "train.csv"),)
    assert found(tree(tmp_path / "one", "seq.in", "seq.out", "label")) == ("seq", [(None, ".")])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["notes.pdf"], "no corpus in this folder; it needs files ending in .bio, .conll"),
        (["train.csv", "test.jsonl"], r"files of several formats \(test.jsonl, train.csv\)"),
        (["valid.csv", "test.csv"], r"no training split \(found: test.csv, valid.csv\)"),
        (["test/seq.in"], r"no training split \(found: test\)"),
    ],
)
def test_folders_that_are_no_corpus(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        formats.find(tree(tmp_path, *names))


@pytest.mark.parametrize("name", ["model.pkl", "corpus.parquet", "corpus"])
def test_unknown_endings_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CorpusError, match=r"no format has the ending '.*'; known endings are .bio"):
        formats.find(tree(tmp_path, name) / name)


def test_every_ending_has_a_reader() -> None:
    assert set(formats.ENDINGS.values()) | set(formats.WITH_COLUMNS) <= set(formats.READERS)
