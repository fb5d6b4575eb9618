"""The contract; regimes themselves are tested beside it."""

from pathlib import Path

import pytest

from trustnlp import data, models
from trustnlp.randomness import Streams
from trustnlp.studies import recipes
from trustnlp.studies.regime import Setting, built, evaluation_of, trained


@pytest.fixture
def setting(table: Path) -> Setting:
    corpus = data.load(table)
    return Setting("bilstm", corpus, corpus.train, corpus.valid, 8.0, 1e-5, Streams(0), mechanism="layerwise")


def test_a_model_is_built_for_the_schema(setting: Setting) -> None:
    model = built(setting, {"dropout": 0.0})
    assert model.schema.labels == setting.schema.labels


def test_a_trained_model_is_saved_and_counted(setting: Setting, tmp_path: Path) -> None:
    model = built(setting)
    found = trained(model, tmp_path, {"more": 1})
    assert found.facts == {"parameters": sum(one.numel() for one in model.parameters()), "more": 1}
    assert models.load(tmp_path).schema == model.schema


def test_nothing_is_evaluated_without_a_validation_split(setting: Setting) -> None:
    assert evaluation_of(built(setting), ()) is None
    found = evaluation_of(built(setting), setting.valid)
    assert found is not None
    assert 0 <= found()["accuracy"] <= 1


def test_the_private_recipe_is_that_of_the_mechanism(setting: Setting) -> None:
    assert setting.private_recipe == recipes.private("bilstm", len(setting.train), False, "layerwise")
