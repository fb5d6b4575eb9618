"""Lines of a UTF-8 text file, one at a time, in bounded memory, with the place of whatever is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

from trustnlp.errors import CorpusNotFoundError, MalformedCorpusError

CAP = 1 << 20
"""The longest line that is read, in bytes: a file of any size then needs no more memory than this per line."""

_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of `path` with their 1-based numbers, line ends kept, a byte order mark dropped.

    Raises:
        CorpusNotFoundError: the file cannot be opened.
        MalformedCorpusError: a line is longer than `CAP` bytes, is not UTF-8 or holds a NUL byte.
    """
    try:
        source = path.open("rb")
    except OSError as error:
        raise CorpusNotFoundError(f"{path} cannot be read: {error.strerror}", "check the path and its rights") from None
    with source:
        offset = 0
        for number in count(1):
            raw = source.readline(CAP + 1)
            if not raw:
                return
            if len(raw) > CAP:
                raise MalformedCorpusError(path, number, f"the line is longer than {CAP:,} bytes", "break it up")
            yield number, _decoded(path, number, offset, raw)
            offset += len(raw)


def _decoded(path: Path, number: int, offset: int, raw: bytes) -> str:
    if number == 1 and raw.startswith(_UTF16):
        raise _not_utf8(path, number, offset, "UTF-16")
    if b"\0" in raw:
        place = offset + raw.index(b"\0")
        raise MalformedCorpusError(
            path, number, f"a NUL byte at byte {place}", "this is no text file, or a damaged one"
        )
    skipped = len(_BOM) if number == 1 and raw.startswith(_BOM) else 0
    try:
        return raw[skipped:].decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, number, offset + skipped + error.start, "WINDOWS-1252") from None


def _not_utf8(path: Path, number: int, offset: int, likely: str) -> MalformedCorpusError:
    mend = f"convert it, for instance: iconv -f {likely} -t UTF-8 {path.name} > utf8-{path.name}"
    return MalformedCorpusError(path, number, f"not UTF-8 at byte {offset}", mend)
