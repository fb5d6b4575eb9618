"""Every command that fills a folder has these options, worded alike."""

import pytest
from typer.testing import CliRunner

from trustnlp.cli.app import app

COMMANDS = [["assess"], ["train"], ["federate"], ["attack", "membership"]]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_shared_options_are_worded_alike(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = " ".join(CliRunner().invoke(app, [*command, "--help"]).output.split())
    for words in (
        "Folder of the run; the same command goes on in it.",
        "A column by role, where names are unusual: text=utterance.",
        "Same seed, same results; keep it secret. Default: drawn.",
        "cpu, cuda or cuda:N.",
        "Start afresh over an earlier run in --out.",
    ):
        assert words in shown
