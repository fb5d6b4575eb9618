import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from small_checkpoints import classifier, rows, write
from trustnlp import models
from trustnlp.data import load
from trustnlp.dp import Ledger, PrivacyPlan
from trustnlp.errors import ArgumentError, GuaranteeError, ModelError, RunError
from trustnlp.federated.device_plan import text_epsilon
from trustnlp.federated.user_privacy import UserPrivacy
from trustnlp.randomness import Streams
from trustnlp.studies import assess, attack_target
from trustnlp.studies.attack_target import Promise, Request

MEMBERS, NONMEMBERS, OTHERS = rows(30, 3)
STREAMS = Streams(0)
PLAN = PrivacyPlan(examples=30, expected_batch=5, steps=4, noise_multiplier=2.0, delta=1e-3)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier(MEMBERS, tmp_path_factory.mktemp("checkpoint") / "model", steps=2)


@pytest.fixture
def request_of(checkpoint: Path, tmp_path: Path) -> Request:
    sides = (
        write(tmp_path / f"{name}.csv", given, "text", "label")
        for name, given in (("in", MEMBERS), ("out", NONMEMBERS))
    )
    return Request(str(checkpoint), *sides)


class TestRequest:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"model": ""}, "'model' must be given"),
            ({"run": Path("runs/a")}, "'model' must be left out beside 'run'"),
            ({"epsilon": 8.0}, r"'epsilon' must be given together with delta, got \(8.0, None\)"),
            ({"delta": 1e-5}, "'epsilon' must be given together with delta"),
            ({"fpr": 1.0}, "'fpr' must be a number with 0 < fpr < 1"),
            ({"shadows": 7}, "'shadows' must be 0, or an even number from 6 on, got 7"),
            ({"shadows": 4}, "'shadows' must be 0, or an even number from 6 on, got 4"),
            ({"shadows": -2}, "'shadows' must be a whole number >= 0"),
            ({"limit": 0}, "'limit' must be a whole number >= 1"),
        ],
    )
    def test_fields_that_break_their_rule(self, request_of: Request, changes: dict, message: str) -> None:
        with pytest.raises(ArgumentError, match=message):
            replace(request_of, **changes)

    @pytest.mark.parametrize("name", ["members", "nonmembers"])
    def test_both_files_are_needed(self, request_of: Request, name: str) -> None:
        with pytest.raises(ArgumentError, match=f"'{name}' must be given, as an audit compares"):
            replace(request_of, **{name: None})

    @pytest.mark.parametrize("values", [(-1.0, 1e-5), (float("nan"), 1e-5), (1.0, 0.0), (1.0, 1.0)])
    def test_promises_that_are_none(self, values: tuple) -> None:
        with pytest.raises(ArgumentError):
            Promise(*values)


class TestFiles:
    def test_what_the_request_names(self, request_of: Request, checkpoint: Path) -> None:
        found = attack_target.target(replace(request_of, references=(str(checkpoint),) * 2), STREAMS)
        assert {example.text for example in found.sides.members} == {text for text, _ in MEMBERS}
        assert (found.name, found.regime, len(found.references)) == (str(checkpoint), "audited", 2)
        assert (found.promise, found.shadow, found.population) == (None, None, ())

    def test_a_population(self, request_of: Request, tmp_path: Path) -> None:
        path = write(tmp_path / "others.csv", OTHERS, "text", "label")
        assert len(attack_target.target(replace(request_of, population=path), STREAMS).population) == 30

    def test_shadows_of_the_models_own_kind(self, request_of: Request, tmp_path: Path) -> None:
        corpus = load(request_of.members or "")
        models.save(models.build("bilstm", corpus, streams=STREAMS, buckets=64, width=8, hidden=8), tmp_path / "ours")
        found = attack_target.target(replace(request_of, model=str(tmp_path / "ours"), shadows=6), STREAMS)
        assert found.shadow is not None
        regime, setting = found.shadow
        assert (regime, setting.model, setting.train) == ("plain", "bilstm", ())
        assert setting.schema.labels == corpus.labels

    def test_shadows_of_an_unknown_kind(self, request_of: Request) -> None:
        with pytest.raises(
            ModelError, match=r"is not known, so no shadow model can be like it; name .* --shadow-model"
        ):
            attack_target.target(replace(request_of, shadows=6), STREAMS)
        found = attack_target.target(replace(request_of, shadows=6, shadow_model="transformer"), STREAMS)
        assert found.shadow is not None
        assert found.shadow[1].model == "transformer"


