"""`trustnlp study`: put a claim of the literature to the test on public corpora."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trustnlp.cli.options import Device, Overwrite
from trustnlp.cli.running import carry_out


def study(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Which study; 'list' names them all.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the run; the same command goes on in it.")] = None,
    data: Annotated[str, typer.Option(help="Corpora, comma-separated; default: the study's own.")] = "",
    model: Annotated[str, typer.Option(help="Models, comma-separated; default: the study's own.")] = "",
    seed: Annotated[int, typer.Option(help="Same seed, same results.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="At most ten minutes: fewer texts and cells.")] = False,
    device: Device = "cpu",
    overwrite: Overwrite = False,
) -> None:
    """Put a claim of the literature to the test; the verdict is reproduced, not reproduced or insufficient evidence."""
    if name == "list":
        _list()
        return
    from trustnlp import checks
    from trustnlp.errors import ArgumentError
    from trustnlp.studies.catalogue import STUDIES
    from trustnlp.studies.study import Request

    chosen = STUDIES[checks.one_of("study", name, tuple(STUDIES))]
    if out is None:
        raise ArgumentError("out", "a folder for the run", None)
    carry_out(chosen.run, Request(names(data), names(model), quick, seed, device), out, overwrite=overwrite)


def names(text: str) -> tuple[str, ...]:
    """The entries of a comma-separated list; none for an empty one."""
    return tuple(entry.strip() for entry in text.split(",") if entry.strip())


def _list() -> None:
    from rich.console import Console
    from rich.table import Table

    from trustnlp.studies.catalogue import STUDIES

    table = Table("name", "of", "claim", box=None, padding=(0, 2, 1, 0))
    for study in STUDIES.values():
        table.add_row(study.name, study.system, study.claim)
    Console().print(table)
