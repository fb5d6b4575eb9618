import pytest
import torch
from small_corpus import CORPUS, SMALL, TRAIN
from torch.nn import functional as F

from trustnlp import models
from trustnlp.data.corpus import Corpus, Example
from trustnlp.data.encoding import HashedWords
from trustnlp.models.words import WordVectors
from trustnlp.randomness import Streams

TEXTS = ["play some jazz", "a", "unforgettably-long-songname now"]


def vectors_of(encoding, **more) -> WordVectors:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return WordVectors(encoding, **{"width": 4, "char_width": 3, "char_filters": 5, "word_dropout": 0.0} | more)


def inputs_of(encoding, texts, indices=None):
    arrays = encoding.encode(texts).batch(torch.arange(len(texts)).numpy() if indices is None else indices)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def test_equal_the_sum_of_buckets_and_a_convolution_over_characters():
    encoding = HashedWords(buckets=16, hashes=3)
    words = vectors_of(encoding)
    found = words(inputs_of(encoding, TEXTS))
    kernel = words.filters.weight.reshape(5, 3, 3).transpose(1, 2)  # (filters, characters in a window, char_width)
    for row, text in enumerate(TEXTS):
        for place, word in enumerate(text.split()):
            hashed = sum(words.hashed.weight[bucket] for bucket in encoding.bucket_ids(word))
            letters = words.characters.weight[encoding.char_ids(word)].T  # (char_width, characters)
            spelled = F.conv1d(letters[None], kernel, words.filters.bias, padding=1).relu()[0].amax(1)
            torch.testing.assert_close(found[row, place], torch.cat([hashed, spelled]))


def test_a_word_has_the_same_vector_wherever_it_stands():
    encoding = HashedWords(buckets=16)
    words = vectors_of(encoding)
    alone, among = (words(inputs_of(encoding, [text])) for text in ("jazz", "play unforgettably jazz"))
    torch.testing.assert_close(alone[0, 0], among[0, 2])


def test_words_of_one_bucket_differ_in_their_letters_alone():
    encoding = HashedWords(buckets=1)
    words = vectors_of(encoding)
    one, other = words(inputs_of(encoding, ["jazz rain"]))[0]
    assert torch.equal(one[:4], other[:4])
    assert not torch.equal(one[4:], other[4:])
    assert words.width == 9


def test_without_filters_only_buckets_are_left():
    encoding = HashedWords(buckets=1)
    words = vectors_of(encoding, char_filters=0)
    one, other = words(inputs_of(encoding, ["jazz rain"]))[0]
    assert torch.equal(one, other)
    assert words.width == 4


@pytest.mark.parametrize("rate", [0.25, 1.0])
def test_word_dropout_leaves_out_buckets_and_keeps_letters_in_training(rate):
    encoding = HashedWords(buckets=16)
    words = vectors_of(encoding, word_dropout=rate)
    inputs = inputs_of(encoding, ["play some jazz now"] * 500)
    whole = words.eval()(inputs)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        dropped = words.train()(inputs)
    assert torch.equal(dropped[..., 4:], whole[..., 4:])
    gone = (dropped[..., :4] == 0).all(-1)
    assert torch.equal(dropped[~gone], whole[~gone])
    assert gone.float().mean().item() == pytest.approx(rate, abs=0.05)


def test_words_depend_on_their_texts_hash_alone(made):
    # A model built from another corpus of the same schema reads texts the same: no vocabulary is learned.
    other = Corpus("other", tuple(Example("zzz " + e.text, e.label, ("O", *(e.tags or ()))) for e in TRAIN))
    twin = models.build("bilstm", other, streams=Streams(0), **SMALL["bilstm"]).eval()
    assert twin.schema.labels == CORPUS.labels
    batch, theirs = made["bilstm"].encode(TRAIN).batch(range(8)), twin.encode(TRAIN).batch(range(8))
    assert all(torch.equal(batch.inputs[name], theirs.inputs[name]) for name in batch.inputs)
    assert torch.equal(made["bilstm"].loss(batch), twin.loss(theirs))
