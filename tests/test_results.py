import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustnlp.errors import ArgumentError, GuaranteeError, RunError
from trustnlp.results import Direction, Finding, Results, Tone, Verdict

FINDING = Finding(
    "label-accuracy",
    "Accuracy",
    0.941,
    0.93,
    0.95,
    n=700,
    direction=Direction.HIGHER,
    verdict=Verdict.MEASURED,
    regime="plain",
    details={"errors": 41},
)


def test_results_come_back_as_they_were_saved(tmp_path: Path) -> None:
    results = Results({"seed": 0}, (FINDING, FINDING.of("private")))
    assert results.save(tmp_path) == tmp_path / "results.json"
    assert Results.load(tmp_path) == results
    assert Results.load(tmp_path / "results.json") == results


def test_the_file_has_the_documented_shape(tmp_path: Path) -> None:
    record = json.loads(Results({"seed": 0}, (FINDING,)).save(tmp_path).read_text())
    assert set(record) == {"schema", "run", "findings"}
    shape = "id title value low high level n unit direction ideal verdict regime source details"
    assert " ".join(record["findings"][0]) == shape


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"id": "Label accuracy"}, ArgumentError, "'id' must be kebab-case"),
        ({"value": float("nan")}, GuaranteeError, "value = nan"),
        ({"high": float("inf")}, GuaranteeError, "high = inf"),
        ({"value": 0.2}, GuaranteeError, r"0.2 is outside \[0.93, 0.95\]"),
        ({"value": None}, GuaranteeError, "has no value but the verdict 'measured'"),
        ({"level": 95}, ArgumentError, "'level'"),
    ],
)
def test_a_finding_that_cannot_be_right_is_refused(changes: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        replace(FINDING, **changes)


def test_two_findings_of_one_id_and_regime_are_refused() -> None:
    with pytest.raises(ArgumentError, match="unique by id and regime"):
        Results({}, (FINDING, FINDING))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"schema": 99}', '{"schema": 1, "run": {}, "findings": [{}]}'])
def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(RunError, match=r"results\.json"):
        Results.load(tmp_path)


def test_a_missing_file_says_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="trustnlp assess"):
        Results.load(tmp_path)


def test_get_finds_by_id_and_regime() -> None:
    results = Results({}, (FINDING,))
    assert results.get("label-accuracy", "plain") is FINDING
    with pytest.raises(RunError, match="no finding 'label-accuracy' for regime ''"):
        results.get("label-accuracy")


def test_a_finding_prints_well() -> None:
    assert str(FINDING) == "Accuracy [plain]: 94.1% (93.0% to 95.0%, n=700, measured)"
    exposure = Finding("canary-exposure", "Exposure", 13.2877, unit="bits")
    assert str(exposure) == "Exposure: 13.3 bits (measured)"
    assert Finding("epsilon", "Budget", 7.9981, unit="epsilon").figure(7.9981) == "7.998 epsilon"


@given(st.floats(-1, 1))
def test_a_fraction_is_shown_in_percent_to_three_figures(value: float) -> None:
    shown = FINDING.figure(value)
    assert shown.endswith("%")
    assert float(shown[:-1]) == pytest.approx(100 * value, abs=0.0501)


def test_every_verdict_has_a_tone() -> None:
    assert {verdict.tone for verdict in Verdict} == set(Tone)
