"""`trustnlp attack`: what a model of anybody's making reveals, and whether the private engine keeps its promise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trustnlp.cli.data import column_option
from trustnlp.cli.options import Column, Device, Out, Overwrite, Seed
from trustnlp.cli.running import carry_out

if TYPE_CHECKING:
    from rich.console import Console

    from trustnlp.results import Results

app = typer.Typer(help="Attack a model, or audit the private engine.", no_args_is_help=True)

_TEXTS = "A model and its texts"
_RUN = "Or a model of an assess run"
_ATTACKER = "What the attacker has beside"
_PROMISE = "What was promised (default: what ledger.jsonl beside the model says)"

Model = Annotated[str, typer.Option(help="A Hugging Face path or name, or a folder of ours.", rich_help_panel=_TEXTS)]
Run = Annotated[Path | None, typer.Option(help="Its folder; texts are held out as then.", rich_help_panel=_RUN)]
Regime = Annotated[str, typer.Option(help="Which model of that run.", rich_help_panel=_RUN)]


@app.command()
def membership(
    out: Out,
    model: Model = "",
    members: Annotated[
        Path | None, typer.Option(help="File of texts that it was trained on.", rich_help_panel=_TEXTS)
    ] = None,
    nonmembers: Annotated[
        Path | None,
        typer.Option(help="File of texts from the same source that it was not trained on.", rich_help_panel=_TEXTS),
    ] = None,
    run: Run = None,
    regime: Regime = "plain",
    reference: Annotated[
        list[str] | None,
        typer.Option(help="A model that saw neither side; may be given again.", rich_help_panel=_ATTACKER),
    ] = None,
    shadows: Annotated[
        int,
        typer.Option(
            help="How many models to train on random halves: even, from 6; 16 is usual.", rich_help_panel=_ATTACKER
        ),
    ] = 0,
    shadow_model: Annotated[
        str | None,
        typer.Option(
            help="What they are: bilstm, transformer, minilm, a path or name. Default: what the model is.",
            rich_help_panel=_ATTACKER,
        ),
    ] = None,
    population: Annotated[
        Path | None,
        typer.Option(
            help="File of texts that no model saw: for RMIA, neighbourhood, ReCaLL.", rich_help_panel=_ATTACKER
        ),
    ] = None,
    epsilon: Annotated[float | None, typer.Option(help="With --delta.", rich_help_panel=_PROMISE)] = None,
    delta: Annotated[float | None, typer.Option(help="With --epsilon.", rich_help_panel=_PROMISE)] = None,
    fpr: Annotated[
        float | None, typer.Option(help="Refuse fewer non-members than resolve this false-alarm rate, such as 0.01.")
    ] = None,
    column: Column = None,
    group: Annotated[str | None, typer.Option(help="Groups to tell the risk of: a column, or 'length'.")] = None,
    limit: Annotated[int, typer.Option(help="Most texts of each file to use; more are sampled.")] = 200_000,
    seed: Seed = None,
    device: Device = "cpu",
    overwrite: Overwrite = False,
) -> None:
    """Tell the texts that a model was trained on from others, by every attack that it allows, and write one report.

    Before anything is believed, a classifier that never sees the model must fail to tell the two files apart.
    """
    from trustnlp.studies import attack_membership as study

    request = study.Request(
        model=model,
        members=members,
        nonmembers=nonmembers,
        run=run,
        regime=regime,
        references=tuple(reference or ()),
        shadows=shadows,
        shadow_model=shadow_model,
        population=population,
        fpr=fpr,
        epsilon=epsilon,
        delta=delta,
        group=group,
        limit=limit,
        seed=seed,
        device=device,
        columns=dict(column_option(each) for each in column or ()),
    )
    carry_out(study.run, request, out, overwrite=overwrite, shown=_show)


@app.command()
def canaries(
    out: Out,
    model: Model = "",
    canaries: Annotated[
        Path | None,
        typer.Option(help="JSON lines of what was planted: prefix, secret, label, …", rich_help_panel=_TEXTS),
    ] = None,
    run: Run = None,
    regime: Regime = "plain",
    invert: Annotated[bool, typer.Option(help="Read secrets out by gradients, too.")] = True,
    seed: Seed = None,
    device: Device = "cpu",
    overwrite: Overwrite = False,
) -> None:
    """Rank every planted secret among all it could have been, and try to read it out of the model."""
    from trustnlp.studies import attack_canaries as study

    request = study.Request(
        model=model, canaries=canaries, run=run, regime=regime, invert=invert, seed=seed, device=device
    )
    carry_out(study.run, request, out, overwrite=overwrite, shown=_show)


@app.command()
def audit(
    out: Out,
    mechanism: Annotated[
        str, typer.Option(help="How gradients are bounded: exact, automatic, layerwise or microbatch.")
    ] = "exact",
    epsilon: Annotated[float, typer.Option(help="The promise that is put to the test.")] = 2.0,
    delta: Annotated[float, typer.Option(help="Of the promise.")] = 1e-5,
    canaries: Annotated[int, typer.Option(help="How many; one less than a multiple of 16.")] = 7_999,
    steps: Annotated[int, typer.Option(help="Of each run.")] = 8,
    noise: Annotated[str, typer.Option(help="seeded or secure.")] = "seeded",
    seed: Seed = None,
    overwrite: Overwrite = False,
) -> None:
    """Audit the private engine itself: thousands of gradient canaries in one run, by a spy who sees every step.

    The verdict is consistent, violated (the engine has a bug) or uninformative (too few canaries for the promise).
    """
    from trustnlp.studies import engine_audit as study

    request = study.Request(mechanism, epsilon, delta, canaries, steps, noise, seed)
    carry_out(study.run, request, out, overwrite=overwrite)


def _show(console: Console, results: Results, out: Path) -> None:
    """The findings, the attacks in a table of their own, the report, and whether the figures can be trusted."""
    from rich.text import Text

    from trustnlp import report
    from trustnlp.cli.tables import attacks_table, findings_table
    from trustnlp.results import Results, Verdict

    path = report.write(out, results)
    attacks, others = attacks_table(results)
    console.print(findings_table(Results(results.run, others)))
    if attacks.rows:
        console.print(attacks)
    console.print(Text.assemble("report    ", (str(path), "bold")), soft_wrap=True)
    if any(finding.verdict is Verdict.BIASED_SPLIT for finding in results):
        console.print(
            "warning   members and non-members are told apart without the model, so the attacks may see how the files "
            "differ and not what the model has learned; draw both at random from one source",
            style="bold red",
            highlight=False,
        )
