from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from trustnlp.attacks import language_scores
from trustnlp.dp import accounting
from trustnlp.models.token_scores import TokenScores
from trustnlp.progress import silent
from trustnlp.randomness import Streams
from trustnlp.results import Finding, Verdict
from trustnlp.studies import language_training, reference_attack
from trustnlp.studies.language_training import FITTED, MEMORISED, PRIVATE, REFERENCE
from trustnlp.studies.recipes import PrivateRecipe, Recipe
from trustnlp.studies.reference_attack import ALONE, NONE, PLANTED, PUBLISHED, RATIO, SMOOTHED, STUDY, Scale
from trustnlp.studies.study import Request

SCALE = Scale(
    texts=100,
    background=60,
    tokens=5,
    cases=((FITTED, NONE), (MEMORISED, PLANTED), (PRIVATE, PLANTED)),
    repetitions=(1, 9),
    per_count=2,
    digits=1,
    neighbours=1,
)


@pytest.fixture
def paragraphs(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    syllables = ["ba", "ke", "Li", "mo", "nu", "ta", "ri", "so"]
    words = generator.integers(len(syllables), size=(330, 6, 2))
    lines = [" ".join("".join(syllables[i] for i in word) for word in row) for row in words]
    path = tmp_path / "paragraphs.txt"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, remembered_noise) -> None:
    monkeypatch.setattr(reference_attack, "QUICK", SCALE)
    monkeypatch.setattr(accounting, "calibrate", remembered_noise)
    monkeypatch.setattr(language_training, "_SHAPE", {"width": 16, "layers": 1, "heads": 2, "max_pieces": 128})
    plain = {REFERENCE: Recipe(3e-3, 32, 1), FITTED: Recipe(3e-3, 32, 1), MEMORISED: Recipe(1e-2, 16, 4)}
    monkeypatch.setattr(language_training, "_PLAIN", plain)
    monkeypatch.setattr(language_training, "_PRIVATE", PrivateRecipe(5e-3, 32, 1, options={"dropout": 0.0}))


@pytest.mark.usefixtures("small")
def test_every_attack_on_every_model_and_nothing_twice(paragraphs, tmp_path):
    request = Request((str(paragraphs),), ("bytes",), quick=True)
    results = STUDY.run(request, tmp_path / "run", progress=silent)
    findings = results.findings
    assert [finding.id for finding in findings[:2]] == ["claim", "blind-classifier-auc"]
    cells = {tuple(f.details["cell"].values())[2:] for f in findings if f.id == "held-out-loss"}
    assert cells == {(REFERENCE, NONE), (FITTED, NONE), (MEMORISED, PLANTED), (PRIVATE, PLANTED)}
    attacks = {*ALONE, "reference-difference", RATIO, SMOOTHED, PUBLISHED}
    for training in (FITTED, MEMORISED, PRIVATE):
        here = {f.id for f in findings if f.details["cell"].get("training") == training}
        assert {f"membership-{attack}-tpr-at-1pct-fpr" for attack in attacks} | {"reference-lead"} <= here
        assert ("epsilon" in here) == (training == PRIVATE)
        assert ("canary-exposure" in here) == ("extraction-greedy-canaries" in here) == (training != FITTED)
    control = {f.id for f in findings if f.details["cell"].get("training") == REFERENCE}
    assert control >= {f"membership-{attack}-auc" for attack in ALONE}
    assert not any(RATIO in id or SMOOTHED in id for id in control)
    again = STUDY.run(request, tmp_path / "run", progress=silent)
    assert again.findings == findings


def scores(log_probs, right):
    rows = tuple(np.log(np.array(row, dtype=float)) for row in log_probs)
    return TokenScores(rows, rows, rows, tuple(np.array(row, dtype=bool) for row in right))


def test_the_published_error_zone_ranks_what_is_known_by_heart_lowest():
    own = scores([[0.2, 0.1, 0.9], [0.9, 0.9, 0.9], [0.4, 0.2, 0.9]], [[0, 0, 1], [1, 1, 1], [0, 0, 1]])
    other = scores([[0.1, 0.2, 0.3], [0.1, 0.1, 0.1], [0.1, 0.1, 0.9]], [[0, 0, 0]] * 3)
    assert reference_attack.published_error_zone(own, other) == pytest.approx([1.0, 0.0, 0.0])
    smoothed = language_scores.error_zone(own, other, smoothing=1e-9)
    assert smoothed[0] == pytest.approx(1.0, rel=1e-6)  # where the published score is sound, it is the limit
    assert smoothed[1] > smoothed[0]


