from pathlib import Path

import pytest

from trustnlp.data.records import choice, filled, listed, need_columns, unique, words
from trustnlp.errors import MalformedCorpusError

FILE = Path("a.csv")


def test_values_are_found_by_name():
    assert words(FILE, 1, {"a": " x y "}, "a") == "x y"
    assert choice(FILE, 1, {"a": "x"}, "a", ("x", "y")) == "x"
    assert listed(FILE, 1, {"a": [1]}, "a") == [1]
    assert filled(FILE, iter("ab"), "letters") == ("a", "b")
    need_columns(FILE, 1, {"a": "", "b": ""}, ("a",))
    unique(FILE, ("a", "b"))


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda: words(FILE, 7, {"a": " "}, "a"), "a.csv:7: the row has no text 'a'; give the original file"),
        (lambda: words(FILE, 7, {"a": 3}, "a", "item 2"), "a.csv:7: item 2 has no text 'a'"),
        (lambda: words(FILE, None, "a", "a"), "a.csv: the row has no text 'a'"),
        (lambda: choice(FILE, 7, {"a": "z"}, "a", ("x", "y")), "a.csv:7: 'a' is 'z'; it must be one of 'x', 'y'"),
        (lambda: listed(FILE, None, {"a": "z"}, "a"), "a.csv: the file has no list 'a'"),
        (lambda: listed(FILE, None, [], "a"), "a.csv: the file has no list 'a'"),
        (lambda: need_columns(FILE, 1, {"b": 1}, ("b", "a")), "a.csv:1: no column 'a'; the columns are 'b'"),
        (lambda: unique(FILE, ("a", "b", "a")), "a.csv: two items have the id 'a'"),
        (lambda: filled(FILE, (), "pairs"), "a.csv: no pairs in this file"),
    ],
)
def test_what_is_missing_is_told_with_its_place(read, message):
    with pytest.raises(MalformedCorpusError) as caught:
        read()
    assert str(caught.value).startswith(message)
