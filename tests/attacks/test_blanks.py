"""Every kind of model: what stands in the blanks is read as if it had been written there."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import (
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    GPT2ForSequenceClassification,
)

from small_transformers import SPECIAL, bert_config, gpt2_config, tokenizer
from trustnlp import models
from trustnlp.attacks.blanks import Blanks, frozen, single_words
from trustnlp.data.canaries import DIGITS, Canary
from trustnlp.data.corpus import Corpus, Example
from trustnlp.errors import ArgumentError, GuaranteeError, ModelError
from trustnlp.models.heads import LabelModel
from trustnlp.randomness import Streams

TRAIN = (
    Example("play some jazz", "music", ("O", "O", "B-genre")),
    Example("my code is 4 8", "code", ("O", "O", "O", "B-pin", "I-pin")),
    Example("will it rain", "weather", ("O", "O", "O")),
)
CORPUS = Corpus("tiny", TRAIN)
LABELS_ONLY = Corpus("texts", tuple(Example(item.text, item.label) for item in TRAIN))
TAGS_ONLY = Corpus("columns", tuple(Example(item.text, None, item.tags) for item in TRAIN))
CANARY = Canary(("my", "code", "is"), ("4", "8"), "code", ("O", "O", "O", "B-pin", "I-pin"), 3)
LONGER = Canary(("it", "will", "some", "day", "be"), ("0", "7"), "code", (*["O"] * 5, "B-pin", "I-pin"), 3)
WORDS = ("my", "code", "is", "play", "some", "jazz", "will", "it", "rain", "day", "be", "a")
PIECES = [*SPECIAL, *DIGITS, *WORDS, "##y"]
BILSTM = {"buckets": 64, "width": 8, "char_width": 4, "char_filters": 6, "hidden": 8}
TRANSFORMER = {"buckets": 64, "char_width": 4, "char_filters": 8, "width": 16, "layers": 2, "heads": 2}
NUMBERS = {"id2label": dict(enumerate(CORPUS.labels))}
TAGS = {"id2label": dict(enumerate(CORPUS.tags))}
PLAIN = {
    "bare": lambda: BertModel(bert_config(PIECES, 16)),
    "classifier": lambda: BertForSequenceClassification(bert_config(PIECES, 16, **NUMBERS)),
    "tagger": lambda: BertForTokenClassification(bert_config(PIECES, 16, **TAGS)),
    "decoder": lambda: GPT2ForSequenceClassification(gpt2_config(PIECES, 16, pad_token_id=0, **NUMBERS)),
}
BUILT = {
    "bilstm": ("bilstm", CORPUS, BILSTM),
    "bilstm without characters": ("bilstm", CORPUS, BILSTM | {"char_filters": 0}),
    "bilstm with a CRF": ("bilstm", CORPUS, BILSTM | {"crf": True}),
    "bilstm of labels": ("bilstm", LABELS_ONLY, BILSTM),
    "bilstm of tags": ("bilstm", TAGS_ONLY, BILSTM),
    "transformer": ("transformer", CORPUS, TRANSFORMER),
}
KINDS = [*BUILT, "pretrained", *[name for name in PLAIN if name != "bare"]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], LabelModel]:
    """An untrained model of that kind, in training mode, its CRF not blank."""
    root = tmp_path_factory.mktemp("plain")

    def folder(name: str) -> Path:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            PLAIN[name]().save_pretrained(root / name)
        tokenizer(PIECES).save_pretrained(root / name)
        return root / name

    def make(kind: str) -> LabelModel:
        if kind in PLAIN:
            return models.load_checkpoint(folder(kind)).train()
        name, corpus, options = BUILT.get(kind) or (folder("bare"), CORPUS, {})
        model = models.build(name, corpus, streams=Streams(0), **options)
        if model.crf is not None:
            for parameter in model.crf.parameters():
                nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
        return model

    cache: dict[str, LabelModel] = {}
    return lambda kind: cache.setdefault(kind, make(kind)) if kind not in cache else cache[kind]


def read(model: LabelModel, examples: list[Example]) -> np.ndarray:
    """The losses of texts, in float64."""
    exact = frozen(model)
    return models.losses(exact, exact.encode(examples))


@pytest.mark.parametrize("kind", KINDS)
class TestEveryKind:
    def test_a_mixture_of_one_word_is_that_word(self, made, kind):
        model = made(kind)
        blanks = Blanks(frozen(model), [CANARY, LONGER], DIGITS, "joint")  # of two lengths, so one is padded
        secrets, texts = [("4", "8"), ("3", "3"), ("0", "9"), ("7", "1")], torch.tensor([0, 1, 0, 1])
        weights = F.one_hot(torch.tensor([[int(digit) for digit in row] for row in secrets]), 10).double()
        found = blanks.losses(texts, weights @ blanks.vectors)
        examples = [(CANARY, LONGER)[text].example(row) for text, row in zip(texts.tolist(), secrets, strict=True)]
        expected = read(model, examples)
        assert np.ptp(expected) > 0
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)
        np.testing.assert_array_equal(blanks.score(texts, weights.argmax(-1)).numpy(), found.numpy())

    def test_a_gradient_reaches_every_blank_and_is_right(self, made, kind):
        blanks = Blanks(frozen(made(kind)), [CANARY], DIGITS, "joint")
        scores = torch.randn(1, 2, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

        def loss(scores: torch.Tensor) -> torch.Tensor:
            return blanks.losses(torch.tensor([0]), scores.softmax(-1) @ blanks.vectors)

        assert torch.autograd.gradcheck(loss, scores.requires_grad_(), eps=1e-6, atol=1e-7, rtol=1e-5)
        (gradient,) = torch.autograd.grad(loss(scores), scores)
        assert (gradient.abs().sum(-1) > 0).all()

    def test_the_model_is_left_as_it_was(self, made, kind):
        model = made(kind)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        blanks = Blanks(frozen(model), [CANARY], DIGITS, "joint")
        blanks.losses(torch.tensor([0]), blanks.vectors[None, :2].requires_grad_()).sum().backward()
        assert model.training
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        assert any(parameter.requires_grad for parameter in model.parameters())
        assert all(parameter.grad is None for parameter in model.parameters())
        assert not [module for module in model.modules() if module._forward_hooks]


@pytest.mark.parametrize("kind", ["bilstm", "bilstm with a CRF"])
def test_the_objective_chooses_the_loss(made, kind):
    model = frozen(made(kind))
    batch = model.encode([CANARY.example()]).batch([0])
    with torch.no_grad():
        logits = model.logits(batch)
        label = F.cross_entropy(logits["label"], batch.targets["label"]).item()
        joint = model.losses_of(logits, batch).item()
    expected = {"label": label, "tags": joint - label, "joint": joint}
    for objective, loss in expected.items():
        blanks = Blanks(model, [CANARY], DIGITS, objective)
        assert blanks.score(torch.tensor([0]), torch.tensor([[4, 8]])).item() == pytest.approx(loss, rel=1e-9)


def test_frozen_embeddings_are_searched_all_the_same(made):
    model = models.build("bilstm", CORPUS, streams=Streams(0), **BILSTM)
    model.backbone.words.requires_grad_(False)
    blanks = Blanks(frozen(model), [CANARY], DIGITS, "joint")
    weights = torch.full((1, 2, 10), 0.1, dtype=torch.float64, requires_grad=True)
    blanks.losses(torch.tensor([0]), weights @ blanks.vectors).sum().backward()
    assert (weights.grad != 0).all()


class TestCandidates:
    def test_are_one_piece_each_to_a_subword_model(self, made):
        model = made("classifier")
        assert single_words(model, ["jazz", "jazzy", "4", "unheard-of", "4", "rain"]) == ("jazz", "4", "rain")
        with pytest.raises(ModelError, match=r"1 of 3 candidates are several pieces.*; keep those"):
            Blanks(frozen(model), [CANARY], ("4", "8", "jazzy"), "joint")

    def test_are_any_words_to_a_model_of_words(self, made):
        words = ("4", "8", "unheard-of", "jazzy")
        assert single_words(made("bilstm"), words) == words
        found = Blanks(frozen(made("bilstm")), [CANARY], words, "joint")
        (expected,) = read(made("bilstm"), [CANARY.example()])
        assert found.score(torch.tensor([0]), torch.tensor([[0, 1]])).item() == pytest.approx(expected, rel=1e-9)

    def test_are_without_marks_where_marks_are_split_off(self, made):
        assert single_words(made("bilstm of labels"), ["4", "don't", "eight"]) == ("4", "eight")


class TestRefusals:
    def test_no_labels_and_no_tags(self):
        with pytest.raises(ArgumentError, match="'model' must be one that answers labels or tags, got 'Linear'"):
            frozen(nn.Linear(2, 2))

    @pytest.mark.parametrize(("kind", "lacking"), [("bilstm of labels", "tags"), ("bilstm of tags", "label")])
    def test_no_head_for_the_objective(self, made, kind, lacking):
        with pytest.raises(ModelError, match=f"the model answers no {lacking}"):
            Blanks(frozen(made(kind)), [CANARY], DIGITS, lacking)

    def test_unknown_objective(self, made):
        with pytest.raises(ArgumentError, match="'objective' must be one of 'joint', 'label', 'tags'"):
            Blanks(frozen(made("bilstm")), [CANARY], DIGITS, "both")

    @pytest.mark.parametrize(
        ("label", "tags", "part"),
        [
            ("never heard", CANARY.tags, "label"),
            (None, CANARY.tags, "label"),
            ("code", ("O", "O", "O", "B-new", "I-new"), "tags"),
            ("code", None, "tags"),
        ],
    )
    def test_a_label_or_tag_that_the_model_does_not_know(self, made, label, tags, part):
        unknown = Canary(CANARY.prefix, CANARY.secret, label, tags, 1)
        with pytest.raises(ModelError, match=f"cannot answer the {part} of the canary 'my code is'"):
            Blanks(frozen(made("bilstm")), [LONGER, unknown], DIGITS, "joint")

    @pytest.mark.parametrize("prefix", [3, 4, 12])
    def test_a_text_that_the_model_cuts(self, prefix):
        model = models.build("bilstm", LABELS_ONLY, streams=Streams(0), **BILSTM, max_words=4)
        cut = Canary(("my",) * prefix, ("4", "8"), "code", None, 1)
        with pytest.raises(ModelError, match="the model reads 4 words or pieces of a text"):
            Blanks(frozen(model), [cut], DIGITS, "joint")

    def test_a_text_with_more_pieces_than_positions(self, made):
        cut = Canary(("my",) * 13, ("4", "8"), "code", None, 1)
        with pytest.raises(ModelError, match="the model reads 16 words or pieces of a text, and a canary has 17"):
            Blanks(frozen(made("classifier")), [cut], DIGITS, "joint")

    def test_vectors_that_depend_on_their_neighbours(self, made, monkeypatch):
        model = frozen(made("bilstm"))
        alone = model.backbone.embed
        monkeypatch.setattr(model.backbone, "embed", lambda inputs: alone(inputs).cumsum(1))
        with pytest.raises(ModelError, match="depends on the words beside it"):
            Blanks(model, [CANARY], DIGITS, "joint")

    def test_losses_that_are_no_numbers(self, made):
        model = frozen(made("bilstm"))
        model.label_head.bias.fill_(torch.nan)
        with pytest.raises(GuaranteeError, match="1 of 1 texts have a loss that is NaN or infinite"):
            Blanks(model, [CANARY], DIGITS, "joint").score(torch.tensor([0]), torch.tensor([[4, 8]]))
