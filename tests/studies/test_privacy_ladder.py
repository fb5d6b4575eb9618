import json
from functools import partial

import numpy as np
import pytest
from scipy import stats

from trustnlp.attacks import lira, membership
from trustnlp.models.many import run_jobs
from trustnlp.progress import silent
from trustnlp.results import Finding, Results, Verdict
from trustnlp.studies import membership_pool, privacy_ladder
from trustnlp.studies.privacy_ladder import STUDY, _claim, mean_over_pairs, ratio_over_pairs
from trustnlp.studies.study import Request


@pytest.mark.usefixtures("hasty")
def test_every_rung_is_attacked_bounded_and_used(table, tmp_path, monkeypatch):
    monkeypatch.setattr(membership_pool, "run_jobs", partial(run_jobs, way="serial"))  # workers take seconds to start
    monkeypatch.setattr(privacy_ladder, "_QUICK_MODELS", 6)
    monkeypatch.setattr(privacy_ladder, "_QUICK_TEXTS", 200)
    monkeypatch.setattr(privacy_ladder, "_OUTSIDE", 40)
    monkeypatch.setattr(privacy_ladder, "_FPR", 0.05)
    monkeypatch.setattr(privacy_ladder, "_QUICK_EPSILONS", (50.0, None))
    request = Request((str(table),), ("bilstm",), quick=True)
    results = STUDY.run(request, tmp_path / "run", progress=silent)
    rungs = {f.details["cell"]["epsilon"]: f for f in results if f.id == "epsilon-ladder"}
    assert list(rungs) == ["50", "none"]
    assert rungs["50"].details["target"] == pytest.approx(50, rel=0.01)
    assert rungs["50"].verdict is not Verdict.VIOLATED
    assert "target" not in rungs["none"].details
    attacks = {f.id for f in results if f.id.startswith("membership-") and f.id.endswith("-auc")}
    assert attacks == {f"membership-{name}-auc" for name in ("loss", "rmia", "lira")}
    assert all(len(f.details["models"]) == f.n == 6 for f in results if f.id in attacks)
    assert all(f.verdict is Verdict.WITHIN_BUDGET for f in results if f.id == "epsilon")
    assert len(results.get("claim").details["says"]) == 2
    again = STUDY.run(request, tmp_path / "run", progress=silent)
    assert again.findings == results.findings
    assert "mother" not in (tmp_path / "run" / "results.json").read_text()  # a word of the texts
    json.dumps([f.details for f in Results.load(tmp_path / "run")], allow_nan=False)


# Intervals


def test_the_mean_has_students_interval_over_pairs():
    values = np.random.default_rng(0).normal(size=10)
    pairs = [(values[2 * i] + values[2 * i + 1]) / 2 for i in range(5)]
    expected = stats.t.interval(0.95, 4, np.mean(pairs), stats.sem(pairs))
    found = mean_over_pairs(values)
    assert (found.low, found.high) == pytest.approx(expected)
    assert 0.1 in mean_over_pairs(np.full(10, 0.1))  # as any value is, whatever the rounding


def test_models_that_are_all_alike_prove_nothing():
    fields = {"id": "some-figure", "title": "Figure", "ideal": 0.01}
    alike = privacy_ladder._mean(np.full(8, 0.01), {"margin": 0.03}, **fields)
    assert (alike.value, alike.low, alike.high) == (0.01, None, None)
    assert alike.verdict is Verdict.INSUFFICIENT_EVIDENCE
    for mean, said in ((0.01, Verdict.NO_LEAK_FOUND), (0.2, Verdict.LEAKS)):
        assert privacy_ladder._mean(spread(mean), {"margin": 0.03}, **fields).verdict is said


def test_the_ratio_holds_what_the_t_test_does_not_reject():
    generator = np.random.default_rng(0)
    bottoms = 5 + generator.normal(size=12)
    tops = 0.4 * bottoms + 0.3 * generator.normal(size=12)
    found = ratio_over_pairs(tops, bottoms)
    for end in (found.low, found.high):
        p = stats.ttest_1samp((tops - end * bottoms).reshape(-1, 2).mean(1), 0).pvalue
        assert p == pytest.approx(0.05)
    assert tops.mean() / bottoms.mean() in found


