"""WEAT against the published figures of its authors, SEAT against a scorer whose vectors are known."""

import os
from pathlib import Path

import numpy as np
import pytest

from trustnlp.data.seat import AssociationTest, read_seat
from trustnlp.data.word_vectors import read_word_vectors
from trustnlp.errors import ArgumentError, CorpusError, GuaranteeError
from trustnlp.fairness.scorer import Asked, Kind, Tokens
from trustnlp.fairness.weat import SENTENCES, Pooling, seat, weat
from trustnlp.results import Verdict

DATA = os.environ.get("TRUSTNLP_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="TRUSTNLP_DATA is not set")


def sets_of(name, *sets):
    return AssociationTest(name, *sets, ("X", "Y", "A", "B"))


def words(letter, n):
    return tuple(f"{letter}{number}" for number in range(n))


PLANTED = sets_of("planted", words("x", 8), words("y", 8), words("a", 4), words("b", 4))


def planted(gap, seed=0):
    """Vectors along whose first axis x and a lie on one side, y and b on the other."""
    generator = np.random.default_rng(seed)
    sides = {"x": gap / 2, "y": -gap / 2, "a": 2.0, "b": -2.0}
    found = {}
    for each in (PLANTED.targets_x, PLANTED.targets_y, PLANTED.attributes_a, PLANTED.attributes_b):
        for word in each:
            found[word] = generator.normal(size=6) + np.eye(6)[0] * sides[word[0]] + np.eye(6)[1] * 4
    return found


def generator():
    return np.random.default_rng(0)


def test_an_effect_size_by_hand():
    vectors = {"x0": (1, 0), "x1": (3, 4), "y0": (0, 1), "y1": (4, 3), "a": (2, 0), "b": (0, 5)}
    sets = sets_of("hand", ("x0", "x1"), ("y0", "y1"), ("a",), ("b",))
    # associations 1 and -0.2 against -1 and 0.2: means 0.4 and -0.4, sum of squares 2.08
    found = weat(vectors, [sets], dataset="hand", generator=generator())[0]
    assert found.value is None
    sets = sets_of("hand", ("x0", "x1") * 3, ("y0", "y1") * 3, ("a",), ("b",))
    found = weat(vectors, [sets], dataset="hand", generator=generator())[0]
    assert found.value == pytest.approx(0.8 / np.sqrt(3 * 2.08 / 11))


def test_a_planted_association_is_found_and_its_mirror_image_is_its_negative():
    [found] = weat(planted(4.0), [PLANTED], dataset="planted", generator=generator())
    assert (found.id, found.ideal, found.n, found.unit) == ("weat-planted", 0, 16, "")
    assert found.verdict is Verdict.DISPARITY
    assert found.details["p_two_sided"] < 0.01
    turned = sets_of("planted", PLANTED.targets_y, PLANTED.targets_x, PLANTED.attributes_a, PLANTED.attributes_b)
    [other] = weat(planted(4.0), [turned], dataset="planted", generator=generator())
    assert (other.value, other.low, other.high) == pytest.approx((-found.value, -found.high, -found.low))


def test_effect_sizes_rise_with_what_is_planted():
    found = [weat(planted(gap), [PLANTED], dataset="p", generator=generator())[0].value for gap in (0, 0.5, 1, 2, 4)]
    assert found == sorted(found)


def test_disparities_without_any_association_are_rare():
    found = [weat(planted(0.0, seed), [PLANTED], dataset="p", generator=generator())[0] for seed in range(100)]
    assert sum(finding.verdict is Verdict.DISPARITY for finding in found) <= 10  # P(more) = 1.1% at 5% each
    assert np.mean([finding.details["p_two_sided"] <= 0.05 for finding in found]) <= 0.10


def test_words_without_vector_are_listed():
    vectors = planted(1.0)
    del vectors["x3"], vectors["b1"]
    [found] = weat(vectors, [PLANTED], dataset="p", generator=generator())
    assert found.details["missing"] == ["b1", "x3"]
    assert found.details["words"] == [7, 8, 4, 3]
    [none] = weat({}, [PLANTED], dataset="p", generator=generator())
    assert none.verdict is Verdict.INSUFFICIENT_EVIDENCE


def test_a_vector_without_direction_is_refused():
    with pytest.raises(GuaranteeError, match="no direction"):
        weat({**planted(1.0), "a0": np.zeros(6)}, [PLANTED], dataset="p", generator=generator())


@needs_data
def test_published_effect_sizes_of_word2vec():
    """Caliskan et al. 2017, supplement, the table of word2vec trained on Google News."""
    published = {"weat1": 1.54, "weat2": 1.63, "weat6": 1.89, "weat7": 0.97, "weat8": 1.24}
    tests = [read_seat(Path(DATA) / "seat" / f"{name}.jsonl")[0] for name in published]
    vectors = read_word_vectors(Path(DATA) / "word-vectors" / "weat_w2v" / "weat_w2v____old.txt")
    found = weat(vectors, tests, dataset="word2vec", generator=generator())
    assert {f.id.removeprefix("weat-"): round(f.value, 2) for f in found} == published
    assert all(f.details["p_holm"] < 0.05 for f in found[:3])


class Known:
    """A scorer whose tokens are words and whose representation of a sentence is that of its longest word, jittered."""

    kind = Kind.MASKED
    name = "known"

    def __init__(self, vectors, jitter=0.3):
        self.vectors, self.jitter, self.asked = vectors, jitter, []
        self.sentences = {}

    def tokens(self, text, pair=None):
        spans, start = [(0, 0)], 0
        for word in text.split(" "):
            spans.append((start, start + len(word)))
            start += len(word) + 1
        number = self.sentences.setdefault(text, len(self.sentences))
        return Tokens((number,) * len(spans), tuple(spans))

    def representations(self, asked):
        self.asked += asked
        texts = list(self.sentences)
        found = []
        for each in asked:
            held = next(word for word in self.vectors if word in texts[each.ids[0]].lower())
            found.append(self.vectors[held] + self.jitter * np.random.default_rng(each.ids[0]).normal(size=6))
        return np.array(found)


def test_sentences_of_one_vector_are_weat():
    """Without jitter all sentences of a word are one point: d differs from WEAT's by the degrees of freedom alone."""
    vectors = planted(1.5)
    [found] = seat(Known(vectors, 0.0), [PLANTED], generator=generator())
    [plain] = weat(vectors, [PLANTED], dataset="p", generator=generator())
    n, many = 16, 16 * len(SENTENCES)
    factor = np.sqrt((many - 1) / many * n / (n - 1))
    assert found.value == pytest.approx(plain.value * factor)
    assert found.details["p_two_sided"] == plain.details["p_two_sided"]
    assert (found.n, found.details["sentences"]) == (16, many)
    assert found.high - found.low == pytest.approx(plain.high - plain.low, rel=0.1)


def test_more_sentences_of_the_same_words_are_no_more_evidence():
    scorer = Known(planted(1.0))
    few, many = (
        seat(scorer, [PLANTED], generator=generator(), sentences=[f"{word} is {{}}." for word in patterns])[0]
        for patterns in (["this", "that"], [f"it{number}" for number in range(60)])
    )
    assert many.high - many.low > 0.8 * (few.high - few.low)


def test_given_sentences_are_grouped_by_their_words():
    scorer = Known(planted(1.0))
    made = [
        tuple(f"This is {word}." for word in each) + tuple(f"{word.upper()}s are here." for word in each)
        for each in (PLANTED.targets_x, PLANTED.targets_y, PLANTED.attributes_a, PLANTED.attributes_b)
    ]
    [found] = seat(scorer, [sets_of("sent", *made)], words=[PLANTED], generator=generator())
    assert (found.n, found.details["sentences"]) == (16, 32)
    with pytest.raises(CorpusError, match="none of its words"):
        seat(scorer, [sets_of("sent", ("This is odd.",), *made[1:])], words=[PLANTED], generator=generator())
    with pytest.raises(ArgumentError, match="one length"):
        seat(scorer, [PLANTED], words=[], generator=generator())


@pytest.mark.parametrize(
    ("kind", "pooling", "positions"),
    [
        (Kind.MASKED, None, (0,)),
        (Kind.CAUSAL, None, (3,)),
        (Kind.MASKED, Pooling.MEAN, (1, 2, 3)),
        (Kind.CAUSAL, Pooling.FIRST, (0,)),
    ],
)
def test_poolings(kind, pooling, positions):
    scorer = Known(planted(1.0))
    scorer.kind = kind
    [found] = seat(scorer, [PLANTED], generator=generator(), pooling=pooling, sentences=["this is {}."])
    assert all(isinstance(each, Asked) and each.positions == positions for each in scorer.asked)
    assert found.details["model"] == "known"


@pytest.mark.parametrize("sentences", [["no word"], ["{} and {}"], []])
def test_sentences_need_one_place(sentences):
    with pytest.raises(ArgumentError, match="sentences"):
        seat(Known(planted(1.0)), [PLANTED], generator=generator(), sentences=sentences)
