import numpy as np
import pytest
import torch

from trustnlp import models
from trustnlp.data.corpus import Corpus, Example
from trustnlp.data.encoding import HashedWords, Schema
from trustnlp.data.planted_bias import PlantedBias
from trustnlp.errors import ArgumentError
from trustnlp.fairness.identity_terms import GENDER
from trustnlp.fairness.prediction_sensitivity import (
    attributions,
    prediction_sensitivity,
    text_sensitivities,
    token_weights,
)
from trustnlp.fairness.saliency import open_classifier, saliencies
from trustnlp.models import bag_of_words
from trustnlp.models.heads import LabelModel
from trustnlp.randomness import Streams
from trustnlp.results import Direction, Verdict

TEXTS = [example.text for example in PlantedBias(0.0, 120).corpus().train]
CORPUS = Corpus("small", (Example("yes", "x"), Example("no", "y")))


class Planted(LabelModel):
    """P(y) = sigmoid(bias sum_l h_l^2 + other sum_l r_l); h_l is 1 on identity terms, r_l differs from word to word.

    The gradient by a token's (h, r) is p (1 - p) (2 bias h_l, other): bias acts on identity terms alone.
    """

    def __init__(self, bias: float, other: float = 0.0, scale: float = 1.0) -> None:
        super().__init__(HashedWords(), Schema(("x", "y"), ()))
        self.strength = torch.nn.Parameter(torch.tensor([bias, other]))
        self.scale = scale
        words = {word for text in TEXTS for word in text.split()}
        self.known = {tuple(self.encoding.bucket_ids(w)): float(bool(GENDER.places(w))) for w in words}

    def embed(self, inputs):
        found = [
            [[self.known.get(tuple(w), 0.0), (w[0] % 7) / 7 - 0.5] for w in row] for row in inputs["words"].tolist()
        ]
        return self.scale * torch.tensor(found)

    def logits_of_vectors(self, vectors, batch):
        inside = torch.arange(vectors.shape[1]) < batch.inputs["lengths"][:, None]
        h, r = (vectors / self.scale * inside[..., None]).unbind(-1)
        score = self.strength[0] * (h**2).sum(1) + self.strength[1] * r.sum(1)
        return {"label": torch.stack([torch.zeros_like(score), score], -1)}

    def logits(self, batch):
        return self.logits_of_vectors(self.embed(batch.inputs), batch)


def measured(model, protected=GENDER, texts=TEXTS, **options):
    return prediction_sensitivity(model, protected, texts, dataset="planted", **options)


def test_planted_dependence_has_its_closed_form_and_rises() -> None:
    found = [measured(Planted(bias, 0.1), margin=0.005) for bias in (0.1, 0.3, 0.6, 1.0)]
    for bias, finding in zip((0.1, 0.3, 0.6, 1.0), found, strict=True):
        model = open_classifier(Planted(bias, 0.1))
        p = np.array([each.probabilities[1] for each in saliencies(model, TEXTS)])
        expected = p * (1 - p) * (2 * bias + 0.1)  # one term a text
        assert finding.value == pytest.approx(expected.mean(), rel=1e-6)
        assert finding.low < finding.value < finding.high
        assert finding.details["excess"]["value"] == pytest.approx((p * (1 - p) * 2 * bias).mean(), rel=1e-6)
        assert finding.verdict is Verdict.DISPARITY
    assert [f.value for f in found] == sorted(f.value for f in found)
    assert (found[0].id, found[0].direction, found[0].ideal) == ("prediction-sensitivity", Direction.LOWER, 0)
    assert found[0].details["protected_group"] == "gender"


def test_a_model_that_reads_all_words_alike_shows_no_disparity() -> None:
    finding = measured(Planted(0.0, 2.0))
    assert finding.value > 0.1
    assert finding.details["excess"] is None
    assert finding.verdict is Verdict.INSUFFICIENT_EVIDENCE
    model = bag_of_words.build(CORPUS, streams=Streams(0))
    assert measured(model, margin=1e-6).verdict is Verdict.INSUFFICIENT_EVIDENCE


def test_the_verdict_does_not_depend_on_the_scale_of_the_vectors() -> None:
    small, large = (measured(Planted(0.3, 0.01, scale), margin=0.3) for scale in (1.0, 1000.0))
    assert large.value == pytest.approx(small.value / 1000, rel=1e-6)
    assert large.details["scaled"] == pytest.approx(small.details["scaled"])
    assert large.verdict is small.verdict is Verdict.FAIR_WITHIN_MARGIN
    assert measured(Planted(0.3, 0.01, 1000.0), margin=0.001).verdict is Verdict.DISPARITY


