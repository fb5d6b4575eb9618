from pathlib import Path

import pytest

from trustnlp.data import plain_text
from trustnlp.data.corpus import Example
from trustnlp.errors import MalformedCorpusError


def test_lines_that_are_not_blank(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text(" = Title = \n\n  one line \r\n\t\nanother", encoding="utf-8")
    assert list(plain_text.read(path)) == [Example("= Title ="), Example("one line"), Example("another")]


@pytest.mark.parametrize(
    ("name", "user", "time"),
    [
        ("Austen_Emma_1970.txt", "Austen", 0.0),
        ("Poe_The_Raven_1971.txt", "Poe", 31_536_000.0),
        ("letters.txt", "letters", None),
        ("Anon_Later_0000.txt", "Anon_Later_0000", None),
    ],
)
def test_writers_and_years_come_from_file_names(tmp_path: Path, name: str, user: str, time: float | None) -> None:
    (tmp_path / name).write_text("text\n")
    assert list(plain_text.read(tmp_path / name, writers=True)) == [Example("text", user=user, time=time)]


def test_tagged_columns_are_no_plain_text(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text("EU NNP B-ORG\nrejects VBZ O\n\n" * 10)
    with pytest.raises(MalformedCorpusError, match=r":29: this is no plain text but columns with tags; name it .conll"):
        list(plain_text.read(path))


def test_a_line_that_ends_like_a_tag_is_still_text(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text("vitamin B-12\n" * 19 + "is a vitamin\n" + "type O\n" * 30)
    assert len(list(plain_text.read(path))) == 50
