"""`trustnlp train`: a model on a corpus, plain or private."""

from __future__ import annotations

from typing import Annotated

import typer

from trustnlp.cli.data import column_option
from trustnlp.cli.options import Column, Device, Limit, Out, Overwrite, Seed
from trustnlp.cli.running import carry_out

_PRIVATE = "Private training"


def train(
    out: Out,
    data: Annotated[str, typer.Option(help="Corpus: a name ('trustnlp data list') or a path.")] = "synthetic",
    model: Annotated[str, typer.Option(help="bilstm, transformer, minilm, or a Hugging Face path or name.")] = "bilstm",
    private: Annotated[bool, typer.Option("--private", help="Spend a budget.", rich_help_panel=_PRIVATE)] = False,
    epsilon: Annotated[float, typer.Option(help="The budget.", rich_help_panel=_PRIVATE)] = 8.0,
    delta: Annotated[
        float | None, typer.Option(help="Below 1/N; default: 1/N^1.1, at most 1e-5.", rich_help_panel=_PRIVATE)
    ] = None,
    mechanism: Annotated[
        str,
        typer.Option(
            help="How gradients are bounded: exact, automatic, layerwise or microbatch.", rich_help_panel=_PRIVATE
        ),
    ] = "exact",
    column: Column = None,
    limit: Limit = 200_000,
    seed: Seed = None,
    quick: Annotated[bool, typer.Option("--quick", help="Less data and fewer epochs: a first look.")] = False,
    device: Device = "cpu",
    overwrite: Overwrite = False,
) -> None:
    """Train a model on a corpus, privately if asked; the model and the ledger stay in the folder."""
    from trustnlp.studies import train as study

    request = study.Request(
        data=data,
        model=model,
        private=private,
        epsilon=epsilon,
        delta=delta,
        mechanism=mechanism,
        limit=limit,
        seed=seed,
        quick=quick,
        device=device,
        columns=dict(column_option(each) for each in column or ()),
    )
    carry_out(study.run, request, out, overwrite=overwrite)
