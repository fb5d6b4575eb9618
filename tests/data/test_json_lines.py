from pathlib import Path

import pytest

from trustnlp.data import json_lines
from trustnlp.errors import MalformedCorpusError


def written(tmp_path: Path, content: str) -> Path:
    path = tmp_path / "corpus.json"
    path.write_text(content, encoding="utf-8")
    return path


def test_objects_with_their_lines(tmp_path: Path) -> None:
    path = written(tmp_path, '{"text": "a", "n": NaN}\n\n{"text": "b"}')
    assert list(json_lines.rows(path)) == [(1, {"text": "a", "n": None}), (3, {"text": "b"})]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1}\n["b"]\n', r":2: an array where one JSON object per line is needed; .* the ending .json"),
        ('"text"\n', r":1: a single value where"),
        ("text,label\n", r":1: not JSON at column 1 .* give a table the ending .csv"),
        ('{"a": 1}\n{"a": \n', r":2: not JSON at column"),
        ("[" * 100_000 + "\n", r":1: (JSON nested too deep|not JSON)"),
    ],
)
def test_other_lines_are_refused_with_their_place(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(MalformedCorpusError, match=message):
        list(json_lines.rows(written(tmp_path, content)))


def test_arrays_of_pairs_or_objects(tmp_path: Path) -> None:
    path = written(tmp_path, '[["a", "x"], {"text": "b"}]')
    assert list(json_lines.array_rows(path)) == [(1, {0: "a", 1: "x"}), (2, {"text": "b"})]
    assert list(json_lines.array_rows(written(tmp_path, ""))) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a"}', "no JSON array"),
        ('{"text": "a"}\n{"text": "b"}\n', r":2: not JSON at column 1 \(Extra data\)"),
        ('[["a"], 3]', "element 2 is neither an object nor an array"),
    ],
)
def test_other_files_are_no_array(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(MalformedCorpusError, match=message):
        list(json_lines.array_rows(written(tmp_path, content)))


def test_an_array_too_large_to_be_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "LARGEST_ARRAY", 3)
    with pytest.raises(MalformedCorpusError, match="an array of more than 3 bytes; write JSON lines"):
        list(json_lines.array_rows(written(tmp_path, "[{}]")))


def test_an_array_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "corpus.json"
    path.write_bytes(b'["\xe9"]')
    with pytest.raises(MalformedCorpusError, match="not UTF-8 at byte 2"):
        list(json_lines.array_rows(path))
