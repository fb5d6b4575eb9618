"""CEAT against plain loops, planted associations, and simulation of what its intervals and p-values promise."""

import numpy as np
import pytest
from scipy import stats

from trustnlp.data.seat import AssociationTest
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.fairness.association import Scores, effect_interval, effect_sizes, permutation_test, unit_vectors
from trustnlp.fairness.ceat import (
    Context,
    Pieces,
    ceat,
    combined,
    draw_scores,
    find_contexts,
    published,
    random_effects,
)
from trustnlp.fairness.scorer import Kind, Tokens
from trustnlp.results import Verdict


def sets_of(name, *sets):
    return AssociationTest(name, *sets, ("X", "Y", "A", "B"))


def vectors(generator, gap, words=8, contexts=5, width=12):
    """Four sets of words; a word's contexts lie around it, words around the middle of their set."""
    sets = []
    for side, count in ((gap / 2, words), (-gap / 2, words), (1.5, 8), (-1.5, 8)):
        middle = 3 * np.eye(width)[0] + side * np.eye(width)[1] + generator.normal(size=(count, 1, width))
        sets.append(list(unit_vectors(middle + generator.normal(size=(count, contexts, width)))))
    return sets


def test_the_combination_by_hand():
    # w = 1, 4: mean 1.8; Q = 0.64 + 4 * 0.04 = 0.8 < 1, so tau^2 is 0
    found = random_effects(np.array([1.0, 2.0]), np.array([1.0, 0.25]))
    assert (found.effect, found.q, found.tau_squared) == pytest.approx((1.8, 0.8, 0))
    assert found.error == pytest.approx(1 / np.sqrt(5))
    # w = 1, 1: mean 2, Q = 8, c = 2 - 1 = 1, tau^2 = 7; the error is sqrt((1 + 7) / 2)
    found = random_effects(np.array([0.0, 4.0]), np.array([1.0, 1.0]))
    assert (found.effect, found.q, found.tau_squared, found.error) == pytest.approx((2, 8, 7, 2))


def test_draws_that_weigh_alike_are_combined_as_their_mean():
    scores = draw_scores(vectors(np.random.default_rng(0), 2.0), 200, np.random.default_rng(1))
    found = combined(scores)
    assert found.effect == pytest.approx(effect_sizes(scores).mean())


def test_draws_agree_with_plain_loops():
    sets = vectors(np.random.default_rng(0), 1.0, words=3)
    scores = draw_scores(sets, 4, np.random.default_rng(1))
    generator = np.random.default_rng(1)
    picks = [[generator.integers(5, size=4) for _ in words] for words in sets]
    for draw in range(4):
        x, y, a, b = (
            [word[pick[draw]] for word, pick in zip(words, chosen, strict=True)]
            for words, chosen in zip(sets, picks, strict=True)
        )
        for side, held in ((x, scores.x), (y, scores.y)):
            plain = [np.mean([w @ one for one in a]) - np.mean([w @ one for one in b]) for w in side]
            assert held[:, draw] == pytest.approx(plain)


def test_the_published_variant_agrees_with_plain_loops():
    scores = draw_scores(vectors(np.random.default_rng(2), 0.7), 50, np.random.default_rng(1))
    e, v = [], []
    for draw in range(50):
        x, y = scores.x[:, draw], scores.y[:, draw]
        spread = np.std([*x, *y], ddof=1)
        e.append((x.mean() - y.mean()) / spread)
        v.append(spread**2)
    e, v = np.array(e), np.array(v)
    w = 1 / v
    q = np.sum(w * e**2) - np.sum(w * e) ** 2 / np.sum(w)
    tau = max(0, (q - 49) / (np.sum(w) - np.sum(w**2) / np.sum(w)))
    star = 1 / (v + tau)
    effect = np.sum(star * e) / np.sum(star)
    found, p = published(scores)
    assert (found.effect, found.tau_squared) == pytest.approx((effect, tau))
    assert p == pytest.approx(stats.norm.sf(effect * np.sqrt(np.sum(star))))


def test_published_p_values_fall_with_the_number_of_draws_and_ours_do_not():
    """On data without any association."""
    sets = vectors(np.random.default_rng(5), 0.0)
    theirs, ours, widths = [], [], []
    for draws in (10, 100, 1000, 10_000):
        scores = draw_scores(sets, draws, np.random.default_rng(1))
        p = published(scores)[1]
        theirs.append(min(p, 1 - p))
        ours.append(permutation_test(scores, np.random.default_rng(0)).two_sided)
        interval = effect_interval(scores)
        widths.append(interval.high - interval.low)
    assert theirs[0] > theirs[1] > theirs[2] > theirs[3]
    assert theirs[3] < 1e-6
    assert min(ours) > 0.05
    assert widths[3] > 0.8 * widths[1]


def simulated(runs, gap=0.0, words=8, draws=60, seed=0):
    """How often the interval covers the effect in all words, our p-value rejects, and the published one."""
    generator, covered, ours, theirs = np.random.default_rng(seed), 0, 0, 0
    for _ in range(runs):
        sets = vectors(generator, gap, words)
        scores = draw_scores(sets, draws, generator)
        truth = 0.0
        if gap:
            many = vectors(generator, gap, 1000, contexts=1)
            fine = draw_scores([*many[:2], *sets[2:]], draws, generator)
            g = (fine.x.mean(0) - fine.y.mean(0)) / np.sqrt((fine.x.var(0) + fine.y.var(0)) / 2)
            truth = np.mean(g * np.sqrt((2 * words - 1) / (2 * words - 2 + words / 2 * g**2)))
        covered += truth in effect_interval(scores)
        ours += permutation_test(scores, generator, samples=99).two_sided <= 0.05
        p = published(scores)[1]
        theirs += min(p, 1 - p) <= 0.025
    return covered / runs, ours / runs, theirs / runs


