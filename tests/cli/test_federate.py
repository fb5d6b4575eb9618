import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trustnlp.cli.app import app
from trustnlp.errors import ArgumentError
from trustnlp.results import Results


def test_a_federated_training_from_the_command_line(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    asked = [
        "--data",
        str(table),
        "--partition",
        "user",
        "--select",
        "activity:gamma=0.5",
        "--algorithm",
        "fedprox:mu=0.1",
    ]
    small = ["--rounds", "2", "--cohort", "3", "--local", "rate=1,batch_size=8", "--seed", "1"]
    monkeypatch.setattr(sys, "argv", ["trustnlp", "federate", *asked, *small, "--out", str(out)])
    outcome = CliRunner().invoke(app, sys.argv[1:])
    assert outcome.exit_code == 0, outcome.output
    assert "Label accuracy" in outcome.stderr
    assert "tenth of devices served" in outcome.stderr
    assert (out / "report.html").exists()
    results = Results.load(out)
    assert results.run["command"].startswith("trustnlp federate --data")
    assert results.run["regimes"]["federated"]["algorithm"] == "fedprox:mu=0.1"


def test_a_wrong_partition_is_told() -> None:
    outcome = CliRunner().invoke(app, ["federate", "--partition", "colour", "--out", "nowhere"])
    assert isinstance(outcome.exception, ArgumentError)
    assert "'partition' must be one of" in str(outcome.exception)
    assert not Path("nowhere").exists()
