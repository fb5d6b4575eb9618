from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from trustnlp.cli import report
from trustnlp.errors import RunError
from trustnlp.results import Finding, Results

app = typer.Typer()
app.command()(report.report)


def test_each_run_gets_its_report(tmp_path: Path) -> None:
    runs = [tmp_path / name for name in ("one", "two")]
    for run in runs:
        run.mkdir()
        Results({"corpus": {"name": run.name}}, (Finding("slot-f1", "F1", 0.5, regime="plain"),)).save(run)
    outcome = CliRunner().invoke(app, [str(run) for run in runs])
    assert outcome.exit_code == 0
    assert outcome.output.split() == [str(run / "report.html") for run in runs]
    for run in runs:
        assert f"<h1>{run.name}</h1>" in (run / "report.html").read_text(encoding="utf-8")


def test_a_results_file_may_be_given_itself(tmp_path: Path) -> None:
    path = Results({}, ()).save(tmp_path)
    assert CliRunner().invoke(app, [str(path)]).exit_code == 0
    assert (tmp_path / "report.html").exists()


def test_a_folder_without_results(tmp_path: Path) -> None:
    outcome = CliRunner().invoke(app, [str(tmp_path)])
    assert isinstance(outcome.exception, RunError)
    assert pytest.approx(0) == len(list(tmp_path.iterdir()))
