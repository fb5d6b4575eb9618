from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from trustnlp.data.planted_bias import PlantedBias, with_status
from trustnlp.errors import ArgumentError
from trustnlp.fairness.counterfactual_fairness import counterfactual_probability_change
from trustnlp.fairness.flip_rate import counterfactual_flip_rate
from trustnlp.fairness.identity_terms import GENDER
from trustnlp.fairness.prediction_sensitivity import prediction_sensitivity
from trustnlp.fairness.saliency import probabilities
from trustnlp.models import bag_of_words
from trustnlp.models.many import run_jobs
from trustnlp.progress import silent
from trustnlp.randomness import Streams
from trustnlp.report.explanations import explain
from trustnlp.results import Finding, Verdict
from trustnlp.studies import prediction_sensitivity as study
from trustnlp.studies.prediction_sensitivity import CLAIMED, MEASURES, RIVAL, STUDY, Scale, _claim, agreement, measures
from trustnlp.studies.study import Request

TINY = Scale(("bag-of-words",), (0.0, 1.0), 3, 120, 2)


def test_measures_are_those_of_the_metrics() -> None:
    corpus = PlantedBias(0.5, 300).corpus()
    task, status = (
        bag_of_words.build(each, streams=Streams(seed)) for seed, each in enumerate((corpus, with_status(corpus)))
    )
    texts = [example.text for example in corpus.test]
    found = dict(zip(MEASURES, measures(task, status, corpus), strict=True))
    shares = partial(probabilities, task)
    same = {
        CLAIMED: prediction_sensitivity(task, status, texts, dataset="planted"),
        "sensitivity, lexicon": prediction_sensitivity(task, GENDER, texts, dataset="planted"),
        RIVAL: counterfactual_flip_rate(lambda asked: shares(asked).argmax(1).tolist(), texts, dataset="planted"),
        "counterfactual probability change": counterfactual_probability_change(shares, texts, dataset="planted"),
    }
    for name, finding in same.items():
        assert found[name] == pytest.approx(finding.value, rel=1e-6)


def test_agreement_is_spearmans_over_all_trainings() -> None:
    values = np.random.default_rng(0).integers(0, 5, size=(3, 4, 6)).astype(float)
    strengths = np.linspace(0, 1, 6)
    for found, each in zip(agreement(strengths, values), values, strict=True):
        assert found == pytest.approx(spearmanr(each.ravel(), np.tile(strengths, 4)).statistic)
    assert agreement(strengths, np.ones((1, 4, 6))) == 0
    assert agreement(strengths, np.tile(strengths, (1, 4, 1))) == pytest.approx(1)


def test_it_runs_resumes_and_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "_QUICK", TINY)
    monkeypatch.setattr(study, "run_jobs", partial(run_jobs, way="serial"))
    results = STUDY.run(Request(quick=True), tmp_path / "run", progress=silent)
    agreements = [f for f in results if f.id == "planted-rank-agreement"]
    assert [f.details["cell"]["measure"] for f in agreements] == list(MEASURES)
    assert [f.id for f in results if explain(f.id) is None] == []
    (shown,) = [f.details["attributions"] for f in agreements if "attributions" in f.details]
    assert len(shown) == 8
    assert all(len(row["tokens"]) == len(row["values"]) == len(row["marked"]) for row in shown)
    monkeypatch.setattr(study, "run_jobs", None)  # nothing is trained twice
    assert STUDY.run(Request(quick=True), tmp_path / "run", progress=silent).findings == results.findings


def lead(low: float | None, value: float, high: float | None) -> Finding:
    return Finding("rank-agreement-lead", "Lead", value, low, high, n=5, unit="")


@pytest.mark.parametrize(
    ("leads", "said"),
    [
        ([(0.0, 0.1, 0.2), (0.1, 0.2, 0.3)], Verdict.REPRODUCED),
        ([(-0.1, 0.1, 0.2), (0.1, 0.2, 0.3)], Verdict.INSUFFICIENT_EVIDENCE),
        ([(-0.3, -0.2, -0.1), (0.1, 0.2, 0.3)], Verdict.NOT_REPRODUCED),
        ([(None, 0.5, None)], Verdict.INSUFFICIENT_EVIDENCE),
    ],
)
def test_the_claim_is_judged_by_whole_intervals(leads: list, said: Verdict) -> None:
    found = _claim([lead(*each) for each in leads])
    assert found.verdict is said
    assert found.value == min(value for _, value, _ in leads)


def test_what_cannot_be_planted_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="data"):
        STUDY.run(Request(("snips",)), tmp_path / "data")
    with pytest.raises(ArgumentError, match="models"):
        STUDY.run(Request(models=("oracle",)), tmp_path / "models")
