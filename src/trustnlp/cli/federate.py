"""`trustnlp federate`: a model learns from texts that stay on their devices."""

from __future__ import annotations

from typing import Annotated

import typer

from trustnlp.cli.data import column_option
from trustnlp.cli.options import Column, Device, Limit, Out, Overwrite, Seed
from trustnlp.cli.running import carry_out

_DEVICES = "Devices"
_TRAINING = "Training"
_PRIVATE = "Privacy of each device with all its texts"


def federate(
    out: Out,
    data: Annotated[str, typer.Option(help="Corpus: a name ('trustnlp data list') or a path.")] = "synthetic",
    model: Annotated[
        str, typer.Option(help="bilstm, transformer, minilm, a Hugging Face path or name. Default: small, by the task.")
    ] = "",
    partition: Annotated[
        str,
        typer.Option(
            help="iid, label:alpha=0.5, quantity:beta=1, activity:exponent=1, cluster:clusters=10,alpha=0.5, user, "
            "time:periods=4.",
            rich_help_panel=_DEVICES,
        ),
    ] = "iid",
    devices: Annotated[
        int | None, typer.Option(help="How many; users and times know it themselves.", rich_help_panel=_DEVICES)
    ] = None,
    select: Annotated[
        str,
        typer.Option(
            help="Who takes part: uniform, activity:gamma=1, log, top-k, oort, power-of-choice:d=30, poisson-activity.",
            rich_help_panel=_DEVICES,
        ),
    ] = "uniform",
    conditions: Annotated[
        str, typer.Option(help="Such as dropout=0.3,deadline=60,availability=0.5.", rich_help_panel=_DEVICES)
    ] = "",
    algorithm: Annotated[
        str,
        typer.Option(
            help="fedavg, fedprox:mu=0.1, fedopt:optimiser=adam, scaffold, fednova, feddyn:alpha=0.1, moon:mu=1, "
            "fedbuff:buffer=10 (asynchronous); adapters of low rank: lora-averaged:rank=8, lora-frozen, lora-merged, "
            "lora-projected.",
            rich_help_panel=_TRAINING,
        ),
    ] = "fedavg",
    rounds: Annotated[int, typer.Option(help="How many.", rich_help_panel=_TRAINING)] = 100,
    cohort: Annotated[int, typer.Option(help="Devices of a round.", rich_help_panel=_TRAINING)] = 10,
    local: Annotated[
        str, typer.Option(help="Such as rate=1,batch_size=16,epochs=1,momentum=0.9.", rich_help_panel=_TRAINING)
    ] = "rate=1.0,clip_grad_norm=5",
    epsilon: Annotated[
        float | None, typer.Option(help="The budget; without it nothing is spent.", rich_help_panel=_PRIVATE)
    ] = None,
    delta: Annotated[
        float | None, typer.Option(help="Below 1/K; default: 1/K^1.1, at most 0.001.", rich_help_panel=_PRIVATE)
    ] = None,
    clip_norm: Annotated[float, typer.Option(help="Of a device's change.", rich_help_panel=_PRIVATE)] = 0.3,
    evaluate_privately: Annotated[
        float | None,
        typer.Option(
            metavar="EPSILON",
            help="Tell how the model does on devices by one noised sum of this budget, and no exact figure of devices.",
            rich_help_panel=_PRIVATE,
        ),
    ] = None,
    column: Column = None,
    limit: Limit = 200_000,
    workers: Annotated[int, typer.Option(help="Processes; no result depends on it.")] = 1,
    seed: Seed = None,
    quick: Annotated[bool, typer.Option("--quick", help="Less data: a first look.")] = False,
    device: Device = "cpu",
    overwrite: Overwrite = False,
) -> None:
    """Train a model on devices; tell what it can do and whom it serves, by activity, group and device."""
    from trustnlp.studies import federate as study

    request = study.Request(
        data=data,
        model=model,
        partition=partition,
        devices=devices,
        select=select,
        algorithm=algorithm,
        rounds=rounds,
        cohort=cohort,
        local=local,
        conditions=conditions,
        epsilon=epsilon,
        delta=delta,
        clip_norm=clip_norm,
        evaluate_epsilon=evaluate_privately,
        workers=workers,
        limit=limit,
        seed=seed,
        quick=quick,
        device=device,
        columns=dict(column_option(each) for each in column or ()),
    )
    carry_out(study.run, request, out, overwrite=overwrite)