def test_a_status_model_weights_tokens_by_its_own_saliency() -> None:
    task, status = open_classifier(Planted(0.5, 0.3)), open_classifier(Planted(1.0))
    texts = TEXTS[:5]
    by_model = token_weights(status, texts, saliencies(task, texts), norm="l1")
    by_lexicon = token_weights(GENDER, texts, saliencies(task, texts), norm="l1")
    for ours, lexicon in zip(by_model, by_lexicon, strict=True):
        assert ours == pytest.approx(lexicon)  # this one reads nothing but identity terms, and each text has one
        assert ours.sum() == pytest.approx(1)
    assert text_sensitivities(task, status, texts) == pytest.approx(text_sensitivities(task, GENDER, texts))
    finding = measured(Planted(0.5, 0.3), Planted(1.0), protected_group="gender")
    assert finding.value == pytest.approx(measured(Planted(0.5, 0.3)).value)
    assert finding.details["weights"] == "protected-status model"


def test_users_of_examples_are_clusters() -> None:
    alone = measured(Planted(0.5, 0.3))
    users = [Example(text, user=f"u{row % 8}") for row, text in enumerate(TEXTS)]
    finding = measured(Planted(0.5, 0.3), texts=users)
    assert (finding.n, alone.n) == (8, len(TEXTS))
    assert finding.value == pytest.approx(alone.value)
    assert finding == measured(Planted(0.5, 0.3), texts=TEXTS, clusters=[each.user for each in users])


@pytest.mark.parametrize("texts", [TEXTS[:3], ["play some jazz"] * 60, [*TEXTS[:3], *["play jazz"] * 60]])
def test_too_few_texts_with_a_term_are_insufficient_evidence(texts: list[str]) -> None:
    finding = measured(Planted(1.0), texts=texts)
    assert finding.verdict is Verdict.INSUFFICIENT_EVIDENCE
    assert finding.value is None
    assert "are needed" in finding.details["reason"]


def test_a_constant_answer_is_not_called_fair() -> None:
    finding = measured(Planted(0.0))
    assert finding.value is None
    assert finding.verdict is Verdict.INSUFFICIENT_EVIDENCE


def test_wrong_arguments_are_refused() -> None:
    for name, wrong in (("margin", {"margin": 0}), ("level", {"level": 1}), ("clusters", {"clusters": ["u"]})):
        with pytest.raises(ArgumentError, match=name):
            measured(Planted(1.0), **wrong)
    with pytest.raises(ArgumentError, match="texts"):
        measured(Planted(1.0), texts=[])


def test_attributions_add_up_to_the_figure_and_hide_their_text() -> None:
    task = open_classifier(Planted(0.5, 0.3))
    shown = attributions(task, TEXTS[:4], GENDER)
    assert [each.total for each in shown] == pytest.approx(text_sensitivities(task, GENDER, TEXTS[:4]))
    for text, each in zip(TEXTS, shown, strict=False):
        assert list(each.tokens) == text.split()
        assert text.split()[2] not in repr(each)
        marked = [token for token, weight in zip(each.tokens, each.weight, strict=True) if weight]
        assert len(marked) == 1
        assert 0.5 <= each.probability <= 1


@pytest.mark.parametrize("seed", range(3))
def test_a_trained_model_without_bias_is_not_called_unfair_and_a_biased_one_not_fair(seed: int) -> None:
    verdicts = {}
    for strength in (0.0, 0.6):
        corpus = PlantedBias(strength, 600, seed).corpus()
        small = {"width": 16, "hidden": 16, "char_filters": 0, "buckets": 512, "word_dropout": 0.0}
        model = models.build("bilstm", corpus, streams=Streams(seed), **small)
        data = model.encode(corpus.train, for_training=True)
        step = models.PlainStep(model, torch.optim.AdamW(model.parameters(), lr=0.01))
        models.fit(model, data, models.ShuffledBatches(len(data), 32, 5, Streams(seed)), step, streams=Streams(seed))
        verdicts[strength] = measured(model, texts=corpus.test, margin=0.02).verdict
    assert verdicts[0.0] is not Verdict.DISPARITY
    assert verdicts[0.6] is not Verdict.FAIR_WITHIN_MARGIN
