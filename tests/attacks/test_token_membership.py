import numpy as np
import pytest
from scipy import stats

from trustnlp import models
from trustnlp.attacks import lira, token_membership
from trustnlp.attacks.membership import auc
from trustnlp.attacks.token_membership import by_text, of_words, one_word_each, token_losses
from trustnlp.data.corpus import Corpus, Example
from trustnlp.errors import ArgumentError, GuaranteeError, ModelError
from trustnlp.randomness import Streams

TRAIN = (
    Example("play some jazz", "music", ("O", "O", "B-genre")),
    Example("rain", "weather", ("O",)),
    Example("will it rain in rome tomorrow", "weather", ("O", "O", "O", "O", "B-city", "B-day")),
)
CORPUS = Corpus("tiny", TRAIN)
SMALL = {"buckets": 64, "width": 8, "char_width": 4, "char_filters": 6, "hidden": 8}
LENGTHS = np.array([3, 1, 6])


def built(corpus=CORPUS, **options):
    return models.build("bilstm", corpus, streams=Streams(0), **SMALL, **options)


# Losses of words


def test_words_add_up_to_what_tags_add_to_the_loss():
    """Oracle: the loss of the same model's tags alone, which is the mean over words."""
    corpus = Corpus("tags", tuple(Example(item.text, None, item.tags) for item in TRAIN))
    model = built(corpus)
    words, lengths = token_losses(model, model.encode(corpus.train))
    assert lengths.tolist() == LENGTHS.tolist()
    assert words.dtype == np.float64
    assert by_text(words, lengths) == pytest.approx(models.losses(model, model.encode(corpus.train)))


def test_batches_do_not_matter(monkeypatch):
    model = built()
    whole, _ = token_losses(model, model.encode(TRAIN))
    monkeypatch.setattr(token_membership, "BATCH_SIZE", 1)
    parts, _ = token_losses(model, model.encode(TRAIN))
    assert parts == pytest.approx(whole, rel=1e-5)


def test_words_that_the_model_does_not_read_have_no_loss():
    model = built(max_words=4)
    words, lengths = token_losses(model, model.encode(TRAIN))
    assert lengths.tolist() == [3, 1, 4]
    assert len(words) == 8


def test_models_and_texts_without_losses_of_words_are_refused():
    untagged = built(Corpus("texts", tuple(Example(item.text, item.label) for item in TRAIN)))
    for model in (untagged, built(crf=True)):
        with pytest.raises(ModelError, match="single words"):
            token_losses(model, model.encode(TRAIN))
    model = built()
    with pytest.raises(GuaranteeError, match="1 of 2 texts have no word"):
        token_losses(model, model.encode([TRAIN[0], Example("play", "music", ("B-unknown",))]))


# Words and texts


def test_what_holds_of_texts_holds_of_their_words():
    inside = np.array([[True, False, True], [False, True, False]])
    words = of_words(inside, LENGTHS)
    assert words.shape == (2, 10)
    assert words[0].tolist() == [True] * 3 + [False] + [True] * 6
    assert of_words(["a", "b", "c"], LENGTHS).tolist() == ["a"] * 3 + ["b"] + ["c"] * 6


@pytest.mark.parametrize(("how", "oracle"), [("mean", np.mean), ("sum", np.sum), ("max", np.max)])
def test_texts_are_scored_by_their_words(how, oracle):
    scores = np.random.default_rng(0).normal(size=10)
    expected = [oracle(part) for part in np.split(scores, [3, 4])]
    assert by_text(scores, LENGTHS, how) == pytest.approx(expected)


def test_one_word_stands_for_each_text():
    scores = np.repeat([1.0, 2.0, 3.0], LENGTHS) + np.arange(10) / 100
    drawn = np.array([one_word_each(scores, LENGTHS, np.random.default_rng(seed)) for seed in range(300)])
    assert (np.floor(drawn) == [1, 2, 3]).all()
    assert [len(set(column)) for column in drawn.T] == [3, 1, 6]  # every word has its turn


def test_the_sum_of_word_ratios_finds_texts_that_single_words_do_not():
    """Planted: each of 8 words carries a weak sign of its own, a shift of 0.7 deviations; together, 0.7 * sqrt(8)."""
    generator, lengths = np.random.default_rng(0), np.full(1000, 8)
    truth, inside = generator.random(1000) < 0.5, generator.random((128, 1000)) < 0.5
    hard = generator.normal(size=8000)

    def losses(seen):
        words = of_words(seen, lengths)
        return np.logaddexp(0, -(hard + 0.7 * words + generator.normal(size=words.shape)))

    words = lira.score(losses(truth), losses(inside), of_words(inside, lengths))
    single, whole = one_word_each(words, lengths, generator), by_text(words, lengths, "sum")
    assert auc(single[truth], single[~truth])[0] == pytest.approx(stats.norm.cdf(0.7 / np.sqrt(2)), abs=0.04)
    assert auc(whole[truth], whole[~truth])[0] == pytest.approx(stats.norm.cdf(0.7 * np.sqrt(8) / np.sqrt(2)), abs=0.03)


def test_bad_input_is_refused():
    with pytest.raises(ArgumentError, match="shape \\(10,\\)"):
        by_text(np.zeros(9), LENGTHS)
    with pytest.raises(ArgumentError, match="one of"):
        by_text(np.zeros(10), LENGTHS, "median")
    with pytest.raises(ArgumentError, match=r"shape \(\.\.\., 3\)"):
        of_words(np.zeros(2), LENGTHS)
    with pytest.raises(GuaranteeError, match="1 of 2 texts"):
        one_word_each(np.zeros(3), [3, 0], np.random.default_rng(0))
    for lengths in ([], [1.5, 2]):
        with pytest.raises(ArgumentError, match="whole numbers"):
            by_text(np.zeros(3), lengths)
