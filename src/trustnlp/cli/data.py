"""`trustnlp data`: which corpora can be read, and whether one of them, or your own file, is usable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trustnlp.errors import ArgumentError, TrustnlpError

if TYPE_CHECKING:
    from trustnlp.data.corpus import Corpus

app = typer.Typer(help="Which corpora can be read, and whether one is usable.", no_args_is_help=True)

_SHOWN = 8


@app.command("list")
def list_corpora() -> None:
    """Shows the corpora that can be named: task, size, terms, and whether they are there."""
    from trustnlp.data import registry

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for heading, right in (("Name", False), ("Task", False), ("Texts", True), ("Terms", False), ("Here", False)):
        table.add_column(heading, justify="right" if right else "left", no_wrap=right, overflow="fold")
    table.add_row(registry.SYNTHETIC, registry.Task.SLOTS, "any", "Apache-2.0", _state(registry.SYNTHETIC))
    for record in registry.RECORDS.values():
        sizes = " / ".join(f"{size:,}" for size in record.sizes.values())
        table.add_row(record.name, record.task, sizes, record.licence, _state(record.name))
    console = Console()
    console.print(table)
    place = registry.root()
    if place is None:
        _say(console, f"{registry.VARIABLE} is not set, so only the synthetic corpus is here: {registry.HOW_TO_SET}")
    else:
        _say(console, f"{registry.VARIABLE} is {place}")
    _say(console, "Sizes are train / valid / test, train / test, or all. `trustnlp data check NAME` shows more.")


@app.command()
def check(
    what: Annotated[
        str | None, typer.Argument(metavar="[NAME|PATH]", help="A corpus; without it, all that are here.")
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="A column by role: text=utterance, label=2 (from 0, no header).")
    ] = None,
    group: Annotated[str | None, typer.Option(help="A column, 'column' (its own groups) or 'length'.")] = None,
    split_column: Annotated[str | None, typer.Option(help="The column that says train, valid or test.")] = None,
    skip_empty: Annotated[bool, typer.Option(help="Leave rows without text out instead of refusing them.")] = False,
    limit: Annotated[int, typer.Option(help="The most texts kept.")] = 200_000,
    seed: Annotated[int, typer.Option(help="Seed of random splits and samples.")] = 0,
) -> None:
    """Reads a corpus and shows what is in it; the exit status is 1 if it is not usable."""
    from trustnlp.data import load

    if what is None:
        _check_all()
        return
    try:
        columns = dict(column_option(each) for each in column or ())
        corpus = load(
            what,
            limit=limit,
            seed=seed,
            group=group,
            columns=columns,
            split_column=split_column,
            skip_empty=skip_empty,
        )
    except TrustnlpError as error:
        _refuse(what, error)
        raise typer.Exit(1) from None
    _show(corpus)


def column_option(given: str) -> tuple[str, str | int]:
    """Role and column of an option such as text=utterance or label=2 (from 0, in a file without header).

    Raises:
        ArgumentError: it is not of that form.
    """
    role, equals, name = given.partition("=")
    if not (role and equals and name):
        raise ArgumentError("column", "ROLE=NAME, such as text=utterance", given)
    return role, int(name) if name.isdigit() else name


def _check_all() -> None:
    from trustnlp.data import load, registry

    console, broken = Console(), False
    for name in (registry.SYNTHETIC, *registry.RECORDS):
        status = registry.status(name)
        if status.state is registry.State.ABSENT:
            continue
        try:
            corpus = load(name)
        except TrustnlpError as error:
            broken = True
            _refuse(name, error)
        else:
            sizes = " / ".join(f"{len(split):,}" for split in (corpus.train, corpus.valid, corpus.test))
            console.print(f"[green]usable[/]  {name:20}{sizes}", highlight=False)
    if registry.root() is None:
        _say(console, f"\n{registry.VARIABLE} is not set, so no public corpus was checked: {registry.HOW_TO_SET}")
    if broken:
        raise typer.Exit(1)


def _show(corpus: Corpus) -> None:
    console = Console()
    console.print(f"[bold]{escape(corpus.name)}[/] is [green]usable[/]\n", highlight=False)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name in ("train", "valid", "test"):
        split = getattr(corpus, name)
        tokens = sum(len(example.tokens) for example in split)
        table.add_row(name, f"{len(split):,} texts, {tokens:,} tokens")
    for what, values in (("labels", corpus.labels), ("tags", corpus.tags), ("groups", corpus.groups)):
        table.add_row(what, escape(_some(values)))
    table.add_row("users", f"{len(corpus.users):,}" if corpus.users else "none")
    table.add_row("times", _times(corpus))
    table.add_row("licence", escape(corpus.licence))
    table.add_row("source", escape(corpus.source or "not stated"))
    for place, note in enumerate(corpus.notes):
        table.add_row("notes" if place == 0 else "", escape(note))
    console.print(table, highlight=False)


def _some(values: tuple[str, ...]) -> str:
    if not values:
        return "none"
    more = ", …" if len(values) > _SHOWN else ""
    return f"{len(values)}: {', '.join(value[:40] for value in values[:_SHOWN])}{more}"


def _times(corpus: Corpus) -> str:
    times = [example.time for split in (corpus.train, corpus.valid, corpus.test) for example in split]
    known = [time for time in times if time is not None]
    return f"{min(known):.15g} to {max(known):.15g}" if known else "none"


def _state(name: str) -> str:
    from trustnlp.data import registry

    status = registry.status(name)
    if status.state is registry.State.PRESENT:
        return f"[green]yes[/], {status.bytes / 1e6:.1f} MB"
    if status.state is registry.State.INCOMPLETE:
        return f"[red]{len(status.missing)} files missing[/]"
    return "[green]built in[/]" if status.state is registry.State.BUILT_IN else "[dim]no[/]"


def _refuse(what: str, error: TrustnlpError) -> None:
    typer.echo(f"{typer.style('not usable', fg=typer.colors.RED)}  {what}: {error}", err=True)


def _say(console: Console, text: str) -> None:
    console.print(escape(text), highlight=False)
