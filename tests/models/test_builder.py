import pytest
import torch
from small_corpus import CORPUS, LABELS_ONLY, SMALL, TRAIN

from trustnlp import models
from trustnlp.data.corpus import Corpus, Example
from trustnlp.errors import ArgumentError, ModelError
from trustnlp.models.builder import rebuild
from trustnlp.randomness import Streams


@pytest.mark.parametrize("kind", ["bilstm", "transformer"])
def test_same_seed_same_bits_and_the_global_generator_is_left_alone(kind):
    before = torch.get_rng_state()
    one, same, other = (models.build(kind, CORPUS, streams=Streams(s), **SMALL[kind]) for s in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    weights, again = one.state_dict(), same.state_dict()
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert not torch.equal(weights["label_head.weight"], other.state_dict()["label_head.weight"])


def test_the_config_builds_the_same_model_again(made):
    for kind in ("bilstm", "transformer"):
        again = rebuild(made[kind].config).eval()
        again.load_state_dict(made[kind].state_dict())
        batch = made[kind].encode(TRAIN).batch(range(8))
        assert torch.equal(made[kind].loss(batch), again.loss(batch))


def test_unknown_options_are_named():
    with pytest.raises(ArgumentError, match=r"'options' must be among buckets, .*, got 'hiden'"):
        models.build("bilstm", CORPUS, streams=Streams(0), hiden=3)


def test_options_have_ranges():
    with pytest.raises(ArgumentError, match="'dropout' must be"):
        models.build("bilstm", CORPUS, streams=Streams(0), dropout=1.5)
    with pytest.raises(ArgumentError, match="'width' must be a multiple of 'heads'"):
        models.build("transformer", CORPUS, streams=Streams(0), width=130)


def test_marks_are_split_where_there_are_no_tags():
    for corpus, words in ((LABELS_ONLY, 6), (CORPUS, 3)):
        model = models.build("bilstm", corpus, streams=Streams(0), **SMALL["bilstm"])
        batch = model.encode([Example("it's rain, now")]).batch([0])
        assert batch.inputs["lengths"].tolist() == [words]


def test_a_corpus_without_answers_is_refused():
    with pytest.raises(ModelError, match="neither labels nor tags"):
        models.build("bilstm", Corpus("text", (Example("only text"),)), streams=Streams(0))