def test_null_data_quick():
    covered, ours, theirs = simulated(200, words=6)
    assert 0.91 <= covered <= 0.99
    assert ours <= 0.09
    assert theirs > 0.3


@pytest.mark.slow
@pytest.mark.parametrize("words", [6, 8, 16])
def test_null_data(words):
    covered, ours, theirs = simulated(2000, words=words)
    assert 0.93 <= covered <= 0.97
    assert ours <= 0.06
    assert theirs > 0.3


@pytest.mark.slow
def test_intervals_cover_planted_effects():
    assert 0.93 <= simulated(1000, 1.0)[0] <= 0.97


@pytest.mark.slow
def test_strong_effects_of_few_words_are_covered_less_often():
    """Known and documented: 92% at d of about 1.3 with 8 words of 5 contexts; a change that mends it fails here."""
    assert 0.90 <= simulated(1000, 3.0)[0] < 0.93


TEXTS = [
    "He met Bill. The bill was paid!\nWill Bill pay the bill?",
    "An executive-level talk. Executive pay rose, and the executive left.",
    "A long " + "very " * 70 + "executive sentence.",
]


def test_contexts_are_sentences_that_hold_the_word():
    found = find_contexts(TEXTS, ["Bill", "bill", "executive", "unicorn"], np.random.default_rng(0))
    assert [each.sentence for each in found["Bill"]] == ["He met Bill.", "Will Bill pay the bill?"]
    # In lower case a word is found in any case, at its first place in the sentence.
    assert [each.sentence for each in found["bill"]] == [
        "He met Bill.",
        "The bill was paid!",
        "Will Bill pay the bill?",
    ]
    assert found["executive"] == [Context("Executive pay rose, and the executive left.", 0, 9)]
    assert found["unicorn"] == []


def test_contexts_are_a_uniform_sample_read_once():
    texts = (f"the {number} words." for number in range(500))
    [held] = find_contexts(texts, ["words"], np.random.default_rng(0), most=100).values()
    numbers = [int(each.sentence.split()[1]) for each in held]
    assert len(numbers) == 100
    assert numbers == sorted(set(numbers))
    assert 200 < np.mean(numbers) < 300


class Known:
    """A scorer whose tokens are halves of words, and whose representations are planted by the word's letter."""

    kind = Kind.MASKED
    name = "known"

    def __init__(self, gap):
        self.sides = {"x": gap / 2, "y": -gap / 2, "a": 1.5, "b": -1.5}
        self.asked = []

    def tokens(self, text, pair=None):
        spans, start = [(0, 0)], 0
        for word in text.split(" "):
            middle = start + (len(word) + 1) // 2
            spans += [(start, middle), (middle, start + len(word))]
            start += len(word) + 1
        return Tokens(tuple(text.encode()[:1] * len(spans)), tuple(spans))

    def representations(self, asked):
        self.asked += asked
        side = np.array([self.sides[chr(each.ids[0])] for each in asked])
        noise = np.random.default_rng(len(self.asked)).normal(size=(len(asked), 6))
        return 3 * np.eye(6)[0] + side[:, None] * np.eye(6)[1] + noise


SETS = sets_of("Planted", *(tuple(f"{letter}word{number}" for number in range(6)) for letter in "xyab"))
WORDS = [word for each in (SETS.targets_x, SETS.targets_y, SETS.attributes_a, SETS.attributes_b) for word in each]
CORPUS = [f"{word} stands {number} times" for word in WORDS for number in range(8)]


def found(gap=6.0, contexts=None, **options):
    held = find_contexts(CORPUS, WORDS, np.random.default_rng(0)) if contexts is None else contexts
    scorer = Known(gap)
    options = {"draws": 100, "dataset": "planted", "generator": np.random.default_rng(0), **options}
    return ceat(scorer, [SETS], held, **options)[0], scorer


def test_a_planted_association_is_found():
    finding, scorer = found()
    assert (finding.id, finding.ideal, finding.n) == ("ceat-planted", 0, 12)
    assert finding.verdict is Verdict.DISPARITY
    assert finding.details["p_two_sided"] < 0.01
    assert finding.details["contexts"]["xword0"] == 8
    assert finding.details["too_rare"] == []
    assert len(scorer.asked) == 8 * 24
    assert finding == found()[0]


def test_a_split_word_is_the_mean_of_its_pieces_or_the_last():
    assert {each.positions for each in found()[1].asked} == {(1, 2)}
    assert {each.positions for each in found(pieces=Pieces.LAST)[1].asked} == {(2,)}


def test_rare_words_are_reported():
    held = find_contexts(CORPUS, WORDS, np.random.default_rng(0))
    finding, _ = found(contexts={**held, "xword0": held["xword0"][:4], "bword1": []})
    assert finding.details["too_rare"] == ["bword1", "xword0"]
    assert finding.details["words"] == [5, 6, 6, 5]
    none, _ = found(contexts={})
    assert none.verdict is Verdict.INSUFFICIENT_EVIDENCE


def test_details_hold_no_text():
    assert "stands" not in repr(found()[0])


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(ArgumentError, match="draws"):
        found(draws=1)
    with pytest.raises(GuaranteeError, match="no token"):
        found(contexts=dict.fromkeys(WORDS, [Context("x y", 1, 1)] * 5))
    with pytest.raises(GuaranteeError, match="not above 0"):
        random_effects(np.ones(2), np.zeros(2))
    with pytest.raises(ArgumentError, match="at least 2"):
        random_effects(np.ones(1), np.ones(1))
    with pytest.raises(GuaranteeError, match="same association"):
        Scores(np.ones((2, 1)), np.ones((2, 1)))
