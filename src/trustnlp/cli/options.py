"""Options that several commands have, with one wording and one meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Out = Annotated[Path, typer.Option(help="Folder of the run; the same command goes on in it.")]
Column = Annotated[
    list[str] | None,
    typer.Option(help="A column by role, where names are unusual: text=utterance.", metavar="ROLE=NAME"),
]
Limit = Annotated[int, typer.Option(help="Most texts to use; more are sampled.")]
Seed = Annotated[int | None, typer.Option(help="Same seed, same results; keep it secret. Default: drawn.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Start afresh over an earlier run in --out.")]