def test_the_ratio_has_no_interval_where_nothing_is_to_be_shared():
    tops, bottoms = np.random.default_rng(0).normal(size=(2, 8))
    assert ratio_over_pairs(tops, bottoms) is None
    assert ratio_over_pairs(tops, -5 + 0.1 * bottoms) is None


@pytest.mark.parametrize("truth", [0.0, 0.3, 1.0])
def test_the_interval_of_the_ratio_covers(truth):
    generator, covered = np.random.default_rng(1), 0
    for _ in range(1000):
        common = 4 + generator.normal(size=8)
        found = ratio_over_pairs(truth * 4 + generator.normal(size=8), common)
        covered += found is None or truth in found
    assert 0.93 <= covered / 1000 <= 0.97


@pytest.mark.slow
def test_the_interval_over_pairs_covers_although_targets_share_shadows():
    """Models of one pool whose losses have a known law; the truth is the mean over 400 designs."""
    generator = np.random.default_rng(0)
    hard = 3 * generator.normal(size=1000)

    def tpr(losses, inside, target):
        case = membership_pool.attacked(losses, inside, target)
        scores = lira.score(case.losses, case.shadows, case.inside)
        return membership.tpr_at_fpr(scores[inside[target]], scores[~inside[target]], 0.01)

    def tprs(models):
        inside = membership_pool.coins(models, 1000, generator)
        losses = np.logaddexp(0, -(hard + 1.5 * inside + generator.normal(size=inside.shape)))
        return np.array([tpr(losses, inside, target) for target in range(models)])

    found = [tprs(8) for _ in range(400)]
    truth = np.mean(found)
    assert np.mean([truth in mean_over_pairs(values) for values in found]) >= 0.93


# The claim


def cell_findings(epsilon, excesses):
    cell = {"corpus": "c", "model": "m", "epsilon": epsilon}
    shared = {"regime": f"c, m, {epsilon}", "n": 8}
    found = [
        Finding(
            f"membership-{attack}-tpr-at-1pct-fpr",
            "TPR",
            float(np.mean(values)) + 0.01,
            details={"cell": cell, "models": (np.array(values) + 0.01).tolist()},
            **shared,
        )
        for attack, values in excesses.items()
    ]
    return [*found, Finding("epsilon-ladder", "Ladder", 0.5, unit="epsilon", details={"cell": cell}, **shared)]


def spread(mean, deviation=0.002):
    return mean + deviation * np.array([-1, 1, 1, 1, -1, -1, 1, -0.5])


def judged(plain, **loose):
    every = {name: spread(0.0) for name in membership_pool.ATTACKS}
    return _claim([*cell_findings("50", every | loose), *cell_findings("none", every | {"lira": plain})])


@pytest.mark.parametrize(
    ("left", "said"),
    [(0.2, Verdict.REPRODUCED), (0.5, Verdict.INSUFFICIENT_EVIDENCE), (0.8, Verdict.NOT_REPRODUCED)],
)
def test_the_claim_is_judged_by_its_whole_interval(left, said):
    pairs = 0.01 * np.repeat([-1, 1, 0.5, -0.5], 2)
    claim = judged(0.1 + pairs, lira=left * 0.1 + 0.1 * pairs[::-1])
    assert claim.verdict is said
    assert claim.value == pytest.approx(left, abs=0.02)
    assert claim.low <= claim.value <= claim.high


def test_the_worst_attack_decides():
    claim = judged(spread(0.1), lira=spread(0.01), rmia=spread(0.09))
    assert claim.verdict is Verdict.NOT_REPRODUCED
    assert claim.details["attack"] == "rmia"
    assert judged(spread(0.1), lira=spread(0.01), rmia=spread(0.02)).verdict is Verdict.REPRODUCED


def test_without_a_leak_there_is_nothing_to_gain():
    pairs = np.repeat([-1, 1, 1.2, -1.1], 2)
    for plain in (0.01 * pairs, -0.1 + 0.001 * pairs):
        claim = judged(plain)
        assert claim.verdict is Verdict.INSUFFICIENT_EVIDENCE
        assert claim.value is None


def test_every_rung_is_said():
    every = {name: spread(0.1) for name in membership_pool.ATTACKS}
    found = [f for epsilon in ("1", "50", "none") for f in cell_findings(epsilon, every)]
    says = _claim(found).details["says"]
    assert ["without privacy" in s for s in says] == [False, False, True]
    assert "epsilon 50: 11.0% of members" in says[1]
