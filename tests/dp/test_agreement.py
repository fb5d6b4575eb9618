import math

import pytest
import torch
from rows import clip_of
from small_text import Tagger, Texts, trainable

from trustnlp.dp.agreement import disagreement
from trustnlp.dp.book_keeping import BookKeeping
from trustnlp.dp.clipping import ClippedSum
from trustnlp.dp.unit_rows import UnitRows
from trustnlp.errors import GuaranteeError

CLIP = 0.3


def probe(spoil=None, loss=None, dropout=0.5):
    model, texts = Tagger(dropout=dropout), Texts.random(12)
    engine = BookKeeping()
    engine(model, model.loss, texts, [], trainable(model), clip_of(model, CLIP))  # finds the rules

    def fast(batch):
        found = engine._sum(
            model, model.loss, [(batch, UnitRows.single(len(batch)))], trainable(model), clip_of(model, CLIP)
        )
        return spoil(found) if spoil else found

    return disagreement(fast, model, loss or model.loss, texts, trainable(model), clip_of(model, CLIP))


def scaled(name, factor):
    def spoil(found):
        changed = {key: value * (factor if key == name else 1) for key, value in found.gradients.items()}
        return ClippedSum(changed, found.norms, found.mean_loss)

    return spoil


def test_equal_gradients_agree_also_under_dropout():
    assert probe() == ""


@pytest.mark.parametrize("name", [name for name, _ in Tagger().named_parameters()])
def test_one_wrong_parameter_is_noticed(name):
    assert "not those" in probe(scaled(name, 1.001))


def test_wrong_norms_are_noticed():
    assert "not those" in probe(lambda found: ClippedSum(found.gradients, found.norms.flip(0), found.mean_loss))


def test_what_is_not_a_number_is_noticed():
    assert "not those" in probe(scaled("head.bias", math.nan))


def test_a_failure_is_told():
    def fail(found):
        raise RuntimeError("shapes")

    assert probe(fail) == "in a probe it failed: shapes"


def test_unbounded_gradients_are_refused():
    with pytest.raises(GuaranteeError, match="no clipping bounds"):
        probe(loss=lambda batch: Tagger().loss(batch) * math.inf)


def test_global_randomness_is_left_alone():
    before = torch.get_rng_state()
    probe()
    assert torch.equal(torch.get_rng_state(), before)
