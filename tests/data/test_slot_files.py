from pathlib import Path

import pytest

from trustnlp.data import slot_files
from trustnlp.data.corpus import Example
from trustnlp.errors import CorpusNotFoundError, MalformedCorpusError


def written(folder: Path, texts: str, tags: str, labels: str) -> Path:
    for name, content in zip(slot_files.FILES, (texts, tags, labels), strict=True):
        (folder / name).write_text(content, encoding="utf-8")
    return folder


def test_line_by_line_with_spaces_at_the_ends(tmp_path: Path) -> None:
    folder = written(tmp_path, "play jazz  \nwake me at six\n", "O B-genre \nO O O B-time\n", "Play\nWake \n")
    assert list(slot_files.read(folder)) == [
        Example("play jazz", "Play", ("O", "B-genre")),
        Example("wake me at six", "Wake", ("O", "O", "O", "B-time")),
    ]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("a b\nc d e\n", "O O\nO O\n", "X\nX\n"), r"seq.out:2: 2 tags for the 3 tokens of the same line of seq.in"),
        (("a\n \nb\n", "O\n\nO\n", "X\nX\nX\n"), r"seq.in:2: an empty utterance"),
        (("a\nb\n", "O\nO\n", "X\n\n"), r"label:2: no label"),
        (("a\n", "city\n", "X\n"), r"seq.out:1: 'city' is not a BIO tag"),
        (("a\nb\nc\n", "O\nO\n", "X\nX\nX\n"), r"different numbers of lines: seq.in 3, seq.out 2, label 3.* at line 3"),
    ],
)
def test_broken_files_are_refused_with_their_place(tmp_path: Path, files: tuple[str, str, str], message: str) -> None:
    with pytest.raises(MalformedCorpusError, match=message):
        list(slot_files.read(written(tmp_path, *files)))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    written(tmp_path, "a\n", "O\n", "X\n")
    (tmp_path / "seq.out").unlink()
    with pytest.raises(CorpusNotFoundError, match=r"seq.out cannot be read"):
        list(slot_files.read(tmp_path))
