import json
from pathlib import Path

import pytest

from trustnlp.errors import RunError
from trustnlp.progress import silent
from trustnlp.results import Finding, Results, Verdict
from trustnlp.studies.study import Cells, Request, Study, verdict

CELL = {"corpus": "SNIPS", "mechanism": "exact", "epsilon": "1"}


class Counted:
    """A study of three cells that counts how often each is measured, and fails in the third if asked to."""

    def __init__(self) -> None:
        self.measured: list[str] = []
        self.fails = False

    def __call__(self, request: Request, cells: Cells, progress: object) -> list[Finding]:
        found = [verdict("Largest", True, value=3.0)]
        for epsilon in ("1", "3", "8"):
            found += cells.measure({**CELL, "epsilon": epsilon}, lambda path, epsilon=epsilon: self.cell(path, epsilon))
        return found

    def cell(self, path: Path, epsilon: str) -> list[Finding]:
        if self.fails and epsilon == "8":
            raise KeyboardInterrupt
        self.measured.append(epsilon)
        return [Finding("label-accuracy", "Accuracy", 0.5, details={"dataset": "test"})]


@pytest.fixture
def counted() -> Counted:
    return Counted()


def study(measure: Counted) -> Study:
    axes = {"panel": ("corpus",), "rows": ("mechanism",), "columns": ("epsilon",)}
    return Study("some-study", "S0", "It is so.", axes, measure)


def test_findings_name_their_cell_and_the_record_the_claim(counted: Counted, tmp_path: Path) -> None:
    results = study(counted).run(Request(), tmp_path / "run", progress=silent, command="trustnlp study")
    found = results.get("label-accuracy", "SNIPS, exact, 3")
    assert found.details == {"dataset": "test", "cell": {**CELL, "epsilon": "3"}}
    assert results.get("claim").verdict is Verdict.REPRODUCED
    assert results.run["study"]["claim"] == "It is so."
    assert Results.load(tmp_path / "run") == results


def test_an_interrupted_study_goes_on_with_the_next_cell(counted: Counted, tmp_path: Path) -> None:
    counted.fails = True
    with pytest.raises(KeyboardInterrupt):
        study(counted).run(Request(), tmp_path / "run", progress=silent)
    counted.fails = False
    again = study(counted).run(Request(), tmp_path / "run", progress=silent)
    assert counted.measured == ["1", "3", "8"]
    fresh = study(Counted()).run(Request(), tmp_path / "other", progress=silent)
    assert again.findings == fresh.findings


def test_another_request_needs_another_folder(counted: Counted, tmp_path: Path) -> None:
    study(counted).run(Request(), tmp_path / "run", progress=silent)
    with pytest.raises(RunError, match="seed differ"):
        study(counted).run(Request(seed=1), tmp_path / "run", progress=silent)


def test_cells_never_leave_the_run_folder(tmp_path: Path, counted: Counted) -> None:
    def measure(request: Request, cells: Cells, progress: object) -> list[Finding]:
        return list(cells.measure({"corpus": "../../elsewhere/x"}, lambda path: counted.cell(path, "1")))

    study(measure).run(Request(), tmp_path / "run", progress=silent)  # type: ignore[arg-type]
    assert [path.name for path in (tmp_path / "run" / "cells").iterdir()] == ["..-..-elsewhere-x"]
    assert json.loads((tmp_path / "run" / "request.json").read_text())["study"] == "some-study"


@pytest.mark.parametrize(
    ("reproduced", "said"),
    [(True, Verdict.REPRODUCED), (False, Verdict.NOT_REPRODUCED), (None, Verdict.INSUFFICIENT_EVIDENCE)],
)
def test_a_claim_is_reproduced_or_not_or_left_open(reproduced: bool | None, said: Verdict) -> None:
    assert verdict("It", reproduced, value=1.0).verdict is said
