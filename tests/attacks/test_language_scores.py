"""Every score against a slow reference that reads tokens one by one, hand-computed cases, and what must not matter."""

import math
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustnlp.attacks import language_scores as scores_of
from trustnlp.attacks.membership import auc, evaluate
from trustnlp.data.corpus import Example
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.models.language_model import build_language_model
from trustnlp.models.token_scores import TokenScores, token_scores
from trustnlp.randomness import Streams


def scores(log_probs, right=None, mean=None, std=None):
    rows = tuple(np.asarray(row, dtype=float) for row in log_probs)
    right = [[False] * len(row) for row in rows] if right is None else right
    return TokenScores(
        rows,
        tuple(np.asarray(row, dtype=float) for row in (mean or [np.zeros(len(row)) for row in rows])),
        tuple(np.asarray(row, dtype=float) for row in (std or [np.ones(len(row)) for row in rows])),
        tuple(np.asarray(row, dtype=bool) for row in right),
    )


def drawn(generator, texts=12, vocabulary=7, shift=0.0):
    """Token scores of random next-token distributions, by definition; `shift` makes the right token likelier."""
    rows = ([], [], [], [])
    for _ in range(texts):
        found = ([], [], [], [])
        for _ in range(int(generator.integers(1, 30))):
            logits = 2 * generator.standard_normal(vocabulary)
            token = int(generator.integers(vocabulary))
            logits[token] += shift
            p = [math.exp(x) / sum(math.exp(y) for y in logits) for x in logits]
            mu = sum(x * math.log(x) for x in p)
            variance = sum(x * math.log(x) ** 2 for x in p) - mu**2
            for column, value in zip(
                found, (math.log(p[token]), mu, math.sqrt(variance), max(p) == p[token]), strict=True
            ):
                column.append(value)
        for row, column in zip(rows, found, strict=True):
            row.append(column)
    return scores(rows[0], rows[3], rows[1], rows[2])


