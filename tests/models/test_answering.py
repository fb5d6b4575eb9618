import numpy as np
import pytest
from scipy.special import logsumexp

from trustnlp.data.corpus import Example
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.models.answering import AnsweringModel

EXAMPLES = [Example("rain", "a"), Example("light rain", "b"), Example("no rain at all", "a")]
SCORES = {"rain": [2.0, 1.0], "light rain": [5.0, -3.0], "no rain at all": [0.0, 0.0]}


def lengths(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


def scores(texts: list[str]) -> list[list[float]]:
    return [SCORES[text] for text in texts]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 128])
def test_losses_are_what_the_function_answers_in_order(batch_size: int) -> None:
    asked: list[int] = []

    def answer(texts: list[str]) -> list[int]:
        asked.append(len(texts))
        return lengths(texts)

    assert AnsweringModel(answer, batch_size=batch_size).losses(EXAMPLES).tolist() == [4, 10, 14]
    assert max(asked) <= batch_size
    assert sum(asked) == 3


def test_the_loss_of_scores_is_the_cross_entropy_of_the_own_label() -> None:
    model = AnsweringModel(scores, ("a", "b"))
    by_hand = [logsumexp(SCORES[e.text]) - SCORES[e.text]["ab".index(e.label or "")] for e in EXAMPLES]
    np.testing.assert_allclose(model.losses(EXAMPLES), by_hand)
    assert model.right(EXAMPLES).tolist() == [True, False, True]
    assert model.logits(EXAMPLES).shape == (3, 2)


@pytest.mark.parametrize("answer", [lambda texts: [1.0], lambda texts: np.zeros((len(texts), 2)), lambda texts: 0.0])
def test_an_answer_of_another_shape_is_refused(answer) -> None:
    with pytest.raises(ArgumentError, match=r"'answer' must be a function that answers shape \(3,\), got"):
        AnsweringModel(answer).losses(EXAMPLES)


def test_losses_where_scores_are_promised_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"'answer' must be a function that answers shape \(3, 2\), got \(3,\)"):
        AnsweringModel(lengths, ("a", "b")).losses(EXAMPLES)
    with pytest.raises(ArgumentError, match="'labels' must be given for a function that answers scores"):
        AnsweringModel(lengths).right(EXAMPLES)


def test_a_label_that_the_model_does_not_know_has_no_loss() -> None:
    with pytest.raises(GuaranteeError, match="2 of 3 examples have no label that the model knows"):
        AnsweringModel(scores, ("b", "c")).losses(EXAMPLES)
    with pytest.raises(GuaranteeError, match="1 of 1 examples have no label"):
        AnsweringModel(scores, ("a", "b")).losses([Example("rain")])


@pytest.mark.parametrize("fields", [{"labels": ("a",)}, {"labels": ("a", "a")}, {"batch_size": 0}])
def test_bad_fields_are_refused(fields: dict) -> None:
    with pytest.raises(ArgumentError, match=next(iter(fields))):
        AnsweringModel(lengths, **fields)


def test_no_example_is_refused() -> None:
    with pytest.raises(ArgumentError, match="'examples' must be not empty"):
        AnsweringModel(lengths).losses([])
