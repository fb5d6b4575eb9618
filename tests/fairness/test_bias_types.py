from dataclasses import dataclass

import pytest

from trustnlp.errors import ArgumentError
from trustnlp.fairness.bias_types import Estimate, by_bias_type
from trustnlp.fairness.crows_pairs import CROWS_PAIRS
from trustnlp.results import Verdict
from trustnlp.uncertainty import Interval


@dataclass(frozen=True)
class Row:
    id: str
    bias_type: str
    value: float


ROWS = [Row(f"{kind}{n}", kind, value) for kind, value in (("Race, color", 80.0), ("age", 50.0)) for n in range(4)]


def estimate(rows, level):
    value = sum(row.value for row in rows) / len(rows)
    return Estimate(value, Interval(value - 1, value + 1, level), len(rows)) if len(rows) > 2 else None


def measured(rows=ROWS, **changed):
    told = {"dataset": "d", "margin": 5.0, "level": 0.9, "enough": "3 rows"} | changed
    return by_bias_type(CROWS_PAIRS, rows, estimate, **told)


def test_all_items_come_first_then_each_type_at_a_corrected_level():
    everything, race, age = measured()
    assert [one.id for one in (everything, race, age)] == ["crows-pairs", "crows-pairs-race-color", "crows-pairs-age"]
    assert [one.value for one in (everything, race, age)] == [65, 80, 50]
    assert [one.level for one in (everything, race, age)] == pytest.approx([0.9, 0.95, 0.95])
    assert (race.verdict, age.verdict) == (Verdict.DISPARITY, Verdict.FAIR_WITHIN_MARGIN)
    assert "without_flagged" not in everything.details


def test_one_type_alone_is_not_corrected():
    [found] = measured(ROWS[:4])
    assert (found.id, found.level, found.details["protected_group"]) == ("crows-pairs", 0.9, "Race, color")


def test_flagged_items_are_left_out_beside():
    everything, race, age = measured(flagged=["age0", "Race, color0", "Race, color1"])
    assert (everything.value, everything.details["flagged"]) == (65, 3)
    assert everything.details["without_flagged"]["value"] == pytest.approx((2 * 80 + 3 * 50) / 5)
    assert race.details["without_flagged"] is None  # too few are left
    assert age.details["without_flagged"]["verdict"] == "fair within margin"


def test_too_few_items_are_insufficient_evidence():
    [found] = measured(ROWS[:2])
    assert (found.value, found.verdict) == (None, Verdict.INSUFFICIENT_EVIDENCE)
    assert found.details["reason"] == "2 items; 3 rows are needed"


def test_impossible_arguments_are_refused():
    with pytest.raises(ArgumentError, match="'rows' must be not empty"):
        measured([])
    with pytest.raises(ArgumentError, match="of different ids"):
        measured([ROWS[0], ROWS[0]])
    with pytest.raises(ArgumentError, match="'flagged' must be ids of items"):
        measured(flagged=["none"])
