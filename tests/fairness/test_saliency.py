import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2ForSequenceClassification

from trustnlp import models as ours
from trustnlp.data.corpus import Corpus, Example
from trustnlp.errors import ArgumentError, GuaranteeError, ModelError
from trustnlp.fairness.saliency import NORMS, open_classifier, probabilities, saliencies
from trustnlp.models import bag_of_words
from trustnlp.randomness import Streams

TEXTS = ["the man pays", "the woman from the harbour often pays too late", "she pays", "a man"]
CORPUS = Corpus("small", tuple(Example(text, label) for text, label in zip(TEXTS, "xyzx", strict=True)))
WORDS = sorted({word for text in TEXTS for word in text.split()})


def wordpieces() -> Tokenizer:
    names = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *WORDS]
    found = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))  # noqa: S106
    found.pre_tokenizer = pre_tokenizers.Whitespace()
    found.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return found


def of_transformers(kind: str):
    torch.manual_seed(0)
    size = len(WORDS) + 4
    if kind == "bert":
        config = BertConfig(
            vocab_size=size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=32, num_labels=3, pad_token_id=0,
        )  # fmt: skip
        return BertForSequenceClassification(config)
    config = GPT2Config(vocab_size=size, n_embd=16, n_layer=1, n_head=2, n_positions=32, num_labels=3, pad_token_id=0)
    return GPT2ForSequenceClassification(config)


def classifier(kind: str):
    if kind in ("bert", "gpt2"):
        return open_classifier(of_transformers(kind), wordpieces())
    if kind == "bag-of-words":
        return open_classifier(bag_of_words.build(CORPUS, streams=Streams(0), width=8, buckets=64))
    small = {"bilstm": {"hidden": 8, "char_filters": 4}, "transformer": {"layers": 1, "heads": 2, "char_filters": 4}}
    return open_classifier(ours.build(kind, CORPUS, streams=Streams(0), width=16, buckets=64, **small[kind]))


KINDS = ("bag-of-words", "bilstm", "transformer", "bert", "gpt2")


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_finite_differences(kind: str) -> None:
    model = classifier(kind).double()
    text = TEXTS[1]
    (found,) = saliencies(model, [text], classes="uniform", norm="l1")
    batch = model.encode([Example(text)]).batch([0])
    vectors = model.embed(batch.inputs).detach()

    def chances(moved: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return model.logits_of_vectors(moved, batch)["label"][0].softmax(-1)

    step = 1e-6
    for token in range(len(found.values)):
        total = 0.0
        for place in range(vectors.shape[2]):
            shift = torch.zeros_like(vectors)
            shift[0, token, place] = step
            total += ((chances(vectors + shift) - chances(vectors - shift)) / (2 * step)).abs().sum().item() / 3
        assert found.values[token] == pytest.approx(total, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize(("norm", "order"), [("l1", 1), ("l2", 2), ("linf", np.inf)])
def test_a_linear_model_has_its_closed_form(norm: str, order: float) -> None:
    """p = softmax(W mean_l x_l + b): d p_k / d x_l = p_k (W_k - sum_j p_j W_j) / L, the same for every token."""
    model = classifier("bag-of-words").double()
    weights = model.label_head.weight.detach().numpy()
    for text, found in zip(TEXTS, saliencies(model, TEXTS, norm=norm), strict=True):
        p = probabilities(model, [text])[0]
        assert found.probabilities == pytest.approx(p)
        k = p.argmax()
        gradient = p[k] * (weights[k] - p @ weights) / len(text.split())
        assert found.values == pytest.approx(np.full(len(text.split()), np.linalg.norm(gradient, order)), rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_neither_padding_nor_company_changes_anything(kind: str) -> None:
    model = classifier(kind)
    together = saliencies(model, TEXTS, classes="uniform")
    for text, found in zip(TEXTS, together, strict=True):
        (alone,) = saliencies(model, [text], classes="uniform")
        assert alone.values == pytest.approx(found.values, rel=1e-4, abs=1e-7)
        assert alone.step == pytest.approx(found.step)
        assert alone.places.tolist() == found.places.tolist()
        words = [text[start:end] for start, end in found.places if end > start]
        assert words == text.split()


def test_classes_are_weighted_each_by_its_own_absolute_value() -> None:
    model = classifier("bilstm")
    single = [saliencies(model, TEXTS, classes=np.eye(3)[k]) for k in range(3)]
    for row, found in enumerate(saliencies(model, TEXTS, classes=[0.5, 0.0, 2.0])):
        assert found.values == pytest.approx(0.5 * single[0][row].values + 2 * single[2][row].values, rel=1e-5)
    for row, found in enumerate(saliencies(model, TEXTS)):
        assert found.values == pytest.approx(single[found.probabilities.argmax()][row].values, rel=1e-6)


def test_the_model_is_left_as_it_was() -> None:
    model = classifier("bilstm").train()
    saliencies(model, TEXTS)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_saved_classifier_is_opened_by_its_path(tmp_path) -> None:
    model = classifier("bilstm")
    ours.save(model, tmp_path / "model")
    (theirs,), (found,) = saliencies(model, TEXTS[:1]), saliencies(open_classifier(tmp_path / "model"), TEXTS[:1])
    assert found.values == pytest.approx(theirs.values)


def test_what_has_no_token_vectors_is_refused() -> None:
    with pytest.raises(ModelError, match="no vectors of tokens"):
        open_classifier(nn.Conv1d(4, 2, 3))
    with pytest.raises(ArgumentError, match="tokenizer"):
        open_classifier(of_transformers("bert"))
    with pytest.raises(ArgumentError, match="tokenizer"):
        open_classifier(classifier("bilstm"), wordpieces())
    tagger = Corpus("tags", (Example("a man", None, ("O", "B-x")),))
    with pytest.raises(ModelError, match="labels"):
        open_classifier(bag_of_words.build(tagger, streams=Streams(0)))


@pytest.mark.parametrize("classes", ["best", [1.0, 1.0], [1.0, -1.0, 0.0], [0.0, 0.0, 0.0], [1.0, np.nan, 0.0]])
def test_wrong_classes_are_refused(classes) -> None:
    with pytest.raises(ArgumentError, match="classes"):
        saliencies(classifier("bag-of-words"), TEXTS, classes=classes)


def test_weights_that_are_not_finite_are_refused() -> None:
    model = classifier("bag-of-words")
    model.label_head.weight.data[:] = torch.nan
    with pytest.raises(GuaranteeError, match="not finite"):
        saliencies(model, TEXTS)
    with pytest.raises(ArgumentError, match="norm"):
        saliencies(model, TEXTS, norm="l3")


def test_no_norm_promises_less_change_than_another() -> None:
    model = classifier("bilstm")
    bounds = {norm: [each.values * each.step for each in saliencies(model, TEXTS, norm=norm)] for norm in NORMS}
    for l1, l2, linf in zip(*bounds.values(), strict=True):
        assert (l1 <= l2 * (1 + 1e-6)).all()
        assert (l2 <= linf * (1 + 1e-6)).all()
