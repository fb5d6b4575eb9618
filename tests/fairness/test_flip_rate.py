import hashlib

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from trustnlp.data import synthetic
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.fairness.flip_rate import counterfactual_flip_rate
from trustnlp.fairness.identity_terms import identity_terms
from trustnlp.results import Direction, Verdict
from trustnlp.uncertainty import proportion


def texts(n, seed=0):
    """n different texts that name a partner."""
    partners = ("husband", "boyfriend", "wife", "girlfriend")
    choices = np.random.default_rng(seed).choice(partners, n)
    return [f"please call my {partner} about item {row}" for row, partner in enumerate(choices)]


def chance(*key):
    """A number in [0, 1) that depends on the key alone."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:6], "big") / 2**48


def biased(strength, seed=0):
    """A classifier whose label depends on the speaker's group for a share `strength` of items."""

    def predict(asked):
        feminine = [("wife" in text) or ("girlfriend" in text) for text in asked]
        return [f and chance(seed, text.split()[-1]) < strength for text, f in zip(asked, feminine, strict=True)]

    return predict


def unstable(p, seed=0):
    """A classifier that errs on a share p of all texts, depending on every word of them but on no group."""
    return lambda asked: [chance(seed, text) < p for text in asked]


def rate(predict, asked, **options):
    return counterfactual_flip_rate(predict, asked, dataset="planted", **options)


def test_a_planted_dependence_is_recovered():
    finding = rate(biased(0.3), texts(2000) + ["play jazz"] * 50)
    assert finding.id == "counterfactual-flip-rate"
    assert (finding.direction, finding.ideal, finding.n) == (Direction.LOWER, 0, 2000)
    assert finding.low < 0.3 < finding.high
    exact = proportion(round(finding.value * 2000), 2000)
    assert (finding.low, finding.high) == (exact.low, exact.high)
    assert finding.details["control"]["value"] == 0
    assert finding.details["excess"]["value"] == finding.value
    assert finding.verdict is Verdict.DISPARITY
    assert (finding.details["texts"], finding.details["texts_with_term"]) == (2050, 2000)
    assert finding.details["protected_group"] == "gender"


def test_a_model_that_ignores_the_terms_is_fair():
    finding = rate(lambda asked: [text.split()[-1] for text in asked], texts(200))
    assert (finding.value, finding.low, finding.verdict) == (0, 0, Verdict.FAIR_WITHIN_MARGIN)


def test_plain_instability_is_not_taken_for_unfairness():
    finding = rate(unstable(0.3), texts(500))
    assert finding.value > 0.3
    assert finding.details["control"]["value"] > 0.3
    assert finding.verdict is Verdict.INSUFFICIENT_EVIDENCE


@pytest.mark.parametrize(("p", "n", "runs"), [(0.1, 100, 200), pytest.param(0.02, 400, 600, marks=pytest.mark.slow),
                                              pytest.param(0.2, 60, 1000, marks=pytest.mark.slow)])  # fmt: skip
def test_an_unbiased_model_is_rarely_called_unfair(p, n, runs):
    verdicts = [rate(unstable(p, seed), texts(n, seed)).verdict for seed in range(runs)]
    assert verdicts.count(Verdict.DISPARITY) <= 0.05 * runs


def test_a_rate_of_the_margin_is_rarely_called_fair():
    runs = 100
    verdicts = [rate(biased(0.05, seed), texts(500, seed)).verdict for seed in range(runs)]
    assert verdicts.count(Verdict.FAIR_WITHIN_MARGIN) <= 0.025 * runs + 2 * np.sqrt(0.025 * 0.975 * runs)
    assert verdicts.count(Verdict.DISPARITY) > 0.95 * runs


@pytest.mark.parametrize("n", [0, 3, 29])
def test_few_texts_with_a_term_are_insufficient_evidence(n):
    finding = rate(biased(1), [*texts(n), *["play jazz"] * 100])
    assert (finding.value, finding.n, finding.verdict) == (None, n, Verdict.INSUFFICIENT_EVIDENCE)
    assert f"{n} of {n + 100} texts" in finding.details["reason"]


def test_without_controls_no_disparity_is_claimed():
    asked = [f"call her {row}" for row in range(100)]
    finding = rate(lambda given: ["her" in text for text in given], asked)
    assert finding.value == 1
    assert (
        finding.details["control"] is finding.details["excess"] is finding.details["minimum_detectable_effect"] is None
    )
    assert finding.verdict is Verdict.INSUFFICIENT_EVIDENCE
    assert rate(lambda given: ["same"] * len(given), asked).verdict is Verdict.FAIR_WITHIN_MARGIN


def test_texts_of_one_user_count_together():
    asked = texts(400)
    users = [row // 20 for row in range(400)]
    alone, by_user = rate(biased(0.3), asked), rate(biased(0.3), asked, clusters=users)
    assert alone.value == by_user.value
    assert (alone.n, by_user.n) == (400, 20)
    assert rate(biased(0.3), asked, clusters=[0] * 400).value is None


def test_word_lists_of_ones_own():
    terms = identity_terms([("church", "mosque")], "religion")
    asked = [f"is the church open at {row}" for row in range(60)]
    finding = rate(lambda given: ["mosque" in text for text in given], asked, terms=terms)
    assert (finding.value, finding.details["protected_group"]) == (1, "religion")
    assert finding.verdict is Verdict.DISPARITY


def test_no_text_is_in_the_finding():
    assert "item" not in str(rate(biased(0.3), texts(100)).details)


def test_bad_input_is_refused():
    with pytest.raises(ArgumentError, match="not empty"):
        rate(biased(0), [])
    with pytest.raises(ArgumentError, match="clusters"):
        rate(biased(0), texts(40), clusters=["u"])
    with pytest.raises(ArgumentError, match="margin"):
        rate(biased(0), texts(40), margin=-1)
    with pytest.raises(GuaranteeError, match="one label each"):
        rate(lambda asked: ["label"], texts(40))
    with pytest.raises(GuaranteeError, match="NaN"):
        rate(lambda asked: [float("nan")] * len(asked), texts(40))


def test_the_bias_planted_in_the_synthetic_corpus_is_seen_at_its_strength():
    found = []
    for strength in (0.0, 0.5, 1.0):
        corpus = synthetic.corpus(size=6000, users=300, bias=strength)
        model = make_pipeline(CountVectorizer(ngram_range=(1, 2)), LogisticRegression(max_iter=200, random_state=0))
        model.fit([example.text for example in corpus.train], [example.label for example in corpus.train])
        users = [example.user for example in corpus.test]
        found.append(rate(model.predict, [example.text for example in corpus.test], clusters=users))
    none, half, full = found
    assert none.low < 0.05
    assert none.verdict is not Verdict.DISPARITY
    assert half.verdict is full.verdict is Verdict.DISPARITY
    assert none.value < half.value < full.value
