import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from trustnlp.models.many import run_jobs
from trustnlp.progress import silent
from trustnlp.report.explanations import explain
from trustnlp.results import Finding, Verdict
from trustnlp.studies import device_selection
from trustnlp.studies.device_selection import ARMS, BASELINE, CLAIMED, STUDY, Trainings, _claim
from trustnlp.studies.selection_training import SETTINGS, Scale
from trustnlp.studies.study import Request

TINY = Scale(2, 1, (2.0, 4.0), 4, 3, 2, 12, 60, 2, 40)
FEW = tuple(arm for arm in ARMS if arm.name in (BASELINE, CLAIMED))


def test_every_arm_is_tuned_on_other_seeds_and_compared_in_both_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_selection, "_QUICK", TINY)
    monkeypatch.setattr(device_selection, "ARMS", FEW)
    monkeypatch.setattr(device_selection, "run_jobs", partial(run_jobs, way="serial"))
    request = Request(("synthetic",), quick=True)
    results = STUDY.run(request, tmp_path / "run", progress=silent)
    cells = {(f.details["cell"]["setting"], f.details["cell"]["arm"]) for f in results if f.id == "rounds-to-target"}
    assert cells == {(setting, arm.name) for setting in SETTINGS for arm in FEW}
    of = {(f.id, f.regime.split(", ", 1)[1]) for f in results if f.id != "claim"}
    for figure in ("rounds-saved", "texts-saved", "learning-curve-lead"):
        assert {where for id, where in of if id == figure} == {f"{setting}, {CLAIMED}" for setting in SETTINGS}
    for figure in ("forgetting", "backward-transfer", "all-data-gap"):
        assert {where for id, where in of if id == figure} == {f"continual, {arm.name}" for arm in FEW}
    assert [f.id for f in results if explain(f.id) is None] == []
    made = [path.name for path in (tmp_path / "run" / "trainings" / "synthetic").iterdir()]
    seeds = {name.rsplit("-", 1)[1] for name in made}
    assert len(seeds) == 3  # two compared, one for tuning
    monkeypatch.setattr(device_selection, "run_jobs", None)  # nothing is trained twice
    assert STUDY.run(request, tmp_path / "run", progress=silent).findings == results.findings


def finding(id: str, setting: str, low: float, value: float, high: float) -> Finding:
    cell = {"corpus": "c", "setting": setting, "arm": CLAIMED}
    return Finding(id, "Saved", value, low, high, n=8, details={"cell": cell})


@pytest.mark.parametrize(
    ("static", "continual", "excess", "said"),
    [
        ((0.1, 0.2, 0.3), (0.2, 0.4, 0.6), (0.05, 0.2, 0.3), Verdict.REPRODUCED),
        ((0.1, 0.2, 0.3), (0.2, 0.4, 0.6), (-0.05, 0.2, 0.3), Verdict.INSUFFICIENT_EVIDENCE),
        ((0.1, 0.2, 0.3), (0.2, 0.4, 0.6), (-0.3, -0.2, -0.1), Verdict.NOT_REPRODUCED),
        ((-0.3, -0.2, -0.1), (0.2, 0.4, 0.6), (0.1, 0.6, 0.9), Verdict.NOT_REPRODUCED),
    ],
)
def test_the_claim_is_judged_by_whole_intervals(static: tuple, continual: tuple, excess: tuple, said: Verdict) -> None:
    found = [
        finding("rounds-saved", "static", *static),
        finding("rounds-saved", "continual", *continual),
        finding("rounds-saved-excess", "continual less static", *excess),
    ]
    claim = _claim(found)
    assert claim.verdict is said
    assert claim.value == min(static[1], continual[1], excess[1])


def test_without_variation_between_seeds_there_is_no_verdict() -> None:
    cell = {"corpus": "c", "setting": "static", "arm": CLAIMED}
    alike = Finding("rounds-saved", "Saved", 0.0, verdict=Verdict.INSUFFICIENT_EVIDENCE, details={"cell": cell})
    assert _claim([alike]).verdict is Verdict.INSUFFICIENT_EVIDENCE


def test_the_target_is_on_the_way_from_chance_to_where_the_baseline_ends(tmp_path: Path) -> None:
    """0.25 + 95% of the way to the mean of the last scores, 0.45, of the rate that the baseline would be given."""
    given = [
        {
            "rounds-0": np.array([2, 4]),
            "texts-0": np.array([20, 40]),
            "scores-0": np.array([0.3, end]),
            "chance": np.array(0.25),
        }
        for end in (0.4, 0.5)
    ]
    trainings = Trainings(None, Scale(rates=(1.0, 2.0)), 0, tmp_path, silent)
    trainings.__dict__["_tuning"] = {
        (setting, arm.name, rate): given if rate == 1.0 else [each | {"scores-0": np.zeros(2)} for each in given]
        for setting in SETTINGS
        for arm in ARMS
        for rate in (1.0, 2.0)
    }
    assert set(trainings.rates.values()) == {1.0}
    assert trainings.targets["static"] == pytest.approx(0.25 + 0.95 * 0.2)


@pytest.mark.skipif("TRUSTNLP_DATA" not in os.environ, reason="set TRUSTNLP_DATA to the public corpora")
def test_stars_are_five_or_fewer():
    corpus = device_selection._corpus("amazon-instruments")
    assert corpus is not None
    assert {one.label for split in (corpus.train, corpus.valid, corpus.test) for one in split} == {"five", "fewer"}
    assert device_selection._corpus("synthetic") is None
