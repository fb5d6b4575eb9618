import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trustnlp.cli.app import app
from trustnlp.cli.study import names
from trustnlp.errors import ArgumentError
from trustnlp.results import Finding, Results
from trustnlp.studies import catalogue
from trustnlp.studies.study import Study, verdict


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str):
    monkeypatch.setattr(sys, "argv", ["trustnlp", *arguments])
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


def measure(request, cells, progress):
    cell = {"corpus": ",".join(request.data), "mechanism": "exact", "epsilon": "1"}
    found = cells.measure(cell, lambda path: [Finding("label-accuracy", "Accuracy", 0.25, 0.2, 0.3)])
    return [verdict("Largest gap", True, value=0.5), *found]


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    axes = {"panel": ("corpus",), "rows": ("mechanism",), "columns": ("epsilon",)}
    monkeypatch.setattr(catalogue, "STUDIES", {"small": Study("small", "S0", "Said so.", axes, measure)})


def test_a_study_is_run_shown_and_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    outcome = call(monkeypatch, "study", "small", "--data", "a, b", "--quick", "--out", str(tmp_path / "run"))
    assert outcome.exit_code == 0, outcome.output
    assert "25.0% (20.0% to 30.0%)" in outcome.stderr
    assert "Largest gap  50.0%  reproduced" in outcome.stderr.replace("   ", "  ")
    results = Results.load(tmp_path / "run")
    assert results.get("label-accuracy", "a,b, exact, 1").value == 0.25
    assert "<h1>Small</h1>" in (tmp_path / "run" / "report.html").read_text()


def test_studies_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = call(monkeypatch, "study", "list")
    assert outcome.output.splitlines()[-2].split() == ["small", "S0", "Said", "so."]


@pytest.mark.parametrize(("arguments", "named"), [(["unknown", "--out", "x"], "study"), (["small"], "out")])
def test_bad_calls_are_refused_by_name(monkeypatch: pytest.MonkeyPatch, arguments: list[str], named: str) -> None:
    outcome = call(monkeypatch, "study", *arguments)
    assert isinstance(outcome.exception, ArgumentError)
    assert named in str(outcome.exception)


def test_names_are_separated_by_commas() -> None:
    assert names(" snips ,atis,") == ("snips", "atis")
    assert names("") == ()
