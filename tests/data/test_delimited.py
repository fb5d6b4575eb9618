import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustnlp.data import delimited
from trustnlp.errors import MalformedCorpusError

FIELD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


def written(tmp_path: Path, content: str, name: str = "corpus.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode())
    return path


@pytest.mark.parametrize("mark", [",", ";", "|", "\t"])
def test_the_delimiter_is_found_and_quotes_hold_it(tmp_path: Path, mark: str) -> None:
    path = written(tmp_path, f'text{mark}"a, b; c"\r\n"one{mark}two\nthree ""x"""{mark}y\r\n\r\nz{mark}w\r\n')
    first = {"text": f'one{mark}two\nthree "x"', "a, b; c": "y"}
    assert list(delimited.rows(path)) == [(2, first), (5, {"text": "z", "a, b; c": "w"})]


def test_quotes_are_ordinary_in_tsv_and_positions_name_headless_columns(tmp_path: Path) -> None:
    path = written(tmp_path, 'he said "no\t1\nso, it is\t0\n', "corpus.tsv")
    assert list(delimited.rows(path, header=False)) == [(1, {0: 'he said "no', 1: "1"}), (2, {0: "so, it is", 1: "0"})]


@given(rows=st.lists(st.tuples(FIELD, FIELD), max_size=8))
def test_what_the_standard_writer_wrote_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("csv") / "corpus.csv"
    with path.open("w", encoding="utf-8", newline="") as target:
        csv.writer(target, quoting=csv.QUOTE_ALL).writerows([("text", "label"), *rows])
    assert [(row["text"], row["label"]) for _, row in delimited.rows(path)] == rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('text,label\nfine,x\n"never closed,y\nmore,z\n', r":3: broken quoting in the row that begins here"),
        ('text,label\n"a"b,x\n', r":2: broken quoting"),
        ("text,label\na,x\nb\n", r":3: 1 fields where the first row has 2"),
        ("text,label\na,b,x\n", r":2: 3 fields where the first row has 2"),
        ("text,text\na,b\n", r":1: columns of the same name: 'text'"),
        ('{"text": "a"}\n', r":1: this is JSON, not a table"),
        ("text\na\0b\n", r":2: a NUL byte at byte 6"),
    ],
)
def test_broken_tables_are_refused_with_their_place(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(MalformedCorpusError, match=message):
        list(delimited.rows(written(tmp_path, content)))


def test_an_open_quote_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = written(tmp_path, 'text,label\n"open,x\n' + "filler,x\n" * 300_000)
    with pytest.raises(MalformedCorpusError, match=r":2: broken quoting .*larger than field limit"):
        list(delimited.rows(path))
