from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from trustnlp import data, models
from trustnlp.data.corpus import Corpus
from trustnlp.dp import Ledger
from trustnlp.errors import ArgumentError, GuaranteeError, ModelError
from trustnlp.progress import silent
from trustnlp.randomness import Streams
from trustnlp.results import Verdict
from trustnlp.studies import recipes, regimes
from trustnlp.studies.recipes import Recipe
from trustnlp.studies.regime import Setting
from trustnlp.studies.regimes import REGIMES

pytestmark = pytest.mark.usefixtures("hasty")


@pytest.fixture(scope="module")
def corpus(table: Path) -> Corpus:
    return data.load(table)


@pytest.fixture
def setting(corpus: Corpus) -> Setting:
    return Setting("bilstm", corpus, corpus.train[:160], corpus.valid, epsilon=2.0, delta=1e-4, streams=Streams(1))


def same_weights(one: models.NLUModel, other: models.NLUModel) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.state_dict().items())


class Stop(Exception):  # noqa: N818 (it is no error)
    """Ends a training somewhere in its middle."""


def stop_at(step: int) -> Callable[..., None]:
    def progress(stage: str, done: int, total: int, figures: Any) -> None:
        if done == step:
            raise Stop

    return progress


@pytest.mark.parametrize("name", REGIMES)
def test_the_folder_of_a_trained_model_gives_the_same_answers(name: str, setting: Setting, tmp_path: Path) -> None:
    stages = set()
    trained = REGIMES[name].train(setting, tmp_path, lambda stage, *_: stages.add(stage), "some stage")
    assert stages == {"some stage"}
    again = models.load(tmp_path)
    assert same_weights(trained.model, again)
    found, theirs = (models.predict(model, model.encode(setting.valid)) for model in (trained.model, again))
    assert found.labels == theirs.labels
    assert (found.losses == theirs.losses).all()
    assert trained.facts["parameters"] == sum(value.numel() for value in again.parameters())

    # Called again, a finished training is only opened.
    same = REGIMES[name].train(setting, tmp_path, stop_at(1), "again")
    assert same_weights(trained.model, same.model)
    assert same.findings == trained.findings


class TestPlain:
    def test_stops_early_and_keeps_the_best_epoch(
        self, setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(recipes, "plain", lambda *_: Recipe(5e-3, 32, 30, patience=1))
        trained = regimes.plain(setting, tmp_path, silent, "plain")
        history = trained.facts["history"]
        scores = [epoch["score"] for epoch in history["epochs"]]
        assert len(scores) < 30
        assert history["best_epoch"] == len(scores) - 2 == scores.index(max(scores))
        accuracy = models.evaluate(trained.model, trained.model.encode(setting.valid))["accuracy"]
        assert accuracy == max(scores)
        assert trained.findings == ()

    def test_runs_to_its_end_where_nothing_can_be_watched(self, setting: Setting, tmp_path: Path) -> None:
        trained = regimes.plain(replace(setting, valid=()), tmp_path, silent, "plain")
        assert trained.facts["history"]["best_epoch"] is None
        assert len(trained.facts["history"]["epochs"]) == 2

    def test_learns(self, setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(recipes, "plain", lambda *_: Recipe(5e-3, 32, 6))
        model = regimes.plain(replace(setting, train=setting.schema.train), tmp_path, silent, "plain").model
        assert models.evaluate(model, model.encode(setting.schema.test))["accuracy"] > 0.9


class TestPrivate:
    def test_spends_exactly_its_plan(self, setting: Setting, tmp_path: Path) -> None:
        plan = regimes.private_plan(setting)
        trained = regimes.private(setting, tmp_path, silent, "private")
        _header, *lines = (tmp_path / "ledger.jsonl").read_text().splitlines()
        assert len(lines) == plan.steps == trained.facts["history"]["steps"]
        ledger = Ledger.read(tmp_path / "ledger.jsonl")
        assert ledger.plan == plan

        (finding,) = trained.findings
        assert finding.value == pytest.approx(ledger.spent_epsilon())
        assert 0.99 * 2 <= finding.value <= 2
        assert finding.verdict is Verdict.WITHIN_BUDGET
        assert finding.details["steps"] == plan.steps
        assert finding.details["delta"] == setting.delta
        assert finding.n == len(setting.train)
        with pytest.raises(GuaranteeError, match="are spent"):
            ledger.spend()

    @pytest.mark.parametrize("steps", [(1,), (5, 6)])
    def test_an_interrupted_run_goes_on_at_its_ledger(
        self, setting: Setting, tmp_path: Path, steps: tuple[int, ...]
    ) -> None:
        plan = regimes.private_plan(setting)
        for step in steps:
            with pytest.raises(Stop):
                regimes.private(setting, tmp_path, stop_at(step), "private")
            assert Ledger.read(tmp_path / "ledger.jsonl").spent == step
        begun = []
        trained = regimes.private(setting, tmp_path, lambda _, done, *__: begun.append(done), "private")
        assert begun == list(range(steps[-1] + 1, plan.steps + 1))  # no noise twice
        ledger = Ledger.read(tmp_path / "ledger.jsonl")
        assert ledger.spent == plan.steps
        assert trained.findings[0].value == pytest.approx(ledger.spent_epsilon())

    def test_validation_texts_choose_nothing(self, setting: Setting, tmp_path: Path) -> None:
        others = tuple(replace(example, label="music") for example in setting.train[:20])
        found = [
            regimes.private(replace(setting, valid=valid), tmp_path / str(i), silent, "private")
            for i, valid in enumerate((setting.valid, others, ()))
        ]
        assert same_weights(found[0].model, found[1].model)
        assert same_weights(found[0].model, found[2].model)
        assert [one.facts["history"]["best_epoch"] for one in found] == [None] * 3

    def test_trains_a_transformer_without_its_unused_word_embedding(self, setting: Setting, tmp_path: Path) -> None:
        trained = regimes.private(replace(setting, model="transformer"), tmp_path, silent, "private")
        assert trained.findings[0].verdict is Verdict.WITHIN_BUDGET

    def test_another_budget_in_the_same_folder_is_refused(self, setting: Setting, tmp_path: Path) -> None:
        with pytest.raises(Stop):
            regimes.private(setting, tmp_path, stop_at(2), "private")
        with pytest.raises(GuaranteeError, match="2 steps of another plan"):
            regimes.private(replace(setting, delta=1e-3), tmp_path, silent, "private")


@pytest.mark.parametrize(
    ("name", "changes", "error", "message"),
    [
        ("plain", {"model": "./nowhere"}, ModelError, "no model folder"),
        ("private", {"model": "./nowhere"}, ModelError, "no model folder"),
        ("private", {"delta": 0.5}, ArgumentError, "'delta' must be below 1/N"),
        ("private", {"epsilon": 0.0}, ArgumentError, "'epsilon' must be a number > 0"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_the_check(
    setting: Setting, name: str, changes: dict, error: type, message: str
) -> None:
    REGIMES[name].check(setting)
    with pytest.raises(error, match=message):
        REGIMES[name].check(replace(setting, **changes))
