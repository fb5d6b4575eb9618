"""Every kind of model keeps the contract: one example's loss depends on that example alone."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_corpus import CORPUS, LABELS_ONLY, SMALL, TAGS_ONLY, TRAIN, bert_config, save_plainly
from torch.nn import functional as F
from transformers import BertModel

from trustnlp import models
from trustnlp.data.corpus import Corpus, Example
from trustnlp.errors import ModelError
from trustnlp.models.builder import rebuild
from trustnlp.models.heads import NLUModel, cross_entropies
from trustnlp.models.protocol import Batch, TextModel
from trustnlp.randomness import Streams

KINDS = ["bilstm", "transformer", "pretrained"]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return save_plainly(BertModel(bert_config()), tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def made(pretrained: Path) -> dict[str, NLUModel]:
    def make(kind: str) -> NLUModel:
        source = pretrained if kind == "pretrained" else kind
        return models.build(source, CORPUS, streams=Streams(0), **SMALL.get(kind, {}))

    return {kind: make(kind).eval() for kind in KINDS}


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


@pytest.mark.parametrize(
    ("corpus", "heads"), [(LABELS_ONLY, {"label"}), (TAGS_ONLY, {"tags"}), (CORPUS, {"label", "tags"})]
)
@pytest.mark.parametrize("kind", ["bilstm", "transformer"])
def test_the_schema_chooses_the_heads(kind, corpus, heads):
    model = models.build(kind, corpus, streams=Streams(0), **SMALL[kind])
    batch = model.encode(corpus.train, for_training=True).batch([0, 1])
    assert set(model.logits(batch)) == set(batch.targets) == heads


def test_a_corpus_without_answers_is_refused():
    with pytest.raises(ModelError, match="neither labels nor tags"):
        models.build("bilstm", Corpus("text", (Example("only text"),)), streams=Streams(0))


class TestEncode:
    def test_names_never_learned_are_refused_for_training(self, made):
        for stranger in (Example("sing", "karaoke", ("O",)), Example("rain", "weather", ("B-new",)), Example("rain")):
            with pytest.raises(ModelError, match=r"training example 1 is labelled .* cannot answer"):
                made["bilstm"].encode([TRAIN[0], stranger], for_training=True)

    def test_and_kept_for_evaluation(self, made):
        split = made["bilstm"].encode([TRAIN[0], Example("sing", "karaoke", ("O",))])
        assert split.complete.tolist() == [True, False]

    def test_marks_are_split_where_there_are_no_tags(self):
        for corpus, words in ((LABELS_ONLY, 6), (CORPUS, 3)):
            model = models.build("bilstm", corpus, streams=Streams(0), **SMALL["bilstm"])
            batch = model.encode([Example("it's rain, now")]).batch([0])
            assert batch.inputs["lengths"].tolist() == [words]


class TestBuild:
    @pytest.mark.parametrize("kind", ["bilstm", "transformer"])
    def test_same_seed_same_bits_and_the_global_generator_is_left_alone(self, kind):
        before = torch.get_rng_state()
        one, same, other = (models.build(kind, CORPUS, streams=Streams(s), **SMALL[kind]) for s in (3, 3, 4))
        assert torch.equal(before, torch.get_rng_state())
        weights, again = one.state_dict(), same.state_dict()
        assert all(torch.equal(weights[name], again[name]) for name in weights)
        assert not torch.equal(weights["label_head.weight"], other.state_dict()["label_head.weight"])

    def test_the_config_builds_the_same_model_again(self, made):
        for kind in ("bilstm", "transformer"):
            again = rebuild(made[kind].config).eval()
            again.load_state_dict(made[kind].state_dict())
            batch = made[kind].encode(TRAIN).batch(range(8))
            assert torch.equal(made[kind].loss(batch), again.loss(batch))

    def test_unknown_options_are_named(self):
        with pytest.raises(ValueError, match=r"'options' must be among buckets, .*, got 'hiden'"):
            models.build("bilstm", CORPUS, streams=Streams(0), hiden=3)

    def test_options_have_ranges(self):
        with pytest.raises(ValueError, match="'dropout' must be"):
            models.build("bilstm", CORPUS, streams=Streams(0), dropout=1.5)
        with pytest.raises(ValueError, match="'width' must be a multiple of 'heads'"):
            models.build("transformer", CORPUS, streams=Streams(0), width=130)


def test_dropout_only_in_training(made):
    model = made["bilstm"]
    batch = model.encode(TRAIN).batch(range(8))
    assert torch.equal(model.loss(batch), model.loss(batch))
    model.train()
    noisy = [model.loss(batch) for _ in range(2)]
    model.eval()
    assert not torch.equal(*noisy)


def test_words_depend_on_their_texts_hash_alone(made):
    # A model built from another corpus of the same schema reads texts the same: no vocabulary is learned.
    other = Corpus("other", tuple(Example("zzz " + e.text, e.label, ("O", *(e.tags or ()))) for e in TRAIN))
    twin = models.build("bilstm", other, streams=Streams(0), **SMALL["bilstm"]).eval()
    batch: Batch = made["bilstm"].encode(TRAIN).batch(range(8))
    theirs = twin.encode(TRAIN).batch(range(8))
    for name, tensor in batch.inputs.items():
        np.testing.assert_array_equal(tensor, theirs.inputs[name])
    assert torch.equal(made["bilstm"].loss(batch), twin.loss(theirs))