def setting(texts: int = 400) -> SimpleNamespace:
    return SimpleNamespace(
        streams=Streams(0),
        texts=range(2 * texts),
        scale=SimpleNamespace(texts=texts),
        halves=lambda values: (values[:texts], values[texts:]),
    )


def lead(scores, better, others, texts=400) -> Finding:
    return reference_attack._lead("reference-lead", "Lead", better, others, scores=scores, setting=setting(texts))


class TestLead:
    def test_it_is_the_least_over_the_others(self):
        generator = np.random.default_rng(1)
        shifts = {"strong": 3.0, "weak": 0.5, "middle": 1.5}
        truth = np.arange(800) < 400
        found = lead(
            {name: generator.normal(size=800) + truth * s for name, s in shifts.items()}, "strong", ("weak", "middle")
        )
        assert found.value == found.details["leads"]["middle"] < found.details["leads"]["weak"]
        assert 0 < found.low < found.value < found.high
        assert lead({"same": np.arange(800.0), "again": np.arange(800.0)}, "same", ("again",)).value == 0

    def test_its_interval_covers_the_true_lead_of_scores_of_the_same_texts(self):
        generator, texts, runs, covered = np.random.default_rng(2), 400, 120, 0
        threshold = stats.norm.isf(0.01)
        truth = stats.norm.sf(threshold - 2.0) - stats.norm.sf(threshold - 1.0)
        for _ in range(runs):
            shared, own, other = generator.normal(size=(3, 2 * texts))
            inside = np.arange(2 * texts) < texts
            pair = {
                "strong": (shared + own) / np.sqrt(2) + 2.0 * inside,
                "weak": (shared + other) / np.sqrt(2) + 1.0 * inside,
            }
            found = lead(pair, "strong", ("weak",), texts)
            covered += found.low <= truth <= found.high
        assert covered / runs >= 0.95

    def test_too_few_nonmembers_show_nothing(self):
        values = np.random.default_rng(3).normal(size=120)
        found = lead({"a": values, "b": values}, "a", ("b",), texts=60)
        assert (found.value, found.verdict) == (None, Verdict.INSUFFICIENT_EVIDENCE)


def finding(
    id: str, training: str, low: float | None, high: float | None, verdict: Verdict = Verdict.MEASURED
) -> Finding:
    details = {"cell": {"training": training}}
    return Finding(id, "F", low, low, high, n=9, verdict=verdict, details=details)


LEADS = finding("reference-lead", FITTED, 0.1, 0.3)
SMOOTH = finding("smoothing-lead", MEMORISED, 0.2, 0.4)
HELD = finding(f"membership-{RATIO}-tpr-at-1pct-fpr", PRIVATE, 0.0, 0.02, Verdict.NO_LEAK_FOUND)
FAIR = finding("blind-classifier-auc", REFERENCE, 0.45, 0.55, Verdict.NO_BIAS_FOUND)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, Verdict.REPRODUCED),
        ({0: replace(LEADS, low=-0.1)}, Verdict.INSUFFICIENT_EVIDENCE),
        ({0: replace(LEADS, value=-0.2, low=-0.3, high=-0.1)}, Verdict.NOT_REPRODUCED),
        ({1: replace(SMOOTH, value=-0.2, low=-0.3, high=-0.1)}, Verdict.NOT_REPRODUCED),
        ({2: replace(HELD, verdict=Verdict.LEAKS)}, Verdict.NOT_REPRODUCED),
        ({2: replace(HELD, verdict=Verdict.INSUFFICIENT_EVIDENCE)}, Verdict.INSUFFICIENT_EVIDENCE),
        ({3: replace(FAIR, verdict=Verdict.BIASED_SPLIT)}, Verdict.INSUFFICIENT_EVIDENCE),
    ],
)
def test_the_claim_needs_all_its_parts(changed, said):
    findings = [changed.get(place, each) for place, each in enumerate((LEADS, SMOOTH, HELD, FAIR))]
    claim = reference_attack._claim(findings)
    assert claim.verdict is said
    assert claim.value == findings[0].value
