import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trustnlp.cli.app import app
from trustnlp.results import Results


@pytest.mark.usefixtures("hasty")
def test_a_model_is_trained_shown_and_reported(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    command = [
        "train",
        "--data",
        str(table),
        "--private",
        "--epsilon",
        "2",
        "--mechanism",
        "layerwise",
        "--out",
        str(run),
    ]
    monkeypatch.setattr(sys, "argv", ["trustnlp", *command])
    outcome = CliRunner().invoke(app, command, env={"COLUMNS": "200"})
    assert outcome.exit_code == 0, outcome.output
    assert "within budget" in outcome.stderr
    results = Results.load(run)
    assert results.run["regimes"]["private"]["statement"]["clipping"]["kind"] == "layerwise"
    assert (run / "report.html").exists()
