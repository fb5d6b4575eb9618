from pathlib import Path

import pytest

from trustnlp.progress import silent
from trustnlp.results import Finding, Verdict
from trustnlp.studies import private_training
from trustnlp.studies.private_training import LOOP, MECHANISMS, STUDY
from trustnlp.studies.study import Request


@pytest.mark.usefixtures("hasty")
def test_every_mechanism_is_timed_and_trained_at_every_budget(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private_training, "_QUICK_TEXTS", 200)
    request = Request((str(table),), ("bilstm",), quick=True)
    results = STUDY.run(request, tmp_path / "run", progress=silent)
    timed = [f.details["cell"]["mechanism"] for f in results if f.id == "training-time-ratio"]
    assert timed == [*MECHANISMS, LOOP]
    trained = {(f.details["cell"]["mechanism"], f.details["cell"].get("epsilon")) for f in results if f.id == "epsilon"}
    assert trained == {(mechanism, epsilon) for mechanism in MECHANISMS for epsilon in ("1", "8")}
    assert all(f.verdict is Verdict.WITHIN_BUDGET for f in results if f.id == "epsilon")
    again = STUDY.run(request, tmp_path / "run", progress=silent)
    assert again.findings == results.findings  # nothing is measured twice


def timed(mechanism: str, low: float, value: float, high: float) -> Finding:
    cell = {"corpus": "c", "model": "m", "mechanism": mechanism}
    return Finding("training-time-ratio", "Time", value, low, high, n=9, unit="", details={"cell": cell})


@pytest.mark.parametrize(
    ("micro", "loop", "said"),
    [
        ((1.0, 1.05, 1.1), (3, 4, 5), Verdict.REPRODUCED),
        ((1.3, 1.4, 1.5), (3, 4, 5), Verdict.NOT_REPRODUCED),
        ((1.0, 1.05, 1.1), (1.1, 1.2, 1.3), Verdict.NOT_REPRODUCED),
        ((1.1, 1.2, 1.4), (3, 4, 5), Verdict.INSUFFICIENT_EVIDENCE),
    ],
)
def test_the_claim_is_judged_by_whole_intervals(micro: tuple, loop: tuple, said: Verdict) -> None:
    times = [timed("microbatch", *micro), timed("exact", 1.3, 1.4, 1.5), timed(LOOP, *loop)]
    claim = private_training._claim(times)
    assert claim.verdict is said
    assert claim.value == micro[1]
