from __future__ import annotations

import json

import pytest

from trustnlp.attacks import ladder
from trustnlp.attacks.lower_bound import LowerBound
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.results import Verdict
from trustnlp.uncertainty import bonferroni


def bound(epsilon, cap=6.0, *, level=0.975, delta=1e-6, method="one-run-binomial", **fields):
    return LowerBound(epsilon, cap, level, delta, 1000, method, **fields)


@pytest.mark.parametrize(
    ("upper", "epsilons", "caps", "verdict"),
    [
        (3.0, (1.0, 2.9), (6.0, 6.0), Verdict.CONSISTENT),
        (3.0, (0.0, 0.0), (6.0, 6.0), Verdict.CONSISTENT),
        (3.0, (1.0, 3.1), (6.0, 6.0), Verdict.VIOLATED),
        (8.0, (1.0, 2.0), (6.0, 5.0), Verdict.UNINFORMATIVE),
        (8.0, (1.0, 2.0), (6.0, 9.0), Verdict.CONSISTENT),
        (8.0, (0.0, 0.0), (1.0, 2.0), Verdict.UNINFORMATIVE),
        (0.0, (0.1, 0.0), (6.0, 6.0), Verdict.VIOLATED),
        (None, (0.0, 0.0), (6.0, 6.0), Verdict.UNINFORMATIVE),
        (None, (0.0, 0.2), (6.0, 6.0), Verdict.LEAKS),
    ],
)
def test_verdicts(upper, epsilons, caps, verdict):
    found = ladder.finding(upper, [bound(*each) for each in zip(epsilons, caps, strict=True)])
    assert found.verdict is verdict
    assert found.value == max(epsilons)
    assert found.details["resolution_cap"] == max(caps)
    assert found.details.get("target") == upper


def test_every_rung_is_recorded():
    gaussian = bound(4.0, 20.0, method="one-run-f-dp", assumes="a Gaussian trade-off curve", source="one")
    found = ladder.finding(3.0, [bound(1.0, source="two"), gaussian])
    assert found.id == "epsilon-ladder"
    assert found.unit == "epsilon"
    assert found.source == "two; one"
    assert [rung["epsilon"] for rung in found.details["bounds"]] == [1.0, 4.0]
    assert found.details["best"] == "one-run-f-dp"
    assert found.details["assumes"] == "a Gaussian trade-off curve"  # what the figure rests on
    json.dumps(found.details, allow_nan=False)
    assert "assumes" not in ladder.finding(30.0, [bound(5.0), gaussian]).details


def test_bounds_must_hold_all_at_once():
    with pytest.raises(GuaranteeError, match=r"only at level 0\.9, .* each at level 0\.975"):
        ladder.finding(3.0, [bound(1.0, level=0.95), bound(2.0, level=0.95)])
    for many in (1, 2, 3, 7, 12):
        rungs = [bound(1.0, level=bonferroni(0.95, many))] * many
        assert ladder.finding(3.0, rungs).level == 0.95
    assert ladder.finding(3.0, [bound(1.0, level=0.9)], level=0.9).level == 0.9


def test_deltas_must_agree():
    with pytest.raises(GuaranteeError, match="different deltas"):
        ladder.finding(3.0, [bound(1.0), bound(1.0, delta=1e-5)])
    with pytest.raises(GuaranteeError, match="different deltas"):
        ladder.finding(3.0, [bound(1.0)], delta=1e-5)
    assert ladder.finding(3.0, [bound(1.0)], delta=1e-6).details["delta"] == 1e-6


def test_a_ladder_needs_a_rung():
    with pytest.raises(ArgumentError, match="bounds"):
        ladder.finding(3.0, [])
    with pytest.raises(ArgumentError, match="upper"):
        ladder.finding(-1.0, [bound(1.0)])
