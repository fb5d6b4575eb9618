from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from trustnlp.attacks import membership
from trustnlp.attacks.membership import Margins, auc, check_disjoint, evaluate, tpr_at_fpr, tpr_interval
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.results import Direction, Verdict

SCORES = st.lists(st.integers(-4, 4), min_size=2, max_size=40)


def normals(seed, members=1000, nonmembers=1000, shift=0.0):
    generator = np.random.default_rng(seed)
    return generator.normal(size=members) + shift, generator.normal(size=nonmembers)


def judge(members, nonmembers, **options):
    return evaluate(members, nonmembers, attack="loss", generator=np.random.default_rng(0), **options)


# Scores


def test_scores_rank_low_losses_first():
    assert membership.loss_score([0.5, 2.0]).tolist() == [-0.5, -2.0]
    assert membership.reference_score([0.5, 2.0], [1.0, 1.0]).tolist() == [0.5, -1.0]


def test_a_reference_score_corrects_for_texts_that_are_easy_for_every_model():
    generator = np.random.default_rng(0)
    difficulty = generator.gamma(2.0, 3.0, 2000)
    losses = difficulty + generator.normal(size=2000) * 0.3 - np.repeat([1.0, 0.0], 1000)
    plain, calibrated = membership.loss_score(losses), membership.reference_score(losses, difficulty)
    assert auc(plain[:1000], plain[1000:])[0] < 0.65 < 0.95 < auc(calibrated[:1000], calibrated[1000:])[0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_losses_that_are_no_numbers_are_refused(bad):
    with pytest.raises(GuaranteeError, match="1 of 2 losses"):
        membership.loss_score([0.5, bad])
    with pytest.raises(GuaranteeError, match="reference_losses"):
        membership.reference_score([0.5, 1.0], [0.5, bad])
    with pytest.raises(GuaranteeError, match="1 of 3 members"):
        judge([0.5, bad, 1.0], [0.0, 1.0])
    with pytest.raises(ArgumentError, match="one length"):
        membership.reference_score([0.5, 1.0], [0.5])
    with pytest.raises(ArgumentError, match="two scores"):
        judge([0.5], [0.0, 1.0])


def test_texts_on_both_sides_are_counted_and_never_shown():
    check_disjoint(["play jazz"], ["play rock"])
    with pytest.raises(GuaranteeError, match="1 texts are both") as caught:
        check_disjoint(["Play  Jazz ", "stop"], ["play jazz", "play jazz", "go"])
    assert "jazz" not in str(caught.value).lower()
    with pytest.raises(ArgumentError, match="nonmembers"):
        check_disjoint(["a"], [])


# TPR at a fixed FPR


def slow_tpr(members, nonmembers, fpr):
    """Oracle: every test "s > t, and s = t with probability q" of FPR <= floor(fpr n)/n, at its largest TPR."""
    allowed = int(round(fpr * len(nonmembers), 9))
    best = 0.0
    for threshold in {*members, *nonmembers}:
        false, tied = sum(s > threshold for s in nonmembers), sum(s == threshold for s in nonmembers)
        if false <= allowed:
            share = min(1.0, (allowed - false) / tied) if tied else 1.0
            true = sum(s > threshold for s in members) + share * sum(s == threshold for s in members)
            best = max(best, true / len(members))
    return best


@given(members=SCORES, nonmembers=SCORES, fpr=st.sampled_from([0.05, 0.1, 0.3, 0.5, 0.9]))
def test_the_tpr_is_that_of_the_best_threshold_with_ties_shared_out(members, nonmembers, fpr):
    if int(round(fpr * len(nonmembers), 9)) == 0:
        with pytest.raises(GuaranteeError, match="cannot resolve"):
            tpr_at_fpr(members, nonmembers, fpr)
    else:
        assert tpr_at_fpr(members, nonmembers, fpr) == pytest.approx(slow_tpr(members, nonmembers, fpr))


def test_floating_point_takes_no_false_positive_away():
    members, nonmembers = normals(0, nonmembers=2900)
    exact = (members > np.sort(nonmembers)[-30]).mean()  # 29 of 2,900 lie above; 0.01 * 2900 = 28.999999999999996
    assert tpr_at_fpr(members, nonmembers, 0.01) == exact


def test_constant_scores_find_members_no_better_than_a_coin():
    findings = judge(np.zeros(2000), np.zeros(2000))
    assert [finding.value for finding in findings] == [0.01, 0.001, 0.5]
    assert all(finding.low < finding.ideal < finding.high for finding in findings)


def tpr_coverage(shift, n, runs, fpr=0.01):
    truth = stats.norm.sf(stats.norm.isf(fpr) - shift)
    found = [tpr_interval(*normals(seed, n, n, shift), fpr, 0.95) for seed in range(runs)]
    return np.mean([truth in interval for interval in found]), np.mean([interval.low > truth for interval in found])


@pytest.mark.parametrize("shift", [0.0, 1.0, 3.5])
def test_the_interval_of_the_tpr_covers(shift):
    covered, too_high = tpr_coverage(shift, 500, 200)
    assert covered >= 0.93
    assert too_high <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("fpr", [0.01, 0.001])
@pytest.mark.parametrize("n", [500, 2000])
@pytest.mark.parametrize("shift", [0.0, 1.0, 3.5])
def test_the_interval_of_the_tpr_covers_in_many_runs(shift, n, fpr):
    covered, too_high = tpr_coverage(shift, n, 1500, fpr)
    assert covered >= 0.945
    assert too_high <= 0.03


def test_an_interval_that_takes_the_threshold_as_known_would_not_cover():
    """The planted mistake that the construction exists for."""
    truth, covered = stats.norm.sf(stats.norm.isf(0.01) - 2), 0
    for seed in range(200):
        members, nonmembers = normals(seed, 1000, 1000, 2.0)
        found = stats.binomtest(round(1000 * tpr_at_fpr(members, nonmembers, 0.01)), 1000).proportion_ci(0.95)
        covered += found.low <= truth <= found.high
    assert covered / 200 < 0.8


# AUC


@given(members=SCORES, nonmembers=SCORES)
def test_the_auc_counts_pairs(members, nonmembers):
    pairs = np.mean([(a > b) + (a == b) / 2 for a in members for b in nonmembers])
    value, found = auc(members, nonmembers)
    assert value == pytest.approx(pairs)
    assert value in found
    assert found.low < found.high
    truth = [1] * len(members) + [0] * len(nonmembers)
    assert value == pytest.approx(roc_auc_score(truth, [*members, *nonmembers]))


def test_delongs_variance_is_that_of_its_definition():
    members, nonmembers = normals(1, 60, 45, 0.8)
    wins = (members[:, None] > nonmembers) + (members[:, None] == nonmembers) / 2
    variance = wins.mean(axis=1).var(ddof=1) / 60 + wins.mean(axis=0).var(ddof=1) / 45
    value = wins.mean()
    reach = stats.norm.ppf(0.975) * np.sqrt(variance) / (value * (1 - value))
    low, high = 1 / (1 + np.exp(-(np.log(value / (1 - value)) + np.array([-reach, reach]))))
    found = auc(members, nonmembers)[1]
    assert found.low == pytest.approx(low, abs=0.01)
    assert found.high == pytest.approx(high, abs=0.01)
    assert found.low <= low + 1e-12
    assert found.high >= high - 1e-12


@pytest.mark.parametrize(("m", "n"), [(3, 7), (50, 50), (49, 1003)])
def test_perfect_separation_is_no_certainty(m, n):
    for value, found in (auc(np.arange(m) + 5000.0, np.arange(n)), auc(np.arange(m), np.arange(n) + 5000.0)):
        assert value in (0.0, 1.0)
        assert value in found
        assert 0.001 < found.high - found.low < 0.9


@pytest.mark.parametrize(("shift", "scale"), [(0, 1), (1, 1), (3, 1), (1, 0.1), (2, 5)])
@pytest.mark.parametrize(("m", "n"), [(20, 20), (100, 400)])
def test_the_interval_of_the_auc_covers(shift, scale, m, n):
    truth, runs = stats.norm.cdf(shift / np.hypot(1, scale)), 300
    generator = np.random.default_rng(2)
    draws = ((generator.normal(size=m) * scale + shift, generator.normal(size=n)) for _ in range(runs))
    assert np.mean([truth in auc(*draw)[1] for draw in draws]) >= 0.925  # 300 runs at 95%: -0.025 is two deviations


# Findings


def test_a_leaky_model_leaks():
    findings = judge(*normals(0, 2000, 2000, 2.0))
    assert [finding.id for finding in findings] == [
        "membership-loss-tpr-at-1pct-fpr",
        "membership-loss-tpr-at-0-1pct-fpr",
        "membership-loss-auc",
    ]
    assert [finding.ideal for finding in findings] == [0.01, 0.001, 0.5]
    assert all(finding.direction is Direction.LOWER and "Yeom" in finding.source for finding in findings)
    assert findings[0].verdict is findings[2].verdict is Verdict.LEAKS


def test_a_leak_of_few_texts_shows_at_low_fpr():
    members, nonmembers = normals(0, 2000, 2000)
    members[:100] += 8
    findings = judge(members, nonmembers)
    assert findings[0].verdict is Verdict.LEAKS
    assert findings[0].value > 0.05


def test_a_private_model_passes_only_with_enough_texts():
    assert judge(*normals(0, 2000, 2000))[0].verdict is Verdict.NO_LEAK_FOUND
    assert judge(*normals(0, 2000, 2000))[2].verdict is Verdict.NO_LEAK_FOUND
    assert judge(*normals(0, 300, 300))[0].verdict is Verdict.INSUFFICIENT_EVIDENCE
    assert judge(*normals(0, 30, 30))[2].verdict is Verdict.INSUFFICIENT_EVIDENCE


def test_scores_that_rank_members_last_are_not_called_private():
    members, nonmembers = normals(0, 500, 500, 2.0)
    assert judge(nonmembers, members)[2].verdict is Verdict.INSUFFICIENT_EVIDENCE


def test_an_fpr_that_cannot_be_resolved_has_no_figure():
    one, tenth, _ = judge(*normals(0, 500, 99, 5.0))
    assert one.value is tenth.value is one.low is one.high is None
    assert one.verdict is Verdict.INSUFFICIENT_EVIDENCE
    assert one.details["smallest_fpr"] == 1 / 99
    assert (one.details["nonmembers_needed"], tenth.details["nonmembers_needed"]) == (100, 1000)


def test_false_alarms_are_rare_on_null_scores():
    alarms = np.array([[f.verdict is Verdict.LEAKS for f in judge(*normals(seed))] for seed in range(300)])
    assert (alarms.mean(axis=0) <= 0.05).all()  # 2.5% are nominal: one side of a 95% interval


def test_margins_decide_what_no_leak_means():
    scores = normals(0, 2000, 2000)
    assert judge(*scores, margins=Margins(tpr_ratio=1.2))[0].verdict is Verdict.INSUFFICIENT_EVIDENCE
    for bad in ({"tpr_ratio": 1.0}, {"tpr_ratio": -1}, {"auc": 0.5}, {"auc": 1.0}):
        with pytest.raises(ArgumentError):
            Margins(**bad)


def test_the_curve_is_thin_and_true():
    members, nonmembers = normals(3, 3000, 3000, 1.0)
    details = judge(members, nonmembers)[2].details
    fpr, tpr = np.array(details["roc"]["fpr"]), np.array(details["roc"]["tpr"])
    assert len(fpr) == len(tpr) <= 200
    assert (fpr[0], fpr[-1], tpr[-1]) == (0, 1, 1)
    assert (np.diff(fpr) > 0).all()
    assert (np.diff(tpr) >= 0).all()
    for at in (0.001, 0.01):
        assert tpr[np.argmin(np.abs(fpr - at))] == pytest.approx(tpr_at_fpr(members, nonmembers, at))
    json.dumps(details, allow_nan=False)


def test_the_same_generator_gives_the_same_findings():
    tied = [np.random.default_rng(seed).poisson(3, 400).astype(float) for seed in (0, 1)]
    assert judge(*tied) == judge(*tied)
