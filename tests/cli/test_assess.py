import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from trustnlp.cli.app import app
from trustnlp.data import load
from trustnlp.errors import ArgumentError
from trustnlp.results import Results
from trustnlp.studies import assess as study
from trustnlp.studies import audit


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    monkeypatch.setattr(sys, "argv", ["trustnlp", *arguments])
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


def reported(outcome: Result) -> Path:
    """The path that the last line names."""
    assert outcome.exit_code == 0, outcome.output
    return Path(re.fullmatch(r"report +(.+)", outcome.stderr.splitlines()[-1])[1])


@pytest.mark.usefixtures("hasty")
def test_a_corpus_is_trained_on_attacked_reported_and_gated(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run [red]"
    command = ("assess", "--data", str(table), "--out", str(run), "--seed", "7", "--epsilon", "2", "--quick")
    outcome = call(monkeypatch, *command)
    assert reported(outcome) == run / "report.html"
    assert "<h1>tickets</h1>" in (run / "report.html").read_text(encoding="utf-8")

    lines = outcome.stderr.splitlines()
    stages = [line.split("  ")[1] for line in lines if re.search(r"\d+/\d+", line)]
    assert stages == [
        "reference training",
        "plain training",
        "plain canaries",
        "private training",
        "private canaries",
    ]
    results = Results.load(run)
    assert all(any(line.startswith(finding.title[:30]) for line in lines) for finding in results)
    assert results.run["seed"] is None  # a private run's noise is drawn from it
    assert "--seed 7" not in results.run["command"]

    policy = tmp_path / "policy.toml"
    for ceiling, status, said in (("2.0", 0, "gate open"), ("1.0", 1, "gate closed")):
        policy.write_text(f'[[rule]]\nfinding = "epsilon"\nregime = "private"\nceiling = {ceiling}\n')
        gated = call(monkeypatch, "gate", str(run), "--policy", str(policy))
        assert gated.exit_code == status
        assert said in gated.output


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list:
    """What the studies are asked for, instead of doing it."""
    found: list = []

    def hear(request: object, out: Path, **more: object) -> Results:
        found.append((request, out, more))
        return Results({"corpus": {"name": "c"}}, ())

    for module in (study, audit):
        monkeypatch.setattr(module, "run", hear)
    return found


def test_options_become_the_request(asked: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["trustnlp", "assess"])
    options = {
        "--data": "snips",
        "--model": "transformer",
        "--regimes": "private, plain",
        "--epsilon": "2.5",
        "--delta": "1e-6",
        "--mechanism": "automatic",
        "--group": "sex",
        "--limit": "99",
        "--seed": "3",
        "--device": "cuda:1",
        "--out": str(tmp_path),
    }
    flat = [part for pair in options.items() for part in pair]
    outcome = CliRunner().invoke(app, ["assess", *flat, "--quick", "--overwrite"])
    assert outcome.exit_code == 0, outcome.output
    ((request, out, more),) = asked
    assert request == study.Request(
        "snips", "transformer", ("private", "plain"), 2.5, 1e-6, "automatic", "sex", 99, 3, quick=True, device="cuda:1"
    )
    assert (out, more["overwrite"], more["command"]) == (tmp_path, True, "trustnlp assess")


def test_the_defaults_are_those_of_the_request(asked: list, tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["assess", "--out", str(tmp_path)]).exit_code == 0
    assert asked[0][0] == study.Request()


def test_two_files_ask_for_an_audit(asked: list, tmp_path: Path) -> None:
    files = ["--members", "in.csv", "--nonmembers", "out.csv", "--model", "checkpoint", "--seed", "4"]
    assert CliRunner().invoke(app, ["assess", *files, "--out", str(tmp_path)]).exit_code == 0
    assert asked[0][0] == audit.Request("checkpoint", Path("in.csv"), Path("out.csv"), seed=4)


@pytest.mark.parametrize("given", ["--members", "--nonmembers"])
def test_one_file_alone_is_refused(tmp_path: Path, given: str) -> None:
    outcome = CliRunner().invoke(app, ["assess", given, "in.csv", "--out", str(tmp_path / "run")])
    assert isinstance(outcome.exception, ArgumentError)
    assert "members' must be given" in str(outcome.exception)
    assert not (tmp_path / "run").exists()


def test_a_folder_is_asked_for() -> None:
    outcome = CliRunner().invoke(app, ["assess"])
    assert outcome.exit_code == 2
    assert "--out" in outcome.stderr


def test_columns_are_named_by_role(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renamed = tmp_path / "odd.csv"
    renamed.write_text(table.read_text().replace("text,label,user,group", "what_was_said,label,user,group", 1))
    asked = {}
    monkeypatch.setattr(study, "run", lambda request, out, **_: asked.update(request=request) or Results({}, ()))
    outcome = call(
        monkeypatch, "assess", "--data", str(renamed), "--out", str(tmp_path), "--column", "text=what_was_said"
    )
    assert outcome.exit_code == 0, outcome.output
    assert asked["request"].columns == {"text": "what_was_said"}
    assert load(renamed, columns=asked["request"].columns).labels == ("alarm", "music", "phone")
