from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trustnlp.errors import ModelError
from trustnlp.models.many import run_jobs
from trustnlp.progress import silent
from trustnlp.report.explanations import explain
from trustnlp.results import Finding, Verdict
from trustnlp.studies import device_selection
from trustnlp.studies.device_selection import ARMS, BASELINE, CLAIMED, SETTINGS, STUDY, Scale, Training, _claim, _curves
from trustnlp.studies.study import Request

TINY = Scale(2, 1, (2.0, 4.0), 4, 3, 2, 12, 60, 2, 40)
FEW = tuple(arm for arm in ARMS if arm.name in (BASELINE, CLAIMED))


def training(setting: str = "static", arm: str = BASELINE, scale: Scale = TINY, seed: int = 0) -> Training:
    return Training(None, setting, next(each for each in ARMS if each.name == arm), 2.0, seed, scale)


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


def test_an_arm_and_the_baseline_see_the_same_devices() -> None:
    one, other = (training(arm=arm)._periods() for arm in (BASELINE, CLAIMED))
    np.testing.assert_array_equal(one.sizes(0), other.sizes(0))
    assert one.test(0) == other.test(0)
    assert (training(seed=1)._periods().sizes(0) != one.sizes(0)).any()


@pytest.mark.parametrize("arm", ["uniform, larger cohort", "uniform, more epochs"])
def test_matched_arms_train_on_as_many_texts_a_round_as_gamma_1(arm: str) -> None:
    asked = training(arm=arm, scale=Scale(users=200, texts=2_000))
    periods = asked._periods()
    algorithm, sizes = asked._algorithm(periods), periods.sizes(0)
    sizes = sizes[sizes > 0].astype(float)
    by_activity = 20 * (sizes**2).sum() / sizes.sum()
    assert algorithm.cohort * algorithm.local.epochs * sizes.mean() == pytest.approx(by_activity, rel=0.2)
    baseline = training(scale=asked.scale)._algorithm(periods)
    assert (baseline.cohort, baseline.local.epochs) == (20, 1)


def test_both_settings_have_as_many_rounds() -> None:
    for setting, periods in (("static", 1), ("continual", 2)):
        asked = training(setting)
        assert asked._algorithm(asked._periods()).rounds * periods == TINY.rounds


def test_a_training_that_diverges_never_reaches_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(*_: Any, **__: Any) -> None:
        raise ModelError("no longer finite")

    monkeypatch.setattr(device_selection, "learn", diverge)
    given = training("continual").run(tmp_path)
    assert given["diverged"] == 1
    assert [curve.scores.tolist() for curve in _curves(given)] == [[0.0], [0.0]]
    assert all(curve.rounds[-1] == 2 for curve in _curves(given))


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
