from pathlib import Path

import pytest

from trustnlp.data import parallel
from trustnlp.data.corpus import Example
from trustnlp.data.tabular import Options
from trustnlp.errors import CorpusNotFoundError, MalformedCorpusError


def write(folder: Path, english: str, german: str) -> Path:
    (folder / "train.tok.en").write_text(english, encoding="utf-8")
    (folder / "train.tok.de").write_text(german, encoding="utf-8")
    return folder / "train.tok.en"


def read(path: Path, **options) -> list[Example]:
    return [example for _, example in parallel.read(path, Options(**options), target="de")]


def test_lines_belong_together(tmp_path: Path) -> None:
    path = write(tmp_path, "a dog \r\ntwo dogs\n", "ein hund\n zwei hunde")
    assert read(path) == [Example("a dog", target="ein hund"), Example("two dogs", target="zwei hunde")]


@pytest.mark.parametrize(
    ("english", "german", "message"),
    [
        ("a\nb\n", "x\n", r"train.tok.en:2: this line has no partner: train.tok.de ends before"),
        ("a\n", "x\ny\n", r"train.tok.de:2: this line has no partner: train.tok.en ends before"),
        ("a\n\n", "x\ny\n", r"train.tok.en:2: an empty text"),
        ("a\nb\n", "x\n \n", r"train.tok.de:2: an empty text"),
    ],
)
def test_what_does_not_belong_together_is_refused(tmp_path: Path, english: str, german: str, message: str) -> None:
    with pytest.raises(MalformedCorpusError, match=message):
        read(write(tmp_path, english, german))


def test_blank_lines_can_be_left_out_and_counted(tmp_path: Path) -> None:
    left_out: list[tuple[str, int]] = []
    path = write(tmp_path, "a\n\nc\n", "x\ny\n\n")
    found = read(path, on_empty=lambda path, line: left_out.append((path.name, line)))
    assert found == [Example("a", target="x")]
    assert left_out == [("train.tok.en", 2), ("train.tok.de", 3)]


def test_a_missing_partner(tmp_path: Path) -> None:
    (tmp_path / "train.en").write_text("a\n")
    with pytest.raises(CorpusNotFoundError, match=r"train.de cannot be read"):
        read(tmp_path / "train.en")
