"""Every kind of model keeps the contract: one example's loss depends on that example alone."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_corpus import CORPUS, LABELS_ONLY, SMALL, TAGS_ONLY, TRAIN
from torch.nn import functional as F

from trustnlp import models
from trustnlp.data.corpus import Example
from trustnlp.errors import ModelError
from trustnlp.models.heads import cross_entropies, word_mask
from trustnlp.models.protocol import TextModel
from trustnlp.randomness import Streams

KINDS = ["bilstm", "transformer", "pretrained"]


@pytest.mark.parametrize("kind", KINDS)
class TestPerExampleLoss:
    @settings(max_examples=10, deadline=None)
    @given(chosen=st.lists(st.integers(0, len(TRAIN) - 1), min_size=1, max_size=6))
    def test_a_batch_equals_its_examples_one_by_one(self, made, kind, chosen):
        model, split = made[kind], made[kind].encode(TRAIN, for_training=True)
        together = model.loss(split.batch(chosen))
        alone = torch.cat([model.loss(split.batch([i])) for i in chosen])
        assert together.shape == (len(chosen),)
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)

    def test_padding_changes_no_answer(self, made, kind):
        model, split = made[kind], made[kind].encode(TRAIN)
        short, longest = 7, 5
        alone = model.logits(split.batch([short]))
        padded = model.logits(split.batch([short, longest]))
        torch.testing.assert_close(padded["label"][:1], alone["label"], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(padded["tags"][:1, :1], alone["tags"], rtol=1e-5, atol=1e-5)

    def test_no_gradient_crosses_examples(self, made, kind):
        model, split = made[kind], made[kind].encode(TRAIN)
        found: list[torch.Tensor] = []
        table = {"pretrained": lambda: model.backbone.encoder.embeddings.word_embeddings}.get(
            kind, lambda: model.backbone.words.hashed
        )()
        handle = table.register_forward_hook(lambda module, given, out: found.append(out))
        losses = model.loss(split.batch([0, 5, 3]))
        handle.remove()
        for i in range(3):
            (gradient,) = torch.autograd.grad(losses[i], found[0], retain_graph=True)
            moved = gradient.flatten(1).abs().sum(1)
            assert moved[i] > 0
            assert moved[[j for j in range(3) if j != i]].tolist() == [0, 0]

    def test_every_trainable_parameter_gets_a_gradient(self, made, kind):
        model, split = made[kind], made[kind].encode(TRAIN)
        model.loss(split.batch(range(8))).sum().backward()
        trainable = {name: value for name, value in model.named_parameters() if value.requires_grad}
        assert [name for name, value in trainable.items() if value.grad is None] == []
        model.zero_grad()

    def test_no_layer_mixes_examples(self, made, kind):
        assert not [m for m in made[kind].modules() if isinstance(m, torch.nn.modules.batchnorm._NormBase)]

    def test_is_read_by_its_vectors(self, made, kind):
        model, batch = made[kind], made[kind].encode(TRAIN).batch([0, 5, 3])
        vectors, expected = model.embed(batch.inputs), model.logits(batch)
        found = model.logits_of_vectors(vectors, batch)
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        turned = model.logits_of_vectors(vectors.flip(1), batch)
        assert not torch.allclose(turned["label"], expected["label"])

    def test_a_vector_depends_on_its_word_alone(self, made, kind):
        inputs = made[kind].encode([Example("play some jazz"), Example("will it rain jazz")]).batch([0, 1]).inputs
        places = inputs["first"][[0, 1], [2, 3]] if "first" in inputs else torch.tensor([2, 3])
        one, other = made[kind].embed(inputs)[[0, 1], places]
        torch.testing.assert_close(one, other)

    def test_keeps_the_contract_by_type(self, made, kind):
        assert isinstance(made[kind], TextModel)

    def test_the_last_word_reaches_the_first(self, made, kind):
        # The backward direction (or attention) is not cut off by reading from padding.
        model = made[kind]
        one, other = (model.encode([Example(f"play some {end}"), TRAIN[5]]).batch([0, 1]) for end in ("jazz", "rain"))
        assert not torch.equal(model.logits(one)["tags"][0, 0], model.logits(other)["tags"][0, 0])


def test_the_loss_is_label_plus_mean_tag_cross_entropy(made):
    model = made["bilstm"]
    batch = model.encode(TRAIN).batch([2, 7])
    logits = model.logits(batch)
    label = F.cross_entropy(logits["label"], batch.targets["label"], reduction="none")
    tags = [F.cross_entropy(logits["tags"][i, :n], batch.targets["tags"][i, :n]) for i, n in enumerate((6, 1))]
    torch.testing.assert_close(model.loss(batch), label + torch.stack(tags))


def test_scores_without_gradient_do_not_round_to_zero():
    logits, targets = {"label": torch.tensor([[30.0, 0.0]])}, {"label": torch.tensor([0])}
    assert cross_entropies(logits, targets).item() == 0
    with torch.no_grad():
        assert cross_entropies(logits, targets).item() == pytest.approx(math.exp(-30), rel=1e-6)


def test_a_model_in_double_precision_has_losses_in_double_precision():
    logits = {"label": torch.tensor([[30.0, 0.0]], dtype=torch.float64, requires_grad=True)}
    loss = cross_entropies(logits, {"label": torch.tensor([0])})
    assert loss.item() == pytest.approx(math.exp(-30), rel=1e-6)
    (slope,) = torch.autograd.grad(loss, logits["label"])
    assert slope.abs().min() > 0


@pytest.mark.parametrize(
    ("corpus", "heads"), [(LABELS_ONLY, {"label"}), (TAGS_ONLY, {"tags"}), (CORPUS, {"label", "tags"})]
)
@pytest.mark.parametrize("kind", ["bilstm", "transformer"])
def test_the_schema_chooses_the_heads(kind, corpus, heads):
    model = models.build(kind, corpus, streams=Streams(0), **SMALL[kind])
    batch = model.encode(corpus.train, for_training=True).batch([0, 1])
    assert set(model.logits(batch)) == set(batch.targets) == heads


def with_crf(corpus=CORPUS) -> models.NLUModel:
    """A small tagger whose CRF has seen something."""
    model = models.build("bilstm", corpus, streams=Streams(0), **SMALL["bilstm"], crf=True).eval()
    for number, parameter in enumerate(model.crf.parameters()):
        parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
    return model


class TestWithACRF:
    def test_the_loss_is_label_plus_the_sequences_likelihood_per_word(self):
        model = with_crf()
        batch = model.encode(TRAIN).batch([2, 7])
        logits = model.logits(batch)
        label = F.cross_entropy(logits["label"], batch.targets["label"], reduction="none")
        tags = [
            model.crf(logits["tags"][i : i + 1, :n], batch.targets["tags"][i : i + 1, :n], torch.tensor([n])) / n
            for i, n in enumerate((6, 1))
        ]
        torch.testing.assert_close(model.loss(batch), label + torch.cat(tags))

    @settings(max_examples=10, deadline=None)
    @given(chosen=st.lists(st.integers(0, len(TRAIN) - 1), min_size=1, max_size=6))
    def test_a_batch_equals_its_examples_one_by_one(self, chosen):
        model = with_crf(TAGS_ONLY)
        split = model.encode(TRAIN, for_training=True)
        alone = torch.cat([model.loss(split.batch([i])) for i in chosen])
        torch.testing.assert_close(model.loss(split.batch(chosen)), alone, rtol=1e-5, atol=1e-5)

    def test_answers_are_the_best_sequences_that_are_bio(self):
        model = with_crf()
        answered = models.predict(model, model.encode(TRAIN))
        batch = model.encode(TRAIN).batch(range(len(TRAIN)))
        scores = model.logits(batch)["tags"]
        free = model.crf.decode(scores, batch.inputs["lengths"])
        names = model.schema.tags
        for row, tags in enumerate(answered.tags):
            assert all(tag[:2] != "I-" or before[1:] == tag[1:] for before, tag in zip(("", *tags), tags, strict=False))
            best = tuple(names[i] for i in free[row, : len(tags)].tolist())
            if all(tag[:2] != "I-" or before[1:] == tag[1:] for before, tag in zip(("", *best), best, strict=False)):
                assert tags == best

    def test_losses_are_the_same_in_evaluation(self):
        model = with_crf()
        encoded = model.encode(TRAIN)
        scored = models.predict(model, encoded).losses
        assert scored == pytest.approx(model.loss(encoded.batch(range(len(TRAIN)))).tolist(), rel=1e-5)

    def test_scores_without_tags_have_the_labels_loss_alone(self):
        model = with_crf()
        batch = model.encode(TRAIN).batch([2, 7])
        scores = {"label": model.logits(batch)["label"]}
        expected = F.cross_entropy(scores["label"], batch.targets["label"], reduction="none")
        torch.testing.assert_close(model.losses_of(scores, batch), expected)

    def test_an_example_without_tags_has_the_labels_loss_alone(self):
        model = with_crf()
        batch = model.encode([Example("play some jazz", "music")]).batch([0])
        expected = F.cross_entropy(model.logits(batch)["label"], batch.targets["label"], reduction="none")
        torch.testing.assert_close(model.loss(batch), expected)

    def test_all_else_is_as_without(self):
        plain = models.build("bilstm", CORPUS, streams=Streams(0), **SMALL["bilstm"])
        assert not [name for name in plain.state_dict() if "crf" in name]
        assert all(torch.equal(with_crf().state_dict()[name], value) for name, value in plain.state_dict().items())

    def test_a_corpus_without_tags_is_refused(self):
        with pytest.raises(ModelError, match="no tags for a CRF"):
            with_crf(LABELS_ONLY)


def test_the_representation_of_a_text_is_what_its_label_is_read_from(made):
    model, split = made["bilstm"], made["bilstm"].encode(TRAIN)
    batch = split.batch([5, 0])  # of different lengths
    found = model.representation(batch)
    assert found.shape == (2, model.backbone.width)
    assert torch.equal(model.label_head(found), model.logits(batch)["label"])
    torch.testing.assert_close(found[1:], model.representation(split.batch([0])))


def test_a_mask_is_true_for_the_first_positions():
    assert word_mask(torch.tensor([2, 0, 3]), 3).tolist() == [[True, True, False], [False] * 3, [True] * 3]
