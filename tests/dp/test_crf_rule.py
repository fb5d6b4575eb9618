import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import Loss, Rows, assert_one_backward_is_exact, both, normal, random_weights, same, whole
from torch import nn

from trustnlp import models
from trustnlp.data.corpus import Corpus, Example
from trustnlp.models.crf import LinearChainCRF
from trustnlp.randomness import Streams


def tagger(tags: int, frozen: tuple[str, ...] = (), calls: int = 1, seed: int = 0) -> nn.Module:
    """A linear layer below a CRF that is called some times; losses bend, so that gradients differ by example."""

    def loss(self, batch):
        found = []
        for number in range(calls):
            scores = self.linear(batch.inputs["x"] + number)
            found.append(self.crf(scores, batch.inputs["tags"], batch.inputs["lengths"]))
        return torch.stack(found).sum(0).square()

    model = Loss(loss, linear=nn.Linear(3, tags), crf=LinearChainCRF(tags))
    for name in frozen:
        getattr(model.crf, name).requires_grad_(False)
    return random_weights(model, seed)


def data(tags: int, lengths: list[int], extra: int = 0) -> Rows:
    shape = (len(lengths), max(lengths) + extra)
    return Rows({"x": normal(*shape, 3), "tags": whole(*shape, below=tags), "lengths": torch.tensor(lengths)})


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 4),
    st.lists(st.integers(1, 6), min_size=1, max_size=5),
    st.sets(st.sampled_from(["transitions", "start", "end"]), max_size=3),
    st.integers(1, 2),
    st.integers(0, 2),
    st.integers(0, 99),
    st.sampled_from([0.1, 1e9]),
)
def test_ragged_lengths_frozen_parts_and_more_calls(tags, lengths, frozen, calls, extra, seed, clip_norm):
    model = tagger(tags, tuple(frozen), calls, seed)
    assert_one_backward_is_exact(model, data(tags, lengths, extra), clip_norm, physical_batch=3)


def test_a_bilstm_with_a_crf():
    texts = (("play some jazz", "O O B-genre"), ("nina", "B-artist"), ("play long-song by nina now", "O B-a I-a O O"))
    corpus = Corpus("tiny", tuple(Example(text, "music", tuple(tags.split())) for text, tags in texts))
    sizes = {"buckets": 64, "char_width": 3, "char_filters": 4, "hidden": 5, "width": 6}
    model = random_weights(models.build("bilstm", corpus, streams=Streams(0), crf=True, **sizes)).eval()
    assert_one_backward_is_exact(model, model.encode(corpus.train, for_training=True))


def test_below_it_nothing_is_trained():
    model = tagger(3)
    model.linear.requires_grad_(False)
    assert_one_backward_is_exact(model, data(3, [2, 4, 1]))


def test_transitions_used_elsewhere_go_the_slow_way():
    model = tagger(3)
    plain = model._loss
    model._loss = lambda self, batch: plain(self, batch) + self.crf.transitions.square().sum()
    fast, found, expected = both(model, data(3, [2, 4, 1]), 0.1)
    assert "outside" in fast.fallback
    assert same(found, expected)


def test_tags_overwritten_in_place_are_noticed():
    model = tagger(3)
    plain = model._loss

    def loss(self, batch):
        losses = plain(self, batch)
        batch.inputs["tags"].add_(0)
        return losses

    model._loss = loss
    fast, *_ = both(model, data(3, [2, 4, 1]), 0.1)
    assert "in place" in fast.fallback