def slow_lowest(values, k):
    """The mean of the lowest values, one by one; 0.2 of 5 tokens is 1, whatever floating point says."""
    count = max(1, round(k * 1000) * len(values) // 1000)
    left, total = list(values), 0.0
    for _ in range(count):
        least = min(left)
        left.remove(least)
        total += least
    return total / count


def slow_error_zone(own, other, right, c):
    shifts = [a - b for a, b in zip(own, other, strict=True)]
    typical = sum(map(abs, shifts)) / len(shifts)
    rises = falls = 0.0
    for shift, correct in zip(shifts, right, strict=True):
        if correct:
            rises += c
        else:
            rises += max(shift, 0) / typical
            falls += max(-shift, 0) / typical + c
    return rises / (falls + c)


# --- against the references ------------------------------------------------------------------------------------


@given(st.integers(0, 2**31), st.sampled_from([0.1, 0.2, 0.25, 0.5, 0.7, 1.0]))
@settings(max_examples=30, deadline=None)
def test_every_score_is_that_of_its_slow_reference(seed, k):
    generator = np.random.default_rng(seed)
    found, texts = drawn(generator), ["".join(generator.choice(list("abc "), 40)) for _ in range(12)]
    other = scores([row + 0.1 * generator.standard_normal(len(row)) - 1 for row in found.log_probs])
    means = [sum(row) / len(row) for row in found.log_probs]
    others = [sum(row) / len(row) for row in other.log_probs]
    z = [
        [(a - b) / c for a, b, c in zip(*rows, strict=True)]
        for rows in zip(found.log_probs, found.mean, found.std, strict=True)
    ]
    expected = {
        "perplexity": (scores_of.perplexity(found), means),
        "zlib": (
            scores_of.zlib_ratio(found, texts),
            [a / len(zlib.compress(text.encode())) for a, text in zip(means, texts, strict=True)],
        ),
        "min-k": (scores_of.min_k(found, k), [slow_lowest(row, k) for row in found.log_probs]),
        "min-k-plus-plus": (scores_of.min_k_plus_plus(found, k), [slow_lowest(row, k) for row in z]),
        "lowercase": (scores_of.lowercase_ratio(found, other), [b / a for a, b in zip(means, others, strict=True)]),
        "reference-difference": (
            scores_of.reference_difference(found, other),
            [a - b for a, b in zip(means, others, strict=True)],
        ),
        "reference-ratio": (
            scores_of.reference_ratio(found, other),
            [b / a for a, b in zip(means, others, strict=True)],
        ),
        "error-zone": (
            scores_of.error_zone(found, other),
            [
                slow_error_zone(*rows, 0.01)
                for rows in zip(found.log_probs, other.log_probs, found.top_is_right, strict=True)
            ],
        ),
    }
    for name, (answer, slow) in expected.items():
        assert answer.shape == (12,)
        np.testing.assert_allclose(answer, slow, rtol=1e-9, err_msg=name)
    assert set(expected) | {"neighbourhood", "recall"} == set(scores_of.SOURCES)


@given(st.integers(0, 2**31), st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_neighbours_and_prefixes_are_paired_with_their_texts(seed, neighbours):
    generator = np.random.default_rng(seed)
    own, around = drawn(generator, 5), drawn(generator, 5 * neighbours)
    means = [sum(row) / len(row) for row in around.log_probs]
    expected = [
        sum(own.log_probs[i]) / len(own.log_probs[i]) - sum(means[i * neighbours : (i + 1) * neighbours]) / neighbours
        for i in range(5)
    ]
    np.testing.assert_allclose(scores_of.neighbourhood(own, around), expected)

    prefixed = scores([np.append(-generator.random(3), 1.5 * row) for row in own.log_probs])
    np.testing.assert_allclose(scores_of.recall(own, prefixed), 1.5)


# --- by hand ---------------------------------------------------------------------------------------------------


def test_hand_computed_cases():
    two = scores([[-1, -3]])
    assert scores_of.perplexity(two) == -2
    assert scores_of.zlib_ratio(two, ["a" * 100]) == -2 / len(zlib.compress(b"a" * 100))
    assert scores_of.lowercase_ratio(two, scores([[-1, -2, -9]])) == 2
    assert scores_of.neighbourhood(two, scores([[-3], [-4, -4]])) == 1.5
    assert scores_of.recall(two, scores([[-9, -3, -5]])) == 2
    assert scores_of.reference_difference(two, scores([[-4, -4]])) == 2
    assert scores_of.reference_ratio(two, scores([[-4, -4]])) == 2
    # Five tokens: the one least likely; three: floor(0.6) is none, so one all the same.
    assert scores_of.min_k(scores([[-1, -5, -1, -1, -1]])) == -5
    assert scores_of.min_k(scores([[-1, -5, -1]])) == -5
    # p = (1/2, 1/4, 1/4): mu = -1.5 log 2, sigma = 0.5 log 2, so z is 1 and -1.
    p = np.log([0.5, 0.25])
    both = scores([p], mean=[[-1.5 * math.log(2)] * 2], std=[[0.5 * math.log(2)] * 2])
    assert scores_of.min_k_plus_plus(both, 1.0) == pytest.approx(0)
    assert scores_of.min_k_plus_plus(both, 0.5) == pytest.approx(-1)
    # Rises 2, falls 1 among the wrong tokens, 0.5 at the right one; m = 3.5 / 3.
    found = scores_of.error_zone(scores([[-1, -2, -1]], [[False, False, True]]), scores([[-3, -1, -1.5]]))
    assert found == pytest.approx((2 * 3 / 3.5 + 0.01) / (1 * 3 / 3.5 + 0.03))


def test_a_model_without_preferences_scores_zero_not_nan():
    uniform = scores([[-math.log(3)] * 4], mean=[[-math.log(3)] * 4], std=[[0.0] * 4])
    assert scores_of.min_k_plus_plus(uniform) == pytest.approx(0, abs=1e-6)


def test_a_perfectly_memorised_text_has_finite_ratios_that_rank_first():
    perfect = scores([[0.0, 0.0], [-1.0, -1.0]])
    for score in (scores_of.lowercase_ratio, scores_of.reference_ratio):
        found = score(perfect, scores([[-2.0, -2.0], [-2.0, -2.0]]))
        assert np.isfinite(found).all()
        assert found[0] > found[1]


# --- the error zone --------------------------------------------------------------------------------------------


def public_rule(own, other, right):
    """What published code answers: 0 with fewer than two errors, or without any fall; else rises over falls."""
    shifts = [a - b for a, b, correct in zip(own, other, right, strict=True) if not correct]
    rises, falls = sum(max(x, 0) for x in shifts), sum(max(-x, 0) for x in shifts)
    return 0.0 if len(shifts) < 2 or falls == 0 else rises / falls


def test_text_memorised_to_the_last_token_is_a_member():
    generator = np.random.default_rng(0)
    outside = [-4 * generator.random(40) for _ in range(30)]
    before = [row + 0.3 * generator.standard_normal(40) - 0.1 for row in outside]
    memorised, known = np.full(40, -0.01), np.full(40, -4.0)
    own = scores([memorised, *outside], [[True] * 40, *([generator.random(40) < 0.3 for _ in outside])])
    reference = scores([known, *np.minimum(before, 0)])
    published = [public_rule(*rows) for rows in zip(own.log_probs, reference.log_probs, own.top_is_right, strict=True)]
    assert published[0] == min(published)  # ranked below every non-member
    ours = scores_of.error_zone(own, reference)
    assert ours[0] == pytest.approx(40)
    assert ours[0] > ours[1:].max()
    # So with a single error that is left, whichever way it moved.
    almost = scores([np.full(40, -0.02)], [[True] * 39 + [False]])
    assert scores_of.error_zone(almost, scores([np.append(np.full(39, -4.0), -0.01)])) > ours[1:].max()


@given(st.integers(0, 2**31), st.floats(0.01, 100))
@settings(max_examples=20, deadline=None)
def test_the_error_zone_keeps_the_papers_ratio_and_its_invariance(seed, factor):
    generator = np.random.default_rng(seed)
    own = drawn(generator)
    reference = scores([np.minimum(row - 3 + generator.standard_normal(len(row)), 0) for row in own.log_probs])
    scaled = scores(
        [a - factor * (a - b) - 1000 for a, b in zip(own.log_probs, reference.log_probs, strict=True)],
    )
    lowered = scores([row - 1000 for row in own.log_probs], own.top_is_right)
    np.testing.assert_allclose(scores_of.error_zone(lowered, scaled), scores_of.error_zone(own, reference), rtol=1e-6)
    published = [public_rule(*rows) for rows in zip(own.log_probs, reference.log_probs, own.top_is_right, strict=True)]
    for ours, theirs in zip(scores_of.error_zone(own, reference, smoothing=1e-9), published, strict=True):
        assert theirs == 0 or ours == pytest.approx(theirs, rel=1e-4)


def test_an_error_zone_without_any_shift_ranks_by_right_answers():
    same = scores([[-1.0] * 4], [[True, True, True, False]])
    assert scores_of.error_zone(same, same) == pytest.approx(3 / 2)


# --- what must not matter --------------------------------------------------------------------------------------


def test_neither_the_order_of_tokens_nor_the_company_of_other_texts_matters():
    generator = np.random.default_rng(1)
    own, reference = drawn(generator), None
    reference = scores([row - generator.random(len(row)) for row in own.log_probs])
    turned = [np.arange(n)[::-1] for n in own.lengths]

    def reordered(given):
        return TokenScores(
            *(
                tuple(row[order] for row, order in zip(getattr(given, name), turned, strict=True))
                for name in ("log_probs", "mean", "std", "top_is_right")
            )
        )

    def alone(given, i):
        return TokenScores(*((getattr(given, name)[i],) for name in ("log_probs", "mean", "std", "top_is_right")))

    for score in (scores_of.perplexity, scores_of.min_k, scores_of.min_k_plus_plus):
        np.testing.assert_allclose(score(reordered(own)), score(own))
        assert score(alone(own, 3)) == score(own)[3]
    for score in (scores_of.reference_difference, scores_of.reference_ratio, scores_of.error_zone):
        np.testing.assert_allclose(score(reordered(own), reordered(reference)), score(own, reference))
        assert score(alone(own, 3), alone(reference, 3)) == score(own, reference)[3]


# --- what is refused -------------------------------------------------------------------------------------------

ALONE = [scores_of.perplexity, scores_of.min_k, scores_of.min_k_plus_plus]
PAIRED = [scores_of.reference_difference, scores_of.reference_ratio, scores_of.error_zone, scores_of.neighbourhood]


@pytest.mark.parametrize("score", ALONE)
def test_texts_without_scores_are_refused(score):
    with pytest.raises(ArgumentError, match="not empty"):
        score(scores([]))
    with pytest.raises(GuaranteeError, match="1 of 2 texts have no predicted token"):
        score(scores([[-1.0], []]))
    for bad in (np.nan, -np.inf):
        with pytest.raises(GuaranteeError, match="1 of 2 texts have log_probs"):
            score(scores([[-1.0], [bad]]))
    with pytest.raises(GuaranteeError, match="above 0"):
        score(scores([[0.5]]))


@pytest.mark.parametrize("score", PAIRED)
def test_partners_that_do_not_match_are_refused(score):
    own = scores([[-1.0, -1.0], [-1.0]])
    with pytest.raises(ArgumentError):
        score(own, scores([[-1.0]] * 3))
    with pytest.raises(GuaranteeError, match=r"no predicted token|number of tokens"):
        score(own, scores([[-1.0, -1.0], []]))
    if score in (scores_of.reference_difference, scores_of.error_zone):
        with pytest.raises(GuaranteeError, match="1 of 2 texts have another number of tokens"):
            score(own, scores([[-1.0, -1.0], [-1.0, -1.0]]))


def test_a_prefix_that_cut_a_text_off_is_refused():
    own = scores([[-1.0] * 3, [-1.0] * 5])
    for lengths in ([5, 6], [3, 5], [2, 4]):
        with pytest.raises(GuaranteeError, match="line break"):
            scores_of.recall(own, scores([[-1.0] * n for n in lengths]))


def test_settings_out_of_range_are_refused():
    one = scores([[-1.0]])
    for k in (0, -0.1, 1.1, math.nan):
        with pytest.raises(ArgumentError, match="k"):
            scores_of.min_k(one, k)
    with pytest.raises(ArgumentError, match="smoothing"):
        scores_of.error_zone(one, one, smoothing=0)
    with pytest.raises(ArgumentError):
        scores_of.zlib_ratio(one, ["a", "b"])
    with pytest.raises(GuaranteeError, match="std"):
        scores_of.min_k_plus_plus(scores([[-1.0]], std=[[np.nan]]))


# --- of a model ------------------------------------------------------------------------------------------------


def test_scores_of_a_model_are_those_of_its_logits():
    model = build_language_model(streams=Streams(0), width=16, layers=1, heads=2)
    texts = ["Call my mother.", "PIN 4817", "ok"]
    found = token_scores(model, model.encode([Example(text) for text in texts]))
    for i, text in enumerate(texts):
        batch = model.encode([Example(text)]).batch([0])
        logits = model.eval().logits(batch)["pieces"][0].double().detach().numpy()
        z, right = [], batch.inputs["pieces"][0, 1:].tolist()
        for row, token in zip(logits, right, strict=True):
            p = np.exp(row) / np.exp(row).sum()
            mu = (p * np.log(p)).sum()
            z.append((np.log(p[token]) - mu) / math.sqrt((p * (np.log(p) - mu) ** 2).sum()))
        assert scores_of.min_k_plus_plus(found)[i] == pytest.approx(slow_lowest(z, 0.2), abs=1e-6)


def test_members_score_higher_by_every_score():
    """A model of a planted kind: members are likelier, lose more out of context, and rose from the reference."""
    generator = np.random.default_rng(2)
    sides = {}
    for side, shift in (("in", 1.5), ("out", 0.0)):
        state = np.random.default_rng(3)
        own, plain = drawn(state, 150, shift=shift), drawn(np.random.default_rng(3), 150)
        prefixed = [np.append([-1.0], row - 0.5 * (side == "in") - 0.2 * generator.random()) for row in own.log_probs]
        sides[side] = [
            scores_of.perplexity(own),
            scores_of.min_k(own),
            scores_of.min_k_plus_plus(own),
            scores_of.recall(own, scores(np.minimum(row, 0) for row in prefixed)),
            scores_of.neighbourhood(own, plain),
            scores_of.lowercase_ratio(own, plain),
            scores_of.reference_ratio(own, plain),
            scores_of.reference_difference(own, scores(row - generator.random(len(row)) for row in plain.log_probs)),
            scores_of.error_zone(
                own, scores(row - generator.standard_normal(len(row)) ** 2 for row in plain.log_probs)
            ),
            scores_of.zlib_ratio(own, ["the same text"] * 150),
        ]
    for inside, outside in zip(sides["in"], sides["out"], strict=True):
        value, interval = auc(inside, outside)
        assert interval.low > 0.5, value
    findings = evaluate(sides["in"][1], sides["out"][1], attack="min-k", generator=generator)
    assert findings[2].id == "membership-min-k-auc"
