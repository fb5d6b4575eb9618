"""The `trustnlp` command: its subcommands, and how errors are shown."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from trustnlp import __version__
from trustnlp.cli import assess, attack, data, federate, gate, report, study, train
from trustnlp.errors import TrustnlpError

app = typer.Typer(
    name="trustnlp",
    help="Train language models on people's text privately, federated and fairly, and prove it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(assess.assess)
app.command()(train.train)
app.command()(federate.federate)
app.command()(study.study)
app.command()(gate.gate)
app.command()(report.report)
app.add_typer(attack.app, name="attack")
app.add_typer(data.app, name="data")

_INTERRUPTED = 130  # what Typer makes of Ctrl-C


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"trustnlp {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    pass


def _busy() -> bool:
    """Whether others use all cores: threads that wait by spinning, the faster way on idle cores, then stall."""
    return hasattr(os, "getloadavg") and os.getloadavg()[0] > (os.cpu_count() or 1)


def main() -> None:
    """Runs the command line; a trustnlp error is one line on stderr and exit status 2, Ctrl-C is 130."""
    if _busy():
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before PyTorch starts its threads
    try:
        app()
    except TrustnlpError as error:
        typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
        sys.exit(2)
    except SystemExit as end:
        if end.code == _INTERRUPTED:
            typer.secho("interrupted; the same command without --overwrite goes on where it stopped", err=True)
        raise
