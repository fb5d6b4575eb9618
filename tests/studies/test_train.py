from pathlib import Path

import pytest

from trustnlp import models
from trustnlp.dp import Ledger
from trustnlp.errors import ArgumentError
from trustnlp.results import Verdict
from trustnlp.studies import train

pytestmark = pytest.mark.usefixtures("hasty")


@pytest.mark.parametrize("mechanism", ["exact", "automatic", "layerwise"])
def test_a_private_training_leaves_model_ledger_and_findings(mechanism: str, table: Path, tmp_path: Path) -> None:
    request = train.Request(str(table), private=True, epsilon=2.0, mechanism=mechanism)
    results = train.run(request, tmp_path / "run")
    assert {finding.id for finding in results} == {"label-accuracy", "epsilon"}
    assert results.get("epsilon", "private").verdict is Verdict.WITHIN_BUDGET
    ledger = Ledger.read(tmp_path / "run" / "private" / "ledger.jsonl")
    assert ledger.spent == ledger.plan.steps
    assert ledger.plan.clipping.kind == ("flat" if mechanism == "exact" else mechanism)
    models.load(tmp_path / "run" / "private")
    assert results.run["seed"] is None  # noise is drawn from it


def test_a_plain_training_has_no_budget_and_goes_on_where_it_stopped(table: Path, tmp_path: Path) -> None:
    request = train.Request(str(table), seed=3)
    results = train.run(request, tmp_path / "run")
    assert {finding.id for finding in results} == {"label-accuracy"}
    assert results.run["seed"] == 3
    assert train.run(request, tmp_path / "run").findings == results.findings


@pytest.mark.parametrize(("name", "value"), [("epsilon", 0), ("mechanism", "magic"), ("limit", 0)])
def test_bad_requests_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ArgumentError, match=name):
        train.Request(**{name: value})


def test_a_delta_that_is_too_large_is_refused_before_anything_is_written(table: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="delta"):
        train.run(train.Request(str(table), private=True, delta=0.1), tmp_path / "run")
    assert not (tmp_path / "run").exists()
