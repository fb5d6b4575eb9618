import numpy as np
import pytest
from small_corpus import CORPUS, TRAIN

from trustnlp.data.corpus import Example
from trustnlp.data.encoding import NO_TARGET, HashedWords, Schema
from trustnlp.errors import ModelError
from trustnlp.models.encoded import Split

SCHEMA = Schema.of(CORPUS)
ENCODING = HashedWords(buckets=64)


def split(examples, **more):
    inputs = ENCODING.encode([example.text for example in examples])
    return Split(examples, inputs, SCHEMA, **{"for_training": False} | more)


def test_a_batch_holds_the_examples_that_were_asked_for_in_their_order():
    batch = split(TRAIN).batch([5, 0, 5])
    assert batch.inputs["lengths"].tolist() == [6, 3, 6]
    assert [SCHEMA.labels[i] for i in batch.targets["label"]] == ["weather", "music", "weather"]
    for row, number in enumerate([5, 0, 5]):
        tags = [SCHEMA.tags[i] for i in batch.targets["tags"][row] if i != NO_TARGET]
        assert tuple(tags) == TRAIN[number].tags


def test_batches_may_be_asked_for_in_any_order():
    one, other = split(TRAIN), split(TRAIN)
    forwards = [one.batch([i]).inputs["words"].tolist() for i in range(len(one))]
    backwards = [other.batch(np.array([i])).inputs["words"].tolist() for i in reversed(range(len(other)))]
    assert forwards == backwards[::-1]


def test_a_text_too_short_to_be_scored_is_incomplete_and_cannot_be_trained_on():
    scored = np.array([True, False])
    assert split(TRAIN[:2], scored=scored).complete.tolist() == [True, False]
    with pytest.raises(ModelError, match="training example 1 is too short to learn from; leave it out"):
        split(TRAIN[:2], scored=scored, for_training=True)


def test_a_refusal_names_what_the_model_cannot_answer_and_shows_no_text():
    stranger = Example("my secret wish", "karaoke", ("O", "B-new", "O"))
    with pytest.raises(ModelError, match=r"labelled 'B-new', 'karaoke', which") as refused:
        split([stranger], for_training=True)
    assert "secret" not in str(refused.value)


def test_names_never_learned_are_refused_for_training():
    for stranger in (Example("sing", "karaoke", ("O",)), Example("rain", "weather", ("B-new",)), Example("rain")):
        with pytest.raises(ModelError, match=r"training example 1 is labelled .* cannot answer"):
            split([TRAIN[0], stranger], for_training=True)


def test_and_kept_for_evaluation():
    known_and_unknown = split([TRAIN[0], Example("sing", "karaoke", ("O",))])
    assert known_and_unknown.complete.tolist() == [True, False]
