from trustnlp.report.pivot import pivots
from trustnlp.results import Finding, Results

AXES = {"panel": ("corpus", "model"), "rows": ("mechanism",), "columns": ("epsilon",)}


def found(id: str, value: float, **cell: str) -> Finding:
    return Finding(id, id.title(), value, regime=", ".join(cell.values()), details={"cell": cell})


def tables(*findings: Finding):
    return pivots(Results({"study": {"axes": AXES}}, findings))


def test_cells_become_rows_and_columns_of_panels() -> None:
    of = {"corpus": "snips", "model": "bilstm"}
    (table, other) = tables(
        found("accuracy", 0.1, **of, mechanism="exact", epsilon="1"),
        found("accuracy", 0.9, **of, mechanism="plain"),
        found("accuracy", 0.2, **of, mechanism="micro", epsilon="8"),
        found("accuracy", 0.3, corpus="atis", model="bilstm", mechanism="exact", epsilon="8"),
    )
    assert (table.panel, other.panel) == ("snips, bilstm", "atis, bilstm")
    assert table.columns == ("no epsilon", "epsilon 1", "epsilon 8")
    values = {name: [finding.value if finding else None for finding in row] for name, row in table.rows}
    assert values == {"exact": [None, 0.1, None], "plain": [0.9, None, None], "micro": [None, None, 0.2]}
    assert other.columns == ("epsilon 8",)


def test_a_figure_without_columns_has_one_unnamed_one() -> None:
    (table,) = tables(found("time", 1.1, mechanism="exact"), found("time", 1.2, mechanism="micro"))
    assert table.columns == ("",)
    assert [name for name, _ in table.rows] == ["exact", "micro"]


def test_the_claim_and_what_has_no_cell_are_left_out() -> None:
    assert tables(Finding("claim", "It", 1.0), Finding("epsilon", "Budget", 1.0, unit="epsilon")) == []