class TestPromise:
    @pytest.fixture
    def model(self, checkpoint: Path, tmp_path: Path) -> Path:
        """A checkpoint with the ledger of three of its four steps."""
        folder = Path(shutil.copytree(checkpoint, tmp_path / "private"))
        ledger = Ledger.open(folder / "ledger.jsonl", PLAN)
        for _ in range(3):
            ledger.spend()
        return folder

    def test_is_read_from_the_ledger_beside_the_model(self, request_of: Request, model: Path) -> None:
        promise = attack_target.target(replace(request_of, model=str(model)), STREAMS).promise
        assert promise is not None
        assert promise.epsilon == Ledger.read(model / "ledger.jsonl").spent_epsilon()
        assert promise.delta == PLAN.delta
        assert 0 < promise.epsilon < PLAN.epsilon()

    def test_a_checkpoint_of_a_trainer_has_it_in_the_folder_above(self, request_of: Request, model: Path) -> None:
        step = Path(
            shutil.copytree(
                model, model / "checkpoint-3", ignore=shutil.ignore_patterns("ledger.jsonl", "checkpoint-3")
            )
        )
        assert attack_target.target(replace(request_of, model=str(step)), STREAMS).promise is not None
        other = Path(shutil.copytree(step, model / "exported"))
        assert attack_target.target(replace(request_of, model=str(other)), STREAMS).promise is None

    def test_may_be_given(self, request_of: Request) -> None:
        given = replace(request_of, epsilon=8.0, delta=1e-5)
        assert attack_target.target(given, STREAMS).promise == Promise(8.0, 1e-5, "the request")

    def test_of_a_device_is_less_for_its_texts(self, request_of: Request, model: Path) -> None:
        plan = UserPrivacy(100, 4, 10.0, 0.1, 2.0, 1e-4)
        (model / "ledger.jsonl").unlink()
        ledger = Ledger.open(model / "ledger.jsonl", plan)
        for _ in range(3):
            ledger.spend()
        promise = attack_target.target(replace(request_of, model=str(model)), STREAMS).promise
        assert promise is not None
        assert promise.epsilon == text_epsilon(plan.events(3), 1e-4) > plan.epsilon(3)

    def test_an_epsilon_beside_a_ledger(self, request_of: Request, model: Path) -> None:
        with pytest.raises(
            ArgumentError, match=r"'epsilon' must be left out, as the ledger beside the model .* says it"
        ):
            attack_target.target(replace(request_of, model=str(model), epsilon=8.0, delta=1e-5), STREAMS)


@pytest.mark.usefixtures("hasty")
class TestRun:
    def test_its_texts_models_and_promise(self, table: Path, tmp_path: Path) -> None:
        folder = tmp_path / "run"
        assess.run(assess.Request(data=str(table), seed=3, epsilon=2.0), folder)
        _, prepared, _ = assess.reopen(folder)
        plain, private = (
            attack_target.target(Request(run=folder, regime=regime, seed=1), STREAMS) for regime in ("plain", "private")
        )
        for found in (plain, private):
            assert (found.sides.members, found.sides.nonmembers) == (prepared.split.members, prepared.split.nonmembers)
            assert len(found.references) == 1
            used = {example.text for example in (*prepared.train, *prepared.split.nonmembers)}
            assert found.population
            assert not used & {example.text for example in found.population}
            assert found.shadow is not None
            assert found.shadow[1].train == prepared.split.background.train
        assert plain.promise is None
        assert private.promise is not None
        assert private.promise.epsilon == pytest.approx(2.0, abs=0.02)
        assert (plain.regime, private.regime) == ("plain", "private")

        with pytest.raises(ArgumentError, match="'regime' must be one of 'plain', 'private', got 'federated'"):
            attack_target.target(Request(run=folder, regime="federated"), STREAMS)

    def test_a_corpus_that_has_changed(self, table: Path, tmp_path: Path) -> None:
        held = asdict(assess.Request(data=str(table), seed=3)) | {"corpus": "another digest"}
        (tmp_path / "request.json").write_text(json.dumps(held))
        with pytest.raises(RunError, match="has changed since"):
            attack_target.target(Request(run=tmp_path), STREAMS)

    @pytest.mark.parametrize("content", [None, "{}"])
    def test_a_folder_of_something_else(self, tmp_path: Path, content: str | None) -> None:
        if content:
            (tmp_path / "request.json").write_text(content)
        with pytest.raises(RunError, match="holds no run of 'trustnlp assess'"):
            attack_target.target(Request(run=tmp_path), STREAMS)


def test_a_population_must_be_new(request_of: Request, tmp_path: Path) -> None:
    path = write(tmp_path / "others.csv", [*OTHERS, MEMBERS[0], NONMEMBERS[1]], "text", "label")
    with pytest.raises(GuaranteeError, match="2 texts of the population are members or non-members"):
        attack_target.target(replace(request_of, population=path), STREAMS)
