from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustnlp.data import slot_annotations
from trustnlp.data.corpus import Example
from trustnlp.errors import MalformedCorpusError

WORD = st.text("abcdeé'", min_size=1, max_size=5)
PIECES = st.lists(st.tuples(st.sampled_from(["", "time", "place"]), st.lists(WORD, min_size=1, max_size=3)), min_size=1)


@pytest.mark.parametrize(
    ("annotated", "text", "tags"),
    [
        ("wake me at [time : six]", "wake me at six", "O O O B-time"),
        ("[a : x y][b : z] now", "x yz now", "B-a I-a O"),
        ("[date : today]'s [ event name :  big day ]", "today's big day", "B-date B-event_name I-event_name"),
        ("[t : one] [t : two]", "one two", "B-t B-t"),
    ],
)
def test_slots_become_tags(annotated: str, text: str, tags: str) -> None:
    assert slot_annotations.parsed(Path("f"), 1, annotated) == (text, tuple(tags.split()))


@given(pieces=PIECES)
def test_what_was_annotated_is_read(pieces: list[tuple[str, list[str]]]) -> None:
    annotated = " ".join(f"[{slot} : {' '.join(words)}]" if slot else " ".join(words) for slot, words in pieces)
    tags = [
        f"{'I' if place else 'B'}-{slot}" if slot else "O" for slot, words in pieces for place, _ in enumerate(words)
    ]
    text = " ".join(word for _, words in pieces for word in words)
    assert slot_annotations.parsed(Path("f"), 1, annotated) == (text, tuple(tags))


@pytest.mark.parametrize("annotated", ["a [b", "a ] b", "[a b]", "[ : x]", "[a : ]", "[a : [b : c]]"])
def test_brackets_that_are_no_slot(annotated: str) -> None:
    with pytest.raises(MalformedCorpusError, match="f:4: "):
        slot_annotations.parsed(Path("f"), 4, annotated)


def test_the_file_is_the_intent(tmp_path: Path) -> None:
    path = tmp_path / "alarm_set.csv"
    path.write_text('answerid;answer_annotation\n1;"wake me at [time : six]"\n')
    assert list(slot_annotations.read(path)) == [Example("wake me at six", "alarm_set", ("O", "O", "O", "B-time"))]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a;b\n1;2\n", "no column 'answer_annotation'; the columns are a, b"),
        ("id;answer_annotation\n1;\n", ":2: an empty"),
    ],
)
def test_other_tables_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(content)
    with pytest.raises(MalformedCorpusError, match=message):
        list(slot_annotations.read(path))
