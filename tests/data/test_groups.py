import pytest

from trustnlp.data import groups
from trustnlp.data.corpus import Corpus, Example
from trustnlp.errors import ArgumentError, CorpusError


def corpus(*texts: str, group: str | None = None) -> Corpus:
    return Corpus("tiny", tuple(Example(text, group=group) for text in texts), test=(Example("a b c d", group=group),))


def test_length_parts_at_the_median_of_training_and_says_it_is_a_proxy() -> None:
    derived = groups.derive(corpus("a", "a b", "a b c"), "length")
    assert [example.group for example in derived.train] == ["short", "short", "long"]
    assert [example.group for example in derived.test] == ["long"]
    assert derived.notes == ("groups are 'short' (at most 2 tokens) and 'long' texts: a proxy, not a protected group",)


def test_texts_of_one_length_have_no_groups() -> None:
    with pytest.raises(CorpusError, match="no training text of corpus 'tiny' is longer than the median of 2 tokens"):
        groups.derive(corpus("a b", "c d"), "length")


def test_two_groups_of_its_own_pass() -> None:
    two = Corpus("two", (Example("a", group="x"), Example("b", group="y")))
    assert groups.derive(two, "column") is two


@pytest.mark.parametrize(
    ("unfit", "message"),
    [
        (corpus("a"), "names no groups; name its column"),
        (corpus("a", group="x"), "one group only, 'x'"),
        (
            Corpus("some", (Example("a", group="x"), Example("b", group="y"), Example("c"))),
            "1 examples .* have no group",
        ),
    ],
)
def test_groups_that_cannot_carry_a_gap_are_refused(unfit: Corpus, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        groups.derive(unfit, "column")


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ArgumentError, match="'rule' must be one of 'column', 'length', got 'shoe size'"):
        groups.derive(corpus("a"), "shoe size")
