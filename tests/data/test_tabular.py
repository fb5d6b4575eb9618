from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from trustnlp.data import tabular
from trustnlp.data.corpus import Answer, Example
from trustnlp.data.tabular import Options, Placed
from trustnlp.errors import ArgumentError, MalformedCorpusError


def read(rows: Iterable[dict[Any, Any]], **options: Any) -> list[Placed]:
    return list(tabular.examples(Path("rows"), iter(enumerate(rows, start=1)), Options(**options)))


def test_every_role_by_its_own_name() -> None:
    row = {"text": "at six", "label": "Wake", "user": 7, "group": "a", "time": "3.5", "tags": "O B-time"}
    assert read([row]) == [(None, Example("at six", "Wake", ("O", "B-time"), "7", "a", 3.5))]


@pytest.mark.parametrize(
    "row",
    [
        {"utterance": "hi", "category": "x", "speaker_id": "u", "timestamp": 1},
        {"Sentence": "hi", "Intent": "x", "userId": "u", "unixReviewTime": 1},
        {"tokens": ["hi"], "class": "x", "author": "u", "date": "1970-01-01T00:00:01Z"},
        {"text": "hi", "sentence": "other", "label": "x", "rating": "5", "user": "u", "time": "1"},
    ],
)
def test_common_synonyms(row: dict[str, Any]) -> None:
    assert read([row]) == [(None, Example("hi", "x", user="u", time=1.0))]


def test_wanted_columns_go_before_synonyms() -> None:
    row = {"text": "first", "second": "wanted", "label": "a", "topic": "b", "gender": "F", "part": "DEV"}
    columns = {"text": "second", "label": "topic", "group": "gender", "split": "part"}
    assert read([row], columns=columns) == [("valid", Example("wanted", "b", group="F"))]


def test_codes_get_names() -> None:
    rows = [{"text": "a", "label": 0}, {"text": "b", "label": 1}, {"text": "c", "label": 2}]
    read_labels = [example.label for _, example in read(rows, label_names={"0": "no", "1": "yes"})]
    assert read_labels == ["no", "yes", "2"]


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([{"a": "x", "b": "y"}], {}, r"rows:1: no column holds the text; the columns are 'a', 'b'"),
        ([{"text": "x"}], {"label": "topic"}, r"no column 'topic' for the label; the columns are 'text'"),
        (
            [{"question": "x", "sentence": "y"}],
            {},
            r"several columns may be the text: 'question', 'sentence'; say which",
        ),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": ""}], {}, r":2: no label, as other rows have one"),
        ([{"text": "a", "label": "x"}, {"text": "b"}], {}, r":2: no label"),
        ([{"text": "a"}, {"text": "b", "label": "x"}], {}, r":2: 'label' is here but not in the first row"),
        ([{"text": "a"}, {"text": " "}], {}, r":2: an empty text"),
        ([{"text": "a"}, {"text": None}], {}, r":2: an empty text"),
        ([{"text": 3}], {}, r":1: the text is of type int"),
        ([{"text": "a", "label": ["x"]}], {}, r":1: the label is of type list"),
        ([{"text": "a b", "tags": ["O"]}], {}, r":1: 1 tags for 2 tokens"),
        ([{"text": "a", "tags": [3]}], {}, r":1: the tags are no list of BIO tags"),
        ([{"text": "a", "tags": "NOUN"}], {}, r":1: 'NOUN' is not a BIO tag"),
        ([{"tokens": ["a b"]}], {}, r":1: a token that is empty, no text or holds a space"),
        ([{"text": "a", "time": "soon"}], {}, r":1: 'soon' is no time"),
        ([{"text": "a", "time": "nan"}], {}, r":1: 'nan' is no time"),
        ([{"text": "a", "time": [1]}], {}, r":1: '\[1\]' is no time"),
        ([{"text": "a", "part": "later"}], {"split": "part"}, r":1: 'later' is no split"),
    ],
)
def test_rows_that_cannot_be_read(rows: list[dict[str, Any]], columns: dict[str, str], message: str) -> None:
    with pytest.raises(MalformedCorpusError, match=message):
        read(rows, columns=columns)


def test_an_unknown_role_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"'columns' must be a mapping from text, label, .*got 'txt'"):
        Options(columns={"txt": "a"})


def test_rows_without_text_can_be_left_out_and_counted() -> None:
    left: list[int] = []
    rows = [{"text": ""}, {"text": "a"}, {"text": None}]
    assert len(read(rows, on_empty=lambda _, line: left.append(line))) == 1
    assert left == [1, 3]


def test_targets_are_read_where_their_column_is_named() -> None:
    row = {"article": "A long text.", "summary": " Short. ", "label": "x"}
    columns = {"text": "article", "target": "summary"}
    assert read([row], columns=columns) == [(None, Example("A long text.", "x", target="Short."))]
    assert read([row], columns={"text": "article"}) == [(None, Example("A long text.", "x"))]
    # Named, even `target` is no label.
    assert read([{"text": "a", "target": "b"}], columns={"target": "target"}) == [(None, Example("a", target="b"))]


@pytest.mark.parametrize(
    ("target", "message"), [("", ":1: no target, as other rows have one"), (None, "no target"), (3, "of type int")]
)
def test_a_row_without_target_is_refused(target: Any, message: str) -> None:
    with pytest.raises(MalformedCorpusError, match=message):
        read([{"text": "a", "summary": target}], columns={"target": "summary"})


ASKED = {"text": "context", "question": "question", "answers": "answers"}


@pytest.mark.parametrize(
    "answers",
    [
        {"answer_start": [9, 5], "text": ["Bob", "met Bob"]},
        [{"answer_start": 9, "text": "Bob"}, {"answer_start": 5, "text": "met Bob"}],
    ],
)
def test_questions_and_answers_are_read_where_their_columns_are_named(answers: Any) -> None:
    row = {"context": " Ada met Bob.", "question": "Whom?", "answers": answers}
    expected = Example("Ada met Bob.", question="Whom?", answers=(Answer(8, "Bob"), Answer(4, "met Bob")))
    assert read([row], columns=ASKED) == [(None, expected)]


@pytest.mark.parametrize(
    ("question", "answers", "message"),
    [
        ("", [{"answer_start": 8, "text": "Bob"}], ":1: no question, as other rows have one"),
        ("Whom?", [{"answer_start": 7, "text": "Bob"}], ":1: 'answers' must be pieces of the text, each at its place"),
        ("Whom?", [], "'answers' must be at least one"),
        ("Whom?", {"answer_start": [8], "text": []}, "no lists of answer_start and text"),
        ("Whom?", "Bob", "no lists of answer_start and text"),
        ("Whom?", [{"text": "Bob"}], "no lists of answer_start and text"),
        ("Whom?", None, "no lists of answer_start and text"),
    ],
)
def test_answers_that_are_none_are_refused(question: str, answers: Any, message: str) -> None:
    with pytest.raises(MalformedCorpusError, match=message):
        read([{"context": "Ada met Bob.", "question": question, "answers": answers}], columns=ASKED)
