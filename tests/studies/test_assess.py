import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from safetensors.torch import load_file

from trustnlp import data
from trustnlp.dp import Ledger
from trustnlp.errors import ArgumentError, CorpusError, CorpusNotFoundError, RunError
from trustnlp.results import Direction, Finding, Results, Verdict
from trustnlp.studies import assess
from trustnlp.studies.regime import Trained

pytestmark = pytest.mark.usefixtures("hasty")

OF_A_MODEL = {
    "label-accuracy",
    "epsilon-ladder",
    "epsilon-lower-bound-one-run-approximate",
    "risk-by-label",
    "risk-by-length",
    "risk-by-activity",
    "risk-by-group",
    "membership-loss-auc",
    "membership-loss-tpr-at-1pct-fpr",
    "membership-loss-tpr-at-0-1pct-fpr",
    "membership-reference-auc",
    "membership-reference-tpr-at-1pct-fpr",
    "membership-reference-tpr-at-0-1pct-fpr",
    "canary-exposure",
    "canary-extraction-rate",
    "label-error-gap",
    "counterfactual-flip-rate",
}


def comparable(results: Results) -> dict[str, Any]:
    """Everything but timestamps and durations."""
    run = {name: value for name, value in results.run.items() if name not in ("created", "seconds")}
    return {"run": run, "findings": results.findings}


@pytest.fixture
def request_of(table: Path) -> assess.Request:
    return assess.Request(data=str(table), seed=3, epsilon=2.0)


def test_every_regime_is_measured_the_same_way(request_of: assess.Request, tmp_path: Path) -> None:
    results = assess.run(request_of, tmp_path / "run")
    ids = {regime: {f.id for f in results if f.regime == regime} for regime in ("", "plain", "private")}
    assert ids[""] == {"blind-classifier-auc"}
    assert ids["plain"] == OF_A_MODEL
    assert ids["private"] == OF_A_MODEL | {"epsilon"}
    for finding in results:
        bound = finding.id.startswith("epsilon")  # exact, or one end of an interval by itself
        assert bound or finding.low is not None or finding.verdict is Verdict.INSUFFICIENT_EVIDENCE, finding

    assert results.get("epsilon-ladder", "private").details["target"] == results.get("epsilon", "private").value
    spent = results.get("epsilon", "private")
    ledger = Ledger.read(tmp_path / "run/private/ledger.jsonl")
    assert spent.verdict is Verdict.WITHIN_BUDGET
    assert spent.value == pytest.approx(ledger.spent_epsilon())
    assert ledger.spent == ledger.plan.steps
    assert 1.98 < spent.value <= 2.0
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "results.json",
        "request.json",
        "log.txt",
        "plain",
        "private",
        "reference",
    }
    text = (tmp_path / "run/results.json").read_text()
    assert not any(example.text in text for example in data.load(request_of.data).train if len(example.text) > 8)

    again = assess.run(request_of, tmp_path / "again")
    assert comparable(again) == comparable(results)
    assert Results.load(tmp_path / "again").findings == results.findings


class StopError(Exception):
    """Ends a run somewhere in its middle."""


def test_an_interrupted_run_goes_on_with_the_same_results(request_of: assess.Request, tmp_path: Path) -> None:
    request_of = replace(request_of, regimes=("plain",))
    whole = assess.run(request_of, tmp_path / "whole")

    def stop(stage: str, done: int, total: int, figures: Any) -> None:
        if (stage, done) == ("plain training", total // 2 + 1):
            raise StopError

    with pytest.raises(StopError):
        assess.run(request_of, tmp_path / "cut", progress=stop)
    assert not (tmp_path / "cut/results.json").exists()
    stages = []
    resumed = assess.run(request_of, tmp_path / "cut", progress=lambda stage, done, *_: stages.append((stage, done)))
    assert comparable(resumed) == comparable(whole)
    assert ("reference training", 1) not in stages  # it had ended
    assert ("plain training", 1) not in stages  # its first epoch was kept
    first, second = (load_file(tmp_path / name / "plain/model.safetensors") for name in ("whole", "cut"))
    assert all((first[name] == second[name]).all() for name in first)


def test_the_seed_of_a_private_run_is_drawn_and_kept_out_of_its_results(table: Path, tmp_path: Path) -> None:
    request = assess.Request(data=str(table), regimes=("private",), epsilon=2.0)
    results = assess.run(request, tmp_path / "run", command="trustnlp assess")
    seed = json.loads((tmp_path / "run/request.json").read_text())["seed"]
    assert seed > 2**32
    assert str(seed) not in (tmp_path / "run/results.json").read_text()
    assert assess.run(request, tmp_path / "run").findings == results.findings  # the same command goes on


def test_another_request_in_the_same_folder_is_refused(request_of: assess.Request, tmp_path: Path) -> None:
    (tmp_path / "request.json").write_text(json.dumps({"data": "other"}))
    with pytest.raises(RunError, match="holds another run"):
        assess.run(request_of, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["request.json"]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"epsilon": 0.0}, ArgumentError, "'epsilon' must be a number > 0"),
        ({"regimes": ()}, ArgumentError, "'regimes' must be not empty"),
        (
            {"regimes": ("plain", "fair")},
            ArgumentError,
            "'regimes' must be one of 'plain', 'private', 'federated', 'federated-private', got 'fair'",
        ),
        ({"delta": 0.5, "regimes": ("private",)}, ArgumentError, "'delta' must be below 1/N"),
        ({"data": "snipps"}, CorpusNotFoundError, "snips"),
        ({"group": "dialect"}, Exception, "dialect"),
    ],
)
def test_a_request_that_cannot_be_met_says_so_and_writes_nothing(
    request_of: assess.Request, tmp_path: Path, changes: dict, error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        assess.run(replace(request_of, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_corpus_without_labels_is_refused(tmp_path: Path) -> None:
    (tmp_path / "novel.txt").write_text("\n".join(f"it was a dark night number {i}" for i in range(50)))
    with pytest.raises(CorpusError, match="neither labels nor tags"):
        assess.run(assess.Request(data=str(tmp_path / "novel.txt")), tmp_path / "run")


@pytest.mark.parametrize(
    ("text", "promised"),
    [
        ({}, 1.5),
        ({"text_epsilon": 4.0}, 4.0),
        ({"text_epsilon": math.inf}, None),
        ({"text_epsilon": None}, None),
    ],
)
def test_what_is_promised_to_users_is_less_to_their_texts(text: dict[str, float], promised: float | None) -> None:
    details = {"delta": 1e-5, **text}
    finding = Finding("epsilon", "", 1.5, n=1, direction=Direction.LOWER, details=details)
    found = assess._promise(Trained(cast(Any, None), {}, (finding,)))
    assert (found and found.epsilon) == promised
