"""Token scores against a slow reference in plain numbers, and of a made-up model whose distribution is known."""

import math

import numpy as np
import pytest
import torch
from small_corpus import CORPUS, SMALL, TRAIN
from torch import nn

from trustnlp import models
from trustnlp.data.corpus import Example
from trustnlp.errors import ArgumentError
from trustnlp.models.protocol import Batch
from trustnlp.models.token_scores import TokenScores, token_scores
from trustnlp.randomness import Streams

EXAMPLES = [Example(text) for text in ("rain", "will it rain in rome tomorrow", "ü", "play some jazz by nina now")]


@pytest.fixture(scope="module")
def model() -> models.LanguageModel:
    built = models.build_language_model(streams=Streams(0), width=16, layers=1, heads=2, max_pieces=40)
    for parameter in built.parameters():  # far from uniform, so that every figure differs
        parameter.data *= 4
    return built


class Known(nn.Module):
    """Answers row i of a table after piece i, and nonsense after the end of a text."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table)

    def logits(self, batch: Batch) -> dict[str, torch.Tensor]:
        pieces = batch.inputs["pieces"].long()
        scores = self.table[pieces].clone()
        scores[torch.arange(pieces.shape[1]) >= batch.inputs["spans"][:, None] - 1] = math.nan
        return {"pieces": scores[:, :-1]}


class Pieces:
    """Texts given as pieces."""

    def __init__(self, *rows: list[int]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices) -> Batch:
        chosen = [torch.tensor(self.rows[i]) for i in indices]
        pieces = nn.utils.rnn.pad_sequence(chosen, batch_first=True)
        return Batch({"pieces": pieces, "spans": torch.tensor([len(row) for row in chosen])}, {})


def test_every_figure_is_that_of_the_text_alone_in_plain_numbers(model):
    found = token_scores(model, model.encode(EXAMPLES), batch_size=3)
    assert len(found) == len(EXAMPLES)
    for i, example in enumerate(EXAMPLES):
        batch = model.encode([example]).batch([0])
        with torch.no_grad():
            rows = model.eval().logits(batch)["pieces"][0].tolist()
        tokens = batch.inputs["pieces"][0].tolist()[1:]
        assert found.lengths[i] == len(tokens)
        for t, (scores, token) in enumerate(zip(rows, tokens, strict=True)):
            total = math.fsum(map(math.exp, scores))
            logs = [score - math.log(total) for score in scores]
            mean = math.fsum(math.exp(log) * log for log in logs)
            variance = math.fsum(math.exp(log) * log * log for log in logs) - mean**2
            assert found.log_probs[i][t] == pytest.approx(logs[token], abs=1e-4)
            assert found.mean[i][t] == pytest.approx(mean, abs=1e-4)
            assert found.std[i][t] == pytest.approx(math.sqrt(variance), abs=1e-4)
            assert found.top_is_right[i][t] == (max(scores) == scores[token])


def test_the_losses_are_those_of_the_model(model):
    encoded = model.encode(EXAMPLES)
    np.testing.assert_allclose(token_scores(model, encoded).losses, models.losses(model, encoded), atol=1e-5)


def test_what_stands_at_padding_never_shows_and_batches_are_put_together():
    model = Known(torch.randn(5, 5, generator=torch.Generator().manual_seed(0)))
    texts = Pieces([1, 2, 3, 4], [1, 2], [4, 4, 4, 4, 4, 0], [3])
    together = token_scores(model, texts, batch_size=4)
    assert together.lengths.tolist() == [3, 1, 5, 0]
    assert np.isnan(together.losses).tolist() == [False, False, False, True]
    for size in (1, 3):
        apart = token_scores(model, texts, batch_size=size)
        for name in ("log_probs", "mean", "std", "top_is_right"):
            for one, other in zip(getattr(together, name), getattr(apart, name), strict=True):
                np.testing.assert_array_equal(one, other)
                assert np.isfinite(one).all()
    assert together.log_probs[0][0] == together.log_probs[1][0]  # the same piece after the same piece


def test_the_distribution_of_a_uniform_model_and_of_one_that_rules_tokens_out():
    uniform = token_scores(Known(torch.zeros(8, 8)), Pieces([1, 2, 0]))
    np.testing.assert_allclose(uniform.log_probs[0], -math.log(8))
    np.testing.assert_allclose(uniform.mean[0], -math.log(8))
    np.testing.assert_allclose(uniform.std[0], 0, atol=1e-12)
    assert uniform.top_is_right[0].tolist() == [False, True]  # of equals, the first
    sure = torch.full((8, 8), -math.inf)
    sure[:, 3] = 0.0
    ruled_out = token_scores(Known(sure), Pieces([1, 3]))
    assert ruled_out.log_probs[0].tolist() == ruled_out.mean[0].tolist() == ruled_out.std[0].tolist() == [0.0]
    assert ruled_out.top_is_right[0].all()


def test_what_single_precision_would_round_to_nothing_is_kept():
    table = torch.zeros(2, 2)
    table[:, 1] = 30.0
    found = token_scores(Known(table), Pieces([0, 1]))
    assert found.log_probs[0][0] == pytest.approx(-math.exp(-30), rel=1e-3)
    assert found.log_probs[0].dtype == found.mean[0].dtype == found.std[0].dtype == np.float64
    assert found.std[0][0] == pytest.approx(math.sqrt(math.exp(-30) * 30**2), rel=1e-3)


def test_the_model_is_left_in_its_mode(model):
    model.train()
    token_scores(model, model.encode(EXAMPLES))
    assert model.training
    model.eval()


class TestRefusals:
    def test_a_model_of_labels(self):
        labels = models.build("bilstm", CORPUS, streams=Streams(0), **SMALL["bilstm"])
        with pytest.raises(ArgumentError, match="'model' must be a causal language model, got 'NLUModel'"):
            token_scores(labels, labels.encode(TRAIN))

    def test_no_texts(self, model):
        with pytest.raises(ArgumentError, match="'encoded' must be not empty"):
            token_scores(model, model.encode([]))

    def test_fields_that_do_not_match(self):
        row = np.zeros(3)
        with pytest.raises(ArgumentError, match="'std'"):
            TokenScores((row,), (row,), (row[:2],), (row > 0,))
        with pytest.raises(ArgumentError, match="'log_probs'"):
            TokenScores((row[None],), (row,), (row,), (row > 0,))
