"""Any corpus on devices: what is held out, who is served, what is refused, and going on."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trustnlp import models
from trustnlp.errors import ArgumentError, GuaranteeError, RunError
from trustnlp.federated import private_rounds
from trustnlp.randomness import Streams
from trustnlp.studies import federate
from trustnlp.studies.federate import Request

SERVED = {
    "accuracy-by-activity-decile",
    "accuracy-light-half",
    "accuracy-heavy-half",
    "accuracy-half-gap",
    "accuracy-per-device",
    "accuracy-worst-tenth-of-devices",
}


@pytest.fixture
def request_of(table: Path) -> Request:
    return Request(
        str(table), partition="user", rounds=3, cohort=4, local="rate=1,batch_size=8", conditions="dropout=0.2", seed=1
    )


def test_what_the_model_can_do_and_whom_it_serves(request_of: Request, tmp_path: Path) -> None:
    results = federate.run(request_of, tmp_path / "run")
    found = {finding.id for finding in results}
    assert found == {"partition", "label-accuracy", "accuracy-by-group"} | SERVED
    facts = results.run["regimes"]["federated"]
    assert facts["devices"]["spread"].startswith("user: ")
    assert facts["texts_processed"] > 0
    assert models.load(tmp_path / "run" / "federated").schema.labels == ("alarm", "music", "phone")


def test_a_fifth_of_each_device_is_held_out_and_never_trained_on(request_of: Request, tmp_path: Path) -> None:
    corpus = federate._load(request_of)
    prepared = federate.prepare(request_of, corpus, Streams(0))
    trained = np.concatenate(prepared.kept)
    assert not set(trained) & set(prepared.held_out)
    assert len(trained) + len(prepared.held_out) == len(corpus.train)
    for device, own in enumerate(prepared.partition.devices):
        assert (prepared.held_by == device).sum() == len(own) // 5
        held = prepared.held_out[prepared.held_by == device]
        assert set(held) | set(prepared.kept[device]) == set(own)


@pytest.mark.parametrize("algorithm", ["lora-merged:rank=2", "lora-averaged:rank=2,trained=label_head.*+slot_head.*"])
def test_adapters_by_name(algorithm: str, request_of: Request, tmp_path: Path) -> None:
    asked = replace(request_of, algorithm=algorithm, model="transformer", rounds=1)
    results = federate.run(asked, tmp_path / "run")
    assert results.run["regimes"]["federated"]["algorithm"] == algorithm
    assert models.load(tmp_path / "run" / "federated").schema.labels == ("alarm", "music", "phone")


def test_devices_are_evaluated_by_one_noised_sum_and_nothing_else_tells_of_them(
    request_of: Request, tmp_path: Path
) -> None:
    asked = replace(request_of, epsilon=8.0, evaluate_epsilon=2.0, conditions="")
    results = federate.run(asked, tmp_path / "run")
    assert {finding.id for finding in results} == {
        "epsilon",
        "label-accuracy",
        "on-device-label-accuracy",
        "on-device-label-accuracy-by-activity",
    }
    spent = results.get("epsilon", "federated-private")
    assert 8 < (spent.value or 0) <= 10 == spent.details["target"]
    told = results.get("on-device-label-accuracy", "federated-private")
    assert told.details["privacy"]["epsilon"] <= 2


def test_a_budget_for_users(request_of: Request, tmp_path: Path) -> None:
    asked = replace(request_of, epsilon=8.0, conditions="")
    results = federate.run(asked, tmp_path / "run")
    found = results.get("epsilon", "federated-private")
    assert 7.9 < (found.value or 0) <= 8
    facts = results.run["regimes"]["federated-private"]
    assert "problems" not in facts  # figures of private texts that nothing has noised
    assert results.run["seed"] is None
    ledger = private_rounds.read_ledger(tmp_path / "run" / "federated-private" / "ledger.jsonl")
    assert (ledger.spent, ledger.spent_epsilon()) == (3, found.value)
    assert federate.run(asked, tmp_path / "run").findings == results.findings  # and nothing more is spent
    assert private_rounds.read_ledger(tmp_path / "run" / "federated-private" / "ledger.jsonl").spent == 3


@pytest.mark.parametrize(
    ("rows", "columns", "figure"),
    [
        (
            [{"text": f"good day number {i}", "reply": f"day {i} to you"} for i in range(40)],
            {"target": "reply"},
            "rouge_l",
        ),
        ([{"text": f"it is {i} past noon and all is well"} for i in range(40)], {}, "score"),
    ],
)
def test_other_tasks(
    rows: list[dict[str, str]], columns: dict[str, Any], figure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    build = federate.tasks.build
    monkeypatch.setattr(federate.tasks, "build", lambda *given, **more: build(*given, **more, width=8))
    asked = Request(str(path), devices=5, rounds=1, cohort=2, local="rate=0.1,steps=1", seed=0, columns=columns)
    results = federate.run(asked, tmp_path / "run")
    found = results.get("test-loss", "federated")
    assert found.low is not None
    assert found.low <= (found.value or 0) <= (found.high or 0)
    assert figure in found.details["figures"]
    assert any(finding.id.startswith("loss-") for finding in results)


def test_it_goes_on_where_it_stopped_whatever_the_workers(request_of: Request, tmp_path: Path) -> None:
    def stop(stage: str, done: int, *_: Any) -> None:
        if done == 2:
            raise KeyboardInterrupt

    whole = federate.run(request_of, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        federate.run(request_of, tmp_path / "cut", progress=stop)
    resumed = federate.run(replace(request_of, workers=2), tmp_path / "cut")
    assert resumed.findings == whole.findings
    with pytest.raises(RunError, match="holds another run"):
        federate.run(replace(request_of, rounds=4), tmp_path / "cut")


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"partition": "label"}, ArgumentError, "with alpha"),
        ({"partition": "iid"}, ArgumentError, "'devices'"),
        ({"algorithm": "sgd"}, ArgumentError, "'algorithm' must be one of"),
        ({"select": "best"}, ArgumentError, "'selection' must be one of"),
        ({"local": "speed=9"}, ArgumentError, "'option of local' must be one of"),
        ({"epsilon": 8.0, "select": "activity"}, ArgumentError, "'select' must be uniform or poisson-activity"),
        ({"epsilon": 8.0, "algorithm": "scaffold"}, GuaranteeError, "sends control beside the change"),
        ({"epsilon": 8.0, "algorithm": "lora-averaged:rank=2"}, GuaranteeError, "sends product beside the change"),
        ({"algorithm": "lora-merged:rank=900"}, ArgumentError, "'rank' must be at most"),
        ({"evaluate_epsilon": 0.0}, ArgumentError, "'evaluate_epsilon' must be a number > 0"),
        ({"epsilon": 0.0}, ArgumentError, "'epsilon' must be a number > 0"),
    ],
)
def test_what_cannot_be_done_is_refused_and_leaves_nothing(
    request_of: Request, wrong: dict[str, Any], error: type[Exception], said: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        federate.run(replace(request_of, **wrong), tmp_path / "run")
    assert not (tmp_path / "run" / "results.json").exists()


def test_the_how_to_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs/how-to/train-on-devices.md").read_text()
    (script,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(script, "the how-to", "exec"), {})  # noqa: S102
    assert "differential privacy for one device with all its texts" in capsys.readouterr().out
