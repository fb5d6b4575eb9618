"""`trustnlp assess`: one corpus, one model, all asked regimes, one report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trustnlp.cli.data import column_option
from trustnlp.cli.options import Column, Device, Limit, Out, Overwrite, Seed
from trustnlp.cli.running import carry_out
from trustnlp.errors import ArgumentError

_TRAIN = "Train and assess"
_AUDIT = "Audit an existing checkpoint instead"


def assess(
    out: Out,
    data: Annotated[
        str | None,
        typer.Option(
            help="Corpus: a name ('trustnlp data list') or a path. Default: synthetic.", rich_help_panel=_TRAIN
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(help="bilstm, transformer, minilm, or a Hugging Face path or name.", rich_help_panel=_TRAIN)
    ] = "bilstm",
    regimes: Annotated[
        str, typer.Option(help="What to train, comma-separated: plain, private.", rich_help_panel=_TRAIN)
    ] = "plain,private",
    epsilon: Annotated[float, typer.Option(help="Budget of private regimes.", rich_help_panel=_TRAIN)] = 8.0,
    delta: Annotated[
        float | None, typer.Option(help="Below 1/N; default: 1/N^1.1, at most 1e-5.", rich_help_panel=_TRAIN)
    ] = None,
    mechanism: Annotated[
        str,
        typer.Option(
            help="How private regimes bound gradients: exact, automatic, layerwise or microbatch.",
            rich_help_panel=_TRAIN,
        ),
    ] = "exact",
    group: Annotated[
        str | None,
        typer.Option(help="Groups to compare: a column of the data, or 'length'.", rich_help_panel=_TRAIN),
    ] = None,
    column: Column = None,
    limit: Limit = 200_000,
    members: Annotated[
        Path | None, typer.Option(help="Texts that --model was trained on.", rich_help_panel=_AUDIT)
    ] = None,
    nonmembers: Annotated[
        Path | None, typer.Option(help="Like texts that it was not trained on.", rich_help_panel=_AUDIT)
    ] = None,
    seed: Seed = None,
    quick: Annotated[bool, typer.Option("--quick", help="Less data and fewer epochs: a first look.")] = False,
    device: Device = "cpu",
    overwrite: Overwrite = False,
) -> None:
    """Train a model on a corpus under each regime, attack it, measure its fairness, and write one report.

    With --members and --nonmembers, an existing Hugging Face checkpoint is audited and nothing is trained.
    """
    from trustnlp.studies import assess as study
    from trustnlp.studies import audit

    columns = dict(column_option(each) for each in column or ())
    if members is None and nonmembers is None:
        request = study.Request(
            data=data or "synthetic",
            model=model,
            regimes=tuple(name.strip() for name in regimes.split(",")),
            epsilon=epsilon,
            delta=delta,
            mechanism=mechanism,
            group=group,
            limit=limit,
            seed=seed,
            quick=quick,
            device=device,
            columns=columns,
        )
        carry_out(study.run, request, out, overwrite=overwrite)
        return
    if data is not None:
        raise ArgumentError("data", "left out of an audit", data, "an audit reads --members and --nonmembers")
    asked = audit.Request(
        model=model,
        members=members,
        nonmembers=nonmembers,
        group=group,
        limit=limit,
        seed=seed,
        device=device,
        columns=columns,
    )
    carry_out(audit.run, asked, out, overwrite=overwrite)
