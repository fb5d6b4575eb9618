"""The table of refusals names tests, and every one of them exists."""

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "reference" / "refusals.md"


def missing(page: str, folder: Path) -> list[str]:
    """Tests that `page` names and that are not in `folder` or beside it, and rows that name none."""
    named = re.findall(r"`((?:studies/)?test_\w+\.py)::(test_\w+)`", page)
    places = [(folder.parent if "/" in file else folder, file, test) for file, test in named]
    absent = [f"{file}::{test}" for place, file, test in places if test not in names_in(place / file)]
    rows = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| refused")]
    return absent + [row for row in rows if "::test_" not in row and not row.endswith("| the same |")]


def names_in(path: Path) -> set[str]:
    if not path.exists():
        return set()
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def test_every_row_is_kept_by_a_test():
    assert missing(PAGE.read_text(), HERE) == []


@pytest.mark.parametrize(
    "row",
    [
        "| a | b | c | `test_plan.py::test_nothing` |",
        "| a | b | c | nobody |",
        "| a | b | c | `studies/test_audit.py::test_nothing` |",
    ],
)
def test_a_row_without_its_test_is_found(row):
    assert missing(row, HERE)
