from dataclasses import replace

import numpy as np
import pytest

from trustnlp import models
from trustnlp.attacks import label_only, language_scores, lira, membership, population, rmia, token_membership
from trustnlp.attacks.neighbours import WordStatistics, exchange_words
from trustnlp.attacks.shadows import Shadows
from trustnlp.data.corpus import Corpus, Example
from trustnlp.errors import CorpusError, GuaranteeError
from trustnlp.models.answering import AnsweringModel
from trustnlp.models.token_scores import token_scores
from trustnlp.randomness import Streams
from trustnlp.studies import membership_scores as scores
from trustnlp.studies.sides import Sides

STREAMS = Streams(0)
MEMBERS = (Example("play Jazz now", "music", ("O", "B-x", "O")), Example("wake me", "alarm", ("O", "O")))
OTHERS = (Example("play it", "music", ("O", "O")), Example("never wake my home", "alarm", ("O", "O", "O", "B-x")))
SIDES = Sides(MEMBERS, OTHERS)
CORPUS = Corpus("tiny", SIDES.every)
SMALL = {"buckets": 64, "width": 8, "hidden": 8}


def bilstm(seed: int = 0, **more: object) -> models.NLUModel:
    return models.build("bilstm", CORPUS, streams=Streams(seed), **SMALL, **more).eval()


def language(seed: int = 0, max_pieces: int = 64) -> models.LanguageModel:
    small = {"width": 8, "layers": 1, "heads": 1}
    return models.build_language_model(streams=Streams(seed), max_pieces=max_pieces, **small).eval()


class TestLosses:
    def test_those_of_a_model_in_the_order_of_the_sides(self) -> None:
        model = bilstm()
        np.testing.assert_array_equal(
            scores.of_sides(model, SIDES), models.losses(model, model.encode([*MEMBERS, *OTHERS]))
        )

    def test_those_of_a_function(self) -> None:
        assert scores.of_sides(AnsweringModel(lambda texts: [len(t) for t in texts]), SIDES).tolist() == [13, 7, 7, 18]

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_an_answer_that_is_no_number_is_refused_and_the_side_is_named(self, bad: float) -> None:
        spoilt = AnsweringModel(lambda texts: [bad if text == "play it" else 1.0 for text in texts])
        with pytest.raises(GuaranteeError, match="loss is NaN or infinite for 1 of 2 non-members"):
            scores.of_sides(spoilt, SIDES)

    @pytest.mark.parametrize("field", ["label", "tags"])
    def test_texts_without_what_the_loss_is_of(self, field: str) -> None:
        bare = Sides(MEMBERS, tuple(replace(example, **{field: None}) for example in OTHERS))
        with pytest.raises(CorpusError, match=rf"the non-members have no {field}, .*; give each its {field}"):
            scores.of_sides(bilstm(), bare)

    def test_a_label_that_the_model_does_not_know(self) -> None:
        strange = Sides((replace(MEMBERS[0], label="karaoke"), MEMBERS[1]), OTHERS)
        with pytest.raises(GuaranteeError, match="1 of 2 members have no loss under this model"):
            scores.of_sides(bilstm(), strange)


def test_by_loss_and_the_mean_of_references() -> None:
    own, others = np.array([1.0, 2.0]), [np.array([1.0, 1.0]), np.array([3.0, 2.0])]
    assert set(scores.by_loss(own, [])) == {"loss"}
    np.testing.assert_array_equal(scores.by_loss(own, others)["reference"], membership.reference_score(own, [2.0, 1.5]))


def test_by_shadows_with_and_without_a_population() -> None:
    generator = np.random.default_rng(0)
    losses, own = generator.exponential(1, (8, 7)), generator.exponential(1, 7)
    inside = np.zeros((8, 7), dtype=bool)
    inside[:4, :2], inside[4:, 2:4] = True, True  # the last three texts are the population
    found = scores.by_shadows(own[:4], own[4:], Shadows(inside, losses))
    texts = losses[:, :4], inside[:, :4]
    np.testing.assert_array_equal(found["lira"], lira.score(own[:4], *texts))
    np.testing.assert_array_equal(found["per-example"], population.per_example_score(own[:4], *texts))
    np.testing.assert_array_equal(found["rmia"], rmia.score(own[:4], *texts, own[4:], losses[:, 4:]))
    alone = scores.by_shadows(own[:4], own[:0], Shadows(inside[:, :4], losses[:, :4]))
    assert set(alone) == {"lira", "per-example"}


