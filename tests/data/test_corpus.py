import hashlib
from dataclasses import replace

import pytest

from trustnlp.data.corpus import Answer, Corpus, Example
from trustnlp.errors import ArgumentError, CorpusError

EXAMPLE = Example("wake me at six", label="Alarm", tags=("O", "O", "O", "B-time"), user="u1", group="a", time=1.0)


@pytest.mark.parametrize("text", ["", " ", "\t\n"])
def test_an_empty_text_is_refused(text: str) -> None:
    with pytest.raises(ArgumentError, match="'text' must be not empty"):
        Example(text)


def test_tags_are_one_per_token() -> None:
    with pytest.raises(ArgumentError, match=r"'tags' must be one per token \(4\), got 2"):
        Example("wake me at six", tags=("O", "O"))


def test_an_empty_training_split_is_refused() -> None:
    with pytest.raises(CorpusError, match="'empty' has no training examples"):
        Corpus("empty", train=())


def test_the_schema_comes_from_the_training_split_sorted_with_outside_first() -> None:
    other = Example("good night", label="A", tags=("B-greeting", "I-greeting"), user="u0", group="b")
    corpus = Corpus("tiny", train=(EXAMPLE, other), test=(Example("hi", label="Unseen", group="c"),))
    assert corpus.labels == ("A", "Alarm")
    assert corpus.tags == ("O", "B-greeting", "B-time", "I-greeting")
    assert corpus.users == ("u0", "u1")
    assert corpus.groups == ("a", "b", "c")


def test_a_corpus_of_bare_text_has_no_schema() -> None:
    corpus = Corpus("bare", train=(Example("some text"),))
    assert (corpus.labels, corpus.tags, corpus.users, corpus.groups) == ((), (), (), ())


@pytest.mark.parametrize(
    "change",
    [
        *({"text": "wake me at ten"}, {"label": "Timer"}, {"tags": None}, {"user": "u2"}, {"group": None}),
        *({"time": 2.0}, {"question": "When?"}, {"target": "weck mich um sechs"}),
        {"question": "When?", "answers": (Answer(11, "six"),)},
        {"question": "When?", "answers": (Answer(8, "at six"),)},
    ],
)
def test_the_digest_sees_every_field(change: dict) -> None:
    original = Corpus("tiny", train=(EXAMPLE,))
    assert original.digest == Corpus("renamed", train=(EXAMPLE,)).digest
    assert original.digest != Corpus("tiny", train=(replace(EXAMPLE, **change),)).digest


def test_each_change_has_a_digest_of_its_own() -> None:
    asked = [
        replace(EXAMPLE, question="When?"),
        replace(EXAMPLE, target="When?"),
        replace(EXAMPLE, question="When?", answers=(Answer(11, "six"),)),
        replace(EXAMPLE, question="When?", answers=(Answer(8, "at six"),)),
        EXAMPLE,
    ]
    assert len({Corpus("x", (example,)).digest for example in asked}) == len(asked)


def test_new_tasks_leave_old_digests_as_they_were() -> None:
    # Studies seed their streams by it: hashed by hand, field by field, as before there were questions and targets.
    written = '["wake me at six", "Alarm", ["O", "O", "O", "B-time"], "u1", "a", 1.0]\n--\n\n--\n\n--\n'
    assert Corpus("x", (EXAMPLE,)).digest == hashlib.sha256(written.encode()).hexdigest()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": " "}, "'question' must be not empty"),
        ({"target": ""}, "'target' must be not empty"),
        ({"answers": (Answer(0, "wake"),)}, "'answers' must be at least one, to a question"),
        ({"question": "?", "answers": ()}, "'answers' must be at least one, to a question"),
        ({"question": "?", "answers": (Answer(12, "six"),)}, "each at its place, got 'one of 3 characters at 12'"),
        ({"question": "?", "answers": (Answer(-3, "six"),)}, "each at its place"),
        ({"question": "?", "answers": (Answer(11, "sixty"),)}, "each at its place"),
        ({"question": "?", "answers": (Answer(4, " "),)}, "each at its place"),
        ({"question": "?", "answers": (Answer(11, "six"), Answer(0, "six"))}, "each at its place"),
    ],
)
def test_questions_and_targets_are_checked(change: dict, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        replace(EXAMPLE, **change)


def test_the_digest_sees_the_splits() -> None:
    assert Corpus("x", (EXAMPLE,), valid=(EXAMPLE,)).digest != Corpus("x", (EXAMPLE,), test=(EXAMPLE,)).digest
