import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trustnlp import __version__
from trustnlp.cli import app as module
from trustnlp.cli import main
from trustnlp.errors import RunError


def ended(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit status of the command line with these arguments."""
    monkeypatch.setattr(sys, "argv", ["trustnlp", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("trustnlp.results.Results.load", fail)


GATE = ("gate", "run", "--policy", "policy.toml")


def test_help_lists_the_commands() -> None:
    shown = CliRunner().invoke(module.app, ["--help"])
    assert shown.exit_code == 0
    assert [line.split()[1] for line in shown.output.splitlines() if line[2:3].isalpha() and line[0] == "│"] == [
        "assess",
        "train",
        "federate",
        "study",
        "gate",
        "report",
        "attack",
        "data",
    ]


@pytest.mark.parametrize(
    "command",
    [
        ["assess"],
        ["train"],
        ["federate"],
        ["study"],
        ["gate"],
        ["report"],
        ["data"],
        ["data", "list"],
        ["data", "check"],
    ],
)
def test_every_command_has_help(command: list[str]) -> None:
    shown = CliRunner().invoke(module.app, [*command, "--help"])
    assert shown.exit_code == 0
    assert "Usage:" in shown.output


def test_without_a_command_the_help_is_shown() -> None:
    assert "Commands" in CliRunner().invoke(module.app, []).output


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"trustnlp {__version__}\n"


def test_an_error_is_one_line_on_stderr(tmp_path: Path) -> None:
    code = "from trustnlp.cli import main; main()"
    command = [sys.executable, "-c", code, "gate", str(tmp_path), "--policy", str(tmp_path / "policy.toml")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert (
        done.stderr == f"error: there is no {tmp_path}/results.json; give a folder that 'trustnlp assess' has written\n"
    )


def test_an_error_is_shown_as_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    failing(monkeypatch, RunError("label '[red]' is {odd}", "mend it"))
    assert ended(monkeypatch, *GATE) == 2
    assert capsys.readouterr().err == "error: label '[red]' is {odd}; mend it\n"


def test_ctrl_c_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    failing(monkeypatch, KeyboardInterrupt())
    assert ended(monkeypatch, *GATE) == 130
    assert capsys.readouterr().err == "interrupted; the same command without --overwrite goes on where it stopped\n"


def test_a_fault_of_ours_is_not_dressed_up_as_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, ZeroDivisionError())
    monkeypatch.setattr(sys, "argv", ["trustnlp", *GATE])
    with pytest.raises(ZeroDivisionError):
        main()


@pytest.mark.parametrize("status", [0, 1, 3])
def test_the_status_of_a_command_is_that_of_the_program(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    failing(monkeypatch, SystemExit(status))
    assert ended(monkeypatch, *GATE) == status


def test_a_misspelt_option_is_two(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(monkeypatch, "gate", "run", "--polcy", "x") == 2
    assert "--polcy" in capsys.readouterr().err


@pytest.mark.parametrize(("load", "policy"), [(0.1, None), (64.0, "PASSIVE")])
def test_threads_wait_quietly_where_others_use_the_cores(
    load: float, policy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")  # so that monkeypatch takes back whatever main sets
    monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))
    monkeypatch.setattr(sys, "argv", ["trustnlp", "--version"])
    with pytest.raises(SystemExit):
        main()
    assert os.environ.get("OMP_WAIT_POLICY") == policy