def test_by_labels() -> None:
    model = bilstm()
    found = scores.by_labels(model, SIDES, STREAMS)
    right = models.predict(model, model.encode(SIDES.every)).correct
    np.testing.assert_array_equal(found["gap"], label_only.gap_score(right))
    assert set(found) == {"gap", "robustness"}
    assert ((found["robustness"] >= 0) & (found["robustness"] <= 1)).all()
    assert scores.by_labels(model, SIDES, STREAMS)["robustness"].tolist() == found["robustness"].tolist()
    assert scores.by_labels(language(), SIDES, STREAMS) == {}
    assert scores.by_labels(AnsweringModel(lambda texts: [1.0] * len(texts)), SIDES, STREAMS) == {}


def test_by_labels_of_a_function() -> None:
    always = AnsweringModel(lambda texts: [[1.0, 0.0]] * len(texts), ("music", "alarm"))
    found = scores.by_labels(always, SIDES, STREAMS)
    assert found["gap"].tolist() == found["robustness"].tolist() == [1.0, 0.0, 1.0, 0.0]


def test_by_words_of_taggers_alone() -> None:
    model, other = bilstm(), bilstm(1)
    (word,) = scores.by_words(model, SIDES, [], STREAMS).values()
    losses, lengths = token_membership.token_losses(model, model.encode(SIDES.every))
    assert word.tolist() == token_membership.one_word_each(-losses, lengths, STREAMS.numpy("words")).tolist()
    (compared,) = scores.by_words(model, SIDES, [other], STREAMS).values()
    theirs, _ = token_membership.token_losses(other, other.encode(SIDES.every))
    expected = token_membership.one_word_each(theirs - losses, lengths, STREAMS.numpy("words"))
    np.testing.assert_allclose(compared, expected)
    assert scores.by_words(bilstm(crf=True), SIDES, [], STREAMS) == {}  # no word has a loss of its own
    assert scores.by_words(language(), SIDES, [], STREAMS) == {}


def test_by_tokens_of_language_models_alone() -> None:
    model, texts = language(), [example.text for example in SIDES.every]
    own = token_scores(model, model.encode(SIDES.every))
    alone = scores.by_tokens(model, SIDES, [])
    assert set(alone) == {"zlib", "min-k", "min-k-plus-plus", "lowercase"}
    np.testing.assert_array_equal(alone["zlib"], language_scores.zlib_ratio(own, texts))
    compared = scores.by_tokens(model, SIDES, [language(1)])
    assert set(compared) - set(alone) == {"reference-ratio", "error-zone"}
    lowered = Sides((Example("play jazz"),), (Example("wake me"),))
    assert "lowercase" not in scores.by_tokens(model, lowered, [])
    assert scores.by_tokens(bilstm(), SIDES, []) == {}


def test_by_background_of_language_models() -> None:
    model, texts = language(), [example.text for example in SIDES.every]
    own = token_scores(model, model.encode(SIDES.every))
    unseen = [Example("call my mother now"), Example("play it again")]
    found = scores.by_background(model, SIDES, unseen, STREAMS)
    prefixed = token_scores(model, model.encode([Example("call my mother now\n" + text) for text in texts]))
    np.testing.assert_array_equal(found["recall"], language_scores.recall(own, prefixed))
    near = exchange_words(
        texts, WordStatistics([one.text for one in unseen]), generator=STREAMS.numpy("neighbours"), neighbours=25
    )
    theirs = token_scores(model, model.encode([Example(text) for text in near]))
    np.testing.assert_array_equal(found["neighbourhood"], language_scores.neighbourhood(own, theirs))


def test_by_background_leaves_out_what_cannot_be_asked() -> None:
    short = language(max_pieces=24)  # bytes, so that the prefix leaves no room for some texts
    assert set(scores.by_background(short, SIDES, [Example("wake wake")], STREAMS)) == set()
    assert scores.by_background(language(), SIDES, [], STREAMS) == {}
    assert scores.by_background(bilstm(), SIDES, [Example("call my mother")], STREAMS) == {}


def test_neighbours_of_many_texts_are_asked_for_by_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    unseen = [Example("call my mother now"), Example("play it again")]
    at_once = scores.by_background(language(), SIDES, unseen, STREAMS)["neighbourhood"]
    monkeypatch.setattr(scores, "_AT_ONCE", 1)
    by_parts = scores.by_background(language(), SIDES, unseen, STREAMS)["neighbourhood"]
    np.testing.assert_allclose(by_parts, at_once)
