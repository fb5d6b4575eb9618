"""What the commands that fill a folder share: live progress, the recorded command line, and what is shown."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from trustnlp.results import Results


def recorded_command(arguments: Sequence[str]) -> str:
    """The command line without where it writes, so that equal runs have equal records."""
    kept, skip = ["trustnlp"], False
    for argument in arguments:
        if not skip and argument not in ("--out", "--overwrite") and not argument.startswith("--out="):
            kept.append(argument)
        skip = argument == "--out"
    return shlex.join(kept)


def carry_out(
    run: Callable[..., Results],
    request: Any,
    out: Path,
    *,
    overwrite: bool,
    shown: Callable[[Console, Results, Path], None] | None = None,
) -> None:
    """Fills the folder by the `run` of a study, with live progress on standard error, and shows what was found."""
    from rich.console import Console

    from trustnlp.cli.live import LiveProgress

    console = Console(stderr=True)
    with LiveProgress(console) as progress:
        results = run(request, out, progress=progress, overwrite=overwrite, command=recorded_command(sys.argv[1:]))
    (shown or show)(console, results, out)


def show(console: Console, results: Results, out: Path) -> None:
    """Writes the report, and shows every finding and where the report is."""
    from rich.text import Text

    from trustnlp import report
    from trustnlp.cli.tables import tables

    path = report.write(out, results)
    for table in tables(results):
        console.print(table)
    console.print(Text.assemble("report    ", (str(path), "bold")), soft_wrap=True)
