import pytest

from trustnlp.data import Corpus, Example
from trustnlp.data.corpus import Answer
from trustnlp.data.passages import passages
from trustnlp.errors import ArgumentError, CorpusError

CORPUS = Corpus(
    "c",
    (Example("a b  c\td", user="u"), Example("= heading ="), Example("e f g h i", tags=tuple("OOOOO"))),
    valid=(Example("too short"),),
    test=(Example("j k l m"),),
)


def test_every_long_text_gives_its_beginning():
    cut = passages(CORPUS, 4)
    assert [example.text for example in cut.train] == ["a b c d", "e f g h"]
    assert (cut.train[0].user, cut.train[1].tags) == ("u", ("O",) * 4)
    assert cut.valid == ()
    assert [example.text for example in cut.test] == ["j k l m"]
    assert cut.notes == ("the first 4 tokens of the 2 of 3 training texts that have as many",)


def test_a_question_of_the_whole_text_is_dropped():
    asked = Example("a b  c d", question="?", answers=(Answer(7, "d"),), target="x")
    assert passages(Corpus("q", (asked,)), 3).train == (Example("a b c"),)


def test_texts_that_are_all_too_short_are_refused():
    with pytest.raises(CorpusError, match="no training text of 6 tokens"):
        passages(CORPUS, 6)
    with pytest.raises(ArgumentError, match="'tokens' must be a whole number >= 1"):
        passages(CORPUS, 0)
