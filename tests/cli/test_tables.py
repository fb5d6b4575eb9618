import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from trustnlp.cli.tables import STYLES, attacks_table, findings_table
from trustnlp.results import Finding, Results, Tone, Verdict

LEAK = Finding("membership-loss-auc", "Told apart", 0.75, 0.7, 0.8, verdict=Verdict.LEAKS)
BLIND = Finding("blind-classifier-auc", "Split", 0.5, 0.45, 0.55, verdict=Verdict.NO_BIAS_FOUND)
UNKNOWN = Finding("label-error-gap", "Gap", None, verdict=Verdict.INSUFFICIENT_EVIDENCE)
EPSILON = Finding("epsilon", "Budget", 7.98, unit="epsilon", verdict=Verdict.WITHIN_BUDGET, regime="private")


def lines(*findings: Finding, styles: bool = False) -> list[str]:
    console = Console(file=io.StringIO(), width=200, force_terminal=styles)
    console.print(findings_table(Results({}, findings)))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_every_finding_stands_once_under_its_regime() -> None:
    head, *rows = lines(BLIND, LEAK.of("plain"), LEAK.of("private"), EPSILON, UNKNOWN.of("plain"))
    assert head.split() == ["plain", "private"]
    assert [row.split("  ")[0] for row in rows] == ["Split", "Told apart", "Budget", "Gap"]
    second = head.index("private")
    assert len(rows[0]) < second  # nothing of the split is said again under private
    assert rows[1].count("75.0% (70.0% to 80.0%)  leaks") == 2
    assert rows[1][second:].startswith("75.0%")
    assert rows[2].index("7.98 epsilon  within budget") == second
    assert "insufficient evidence" in rows[3][:second]


def test_what_is_said_of_no_regime_stands_in_the_first_column() -> None:
    head, row, _ = lines(BLIND, LEAK.of("plain"))
    assert row.index("50.0% (45.0% to 55.0%)  no bias found") == head.index("plain")


def test_findings_of_no_regime_alone_are_shown_and_hidden_by_none() -> None:
    assert "50.0%" in lines(BLIND)[-1]
    assert [row.count("%") for row in lines(LEAK, LEAK.of("plain"))] == [0, 3, 3]


@pytest.mark.parametrize("hostile", ["[red]", "[/]", "[bold red]x[/bold red]", "[link=https://example.org]x[/link]"])
def test_text_from_data_is_never_markup(hostile: str) -> None:
    head, row = lines(Finding("epsilon", f"Budget of {hostile}", 1.0, unit="", regime=f"plain {hostile}"))
    assert f"plain {hostile}" in head
    assert f"Budget of {hostile}" in row


def test_attacks_stand_in_a_table_of_their_own() -> None:
    rare = {"nonmembers_needed": 1000}
    too_few = Finding("x", "x", None, verdict=Verdict.INSUFFICIENT_EVIDENCE, details=rare)
    found = [
        BLIND,
        Finding("membership-min-k-tpr-at-1pct-fpr", "Found", 0.2, 0.1, 0.3, verdict=Verdict.LEAKS),
        replace(too_few, id="membership-min-k-tpr-at-0-1pct-fpr"),
        LEAK,
        UNKNOWN,
    ]
    table, others = attacks_table(Results({}, tuple(found)))
    assert others == (BLIND, UNKNOWN)
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    head, first, second = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert head.split("  ")[0] == "attack"
    assert re.split("  +", first) == ["min-k", "20.0% (10.0% to 30.0%)", "leaks", "needs 1,000 non-members", "–"]
    assert re.split("  +", second) == ["loss", "–", "–", "75.0% (70.0% to 80.0%)", "leaks"]


def test_a_measured_figure_needs_no_verdict() -> None:
    assert lines(Finding("label-accuracy", "Accuracy", 0.5, regime="plain"))[-1].split("  ")[-1].strip() == "50.0%"


def test_verdicts_are_coloured_by_tone() -> None:
    assert set(STYLES) == set(Tone)
    assert "\x1b[1;31mleaks" in lines(LEAK.of("plain"), styles=True)[-1]
    assert "\x1b[32mno bias found" in lines(BLIND, styles=True)[-1]


def test_a_study_gets_one_table_a_figure() -> None:
    from trustnlp.cli.tables import tables

    axes = {"panel": ("corpus",), "rows": ("mechanism",), "columns": ("epsilon",)}
    cells = [{"corpus": "snips", "mechanism": "exact", "epsilon": epsilon} for epsilon in ("1", "8")]
    found = [
        Finding("label-accuracy", "Accuracy", 0.5, regime=cell["epsilon"], details={"cell": cell}) for cell in cells
    ]
    claim = Finding("claim", "Largest", 1.0, unit="", verdict=Verdict.REPRODUCED)
    shown = list(tables(Results({"study": {"axes": axes}}, (claim, *found))))
    assert [str(table.title) for table in shown] == ["Accuracy", "Verdict on the claim"]
    assert [str(column.header) for column in shown[0].columns] == ["", "", "epsilon 1", "epsilon 8"]
    (plain,) = tables(Results({}, (LEAK,)))
    assert plain.row_count == 1
