from pathlib import Path

import pytest

from trustnlp.data.lines import CAP, lines
from trustnlp.errors import CorpusNotFoundError, MalformedCorpusError


def written(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_bytes(content)
    return path


def test_lines_are_numbered_and_a_byte_order_mark_is_dropped(tmp_path: Path) -> None:
    path = written(tmp_path, b"\xef\xbb\xbffirst\r\nse\xc3\xa7ond\n\nlast")
    assert list(lines(path)) == [(1, "first\r\n"), (2, "seçond\n"), (3, "\n"), (4, "last")]


def test_bytes_that_are_not_utf8_are_placed(tmp_path: Path) -> None:
    path = written(tmp_path, b"fine\ncaf\xe9 noir\n")
    with pytest.raises(MalformedCorpusError, match=r"corpus.txt:2: not UTF-8 at byte 8; convert it.*iconv") as caught:
        list(lines(path))
    assert caught.value.line == 2


def test_the_byte_offset_counts_the_byte_order_mark(tmp_path: Path) -> None:
    with pytest.raises(MalformedCorpusError, match="at byte 4;"):
        list(lines(written(tmp_path, b"\xef\xbb\xbfa\xff\n")))


def test_utf16_is_recognised(tmp_path: Path) -> None:
    with pytest.raises(MalformedCorpusError, match="iconv -f UTF-16"):
        list(lines(written(tmp_path, "text\n".encode("utf-16"))))


def test_a_nul_byte_is_placed(tmp_path: Path) -> None:
    with pytest.raises(MalformedCorpusError, match=r":2: a NUL byte at byte 4"):
        list(lines(written(tmp_path, b"ab\nc\0d\n")))


def test_the_longest_line_is_read_and_a_longer_one_refused(tmp_path: Path) -> None:
    path = written(tmp_path, b"x" * (CAP - 1) + b"\n" + b"y" * CAP + b"\n")
    stream = lines(path)
    assert len(next(stream)[1]) == CAP
    with pytest.raises(MalformedCorpusError, match=r":2: the line is longer than 1,048,576 bytes"):
        next(stream)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CorpusNotFoundError, match="No such file"):
        list(lines(tmp_path / "missing"))
