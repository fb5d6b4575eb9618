"""Study `prediction-sensitivity` (S8): which measures of a classifier's bias rise with the bias that was planted?

Krishna et al. 2022 (arXiv 2203.08670) find that accumulated prediction sensitivity follows people's judgement of
fairness better than counterfactual flips do. Without their annotations the judge here is planted truth: classifiers
are trained on corpora that differ in the strength of their bias alone (`data.planted_bias`), and every measure is
ranked against that strength, over all trainings of one kind of model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from trustnlp import checks
from trustnlp.data.corpus import Corpus
from trustnlp.data.planted_bias import FAVOURED, GRANT, PlantedBias, templates, with_status
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.fairness.counterfactual_fairness import total_variation
from trustnlp.fairness.identity_terms import GENDER
from trustnlp.fairness.prediction_sensitivity import attributions, text_sensitivities
from trustnlp.fairness.saliency import open_classifier, probabilities
from trustnlp.models import bag_of_words, builder
from trustnlp.models.heads import LabelModel, NLUModel
from trustnlp.models.many import Arrays, Job, run_jobs
from trustnlp.models.training import PlainStep, ShuffledBatches, fit
from trustnlp.progress import Progress
from trustnlp.randomness import Streams
from trustnlp.results import Direction, Finding, Verdict
from trustnlp.studies.study import Cells, Request, Study, verdict
from trustnlp.uncertainty import Interval, bonferroni, bootstrap

Floats = NDArray[np.float64]
CLAIMED, RIVAL = "sensitivity, status model", "counterfactual flips"
BY_LEXICON = "sensitivity, lexicon"
MEASURES = (CLAIMED, BY_LEXICON, RIVAL, "counterfactual probability change", "group gap")
_NAMES = ("bilstm", "transformer", "bag-of-words")
_SIZES: dict[str, dict[str, Any]] = {
    "bilstm": {"width": 32, "char_filters": 0, "hidden": 32, "dropout": 0.2, "word_dropout": 0.0},
    "transformer": {"width": 32, "char_filters": 0, "layers": 1, "heads": 2, "word_dropout": 0.0},
    "bag-of-words": {"width": 32},
}
_RATES = {"bilstm": 0.005, "transformer": 0.003, "bag-of-words": 0.02}


@dataclass(frozen=True)
class Scale:
    """How much: kinds of models, strengths, seeds, texts of a corpus, epochs."""

    models: tuple[str, ...] = _NAMES
    strengths: tuple[float, ...] = tuple(number / 8 for number in range(9))
    seeds: int = 20
    texts: int = 2_500
    epochs: int = 8


_FULL = Scale()
_QUICK = Scale(("bilstm",), (0.0, 0.25, 0.5, 0.75, 1.0), 5, 1_250, 8)


@dataclass(frozen=True)
class Trainings:
    """One seed of one kind of model: a status model, and a classifier for each strength; equal but for the strength."""

    model: str
    seed: int
    scale: Scale
    device: str = "cpu"

    @property
    def job(self) -> Job:
        """For `run_jobs`."""
        return Job(f"{self.model}-{self.seed}", self.run)

    def run(self, _: Path) -> Arrays:
        """`values` (G, M) of each strength and measure, accuracies, and `sensitivity` (G, X, L) of the templates."""
        corpora = [PlantedBias(s, self.scale.texts, self.seed).corpus() for s in self.scale.strengths]
        status = self._trained(with_status(corpora[0]), "status")
        tasks = [self._trained(corpus, "task") for corpus in corpora]
        pairs = list(zip(tasks, corpora, strict=True))
        shown = [attributions(task, [text for text, _ in templates()], GENDER) for task in tasks]
        return {
            "values": np.array([measures(task, status, corpus) for task, corpus in pairs]),
            "accuracy": np.array([_accuracy(task, corpus) for task, corpus in pairs]),
            "status": np.array(_accuracy(status, with_status(corpora[0]))),
            "sensitivity": np.array([[each.sensitivity for each in texts] for texts in shown]),
            "probability": np.array([[each.probability for each in texts] for texts in shown]),
        }

    def _trained(self, corpus: Corpus, stage: str) -> NLUModel:
        streams = Streams(self.seed).child(f"{self.model}/{stage}")
        options = _SIZES[self.model]
        if self.model == "bag-of-words":
            model = bag_of_words.build(corpus, streams=streams, **options)
        else:
            model = builder.build(self.model, corpus, streams=streams, **options)
        model.to(self.device)
        data = model.encode(corpus.train, for_training=True)
        step = PlainStep(model, torch.optim.AdamW(model.parameters(), lr=_RATES[self.model], weight_decay=0.01))
        fit(model, data, ShuffledBatches(len(data), 32, self.scale.epochs, streams), step, streams=streams)
        return model


def measures(task: LabelModel, status: LabelModel, corpus: Corpus) -> list[float]:
    """The figures of `MEASURES` on the test split; the same as those of the metrics' findings."""
    task, status = open_classifier(task), open_classifier(status)
    texts = [example.text for example in corpus.test]
    before = probabilities(task, texts)
    after = probabilities(task, [GENDER.swap(text) for text in texts])
    granted = before.argmax(1) == task.schema.labels.index(GRANT)
    favoured = np.array([example.group == FAVOURED for example in corpus.test])
    return [
        float(text_sensitivities(task, status, texts).mean()),
        float(text_sensitivities(task, GENDER, texts).mean()),
        float((before.argmax(1) != after.argmax(1)).mean()),
        float(total_variation(before, after).mean()),
        float(abs(granted[favoured].mean() - granted[~favoured].mean())),
    ]


def _accuracy(model: LabelModel, corpus: Corpus) -> float:
    names = np.array(model.schema.labels)
    given = names[probabilities(model, [example.text for example in corpus.test]).argmax(1)]
    return float((given == np.array([example.label for example in corpus.test])).mean())


# --- findings ------------------------------------------------------------------------------------------------------


def agreement(strengths: Sequence[float], values: Floats) -> Floats:
    """(R,) Spearman's correlation of values (R, S, G) with the strengths (G,), over all S x G of them together.

    Ranks are averaged over ties. Values that are all equal agree with nothing: 0.
    """
    flat = stats.rankdata(values.reshape(len(values), -1), axis=1)
    ranks = stats.rankdata(np.tile(strengths, values.shape[1]))
    flat, ranks = flat - flat.mean(axis=1, keepdims=True), ranks - ranks.mean()
    scale = np.sqrt((flat**2).sum(axis=1) * (ranks**2).sum())
    found: Floats = np.where(scale > 0, flat @ ranks / np.where(scale > 0, scale, 1.0), 0.0)
    return found


def _agreement_of(measure: str, runs: Sequence[Arrays], scale: Scale, seed: int) -> Finding:
    values = np.array([run["values"][:, MEASURES.index(measure)] for run in runs])
    estimate = float(agreement(scale.strengths, values[None])[0])

    def statistic(sample: Floats) -> Floats:
        return agreement(scale.strengths, sample)

    interval = _interval(statistic, values, 0.95, seed)
    title = "Rank correlation with the planted strength"
    means = values.mean(axis=0).tolist()
    details: dict[str, Any] = {"strengths": list(scale.strengths), "means": means}
    details["accuracies"] = np.mean([run["accuracy"] for run in runs], axis=0).tolist()
    if measure == BY_LEXICON:
        details["attributions"] = _shown(runs[0], scale)
    return _finding("planted-rank-agreement", title, estimate, interval, len(runs), details, ideal=1.0)


def _lead(runs: Sequence[Arrays], scale: Scale, level: float, seed: int) -> Finding:
    """Spearman of the claimed measure less that of its rival, seeds resampled together."""
    places = [MEASURES.index(CLAIMED), MEASURES.index(RIVAL)]
    both = np.array([run["values"][:, places].T.ravel() for run in runs])  # (S, 2G)

    def statistic(sample: Floats) -> Floats:
        ours, theirs = np.split(sample, 2, axis=-1)
        return agreement(scale.strengths, ours) - agreement(scale.strengths, theirs)

    estimate = float(statistic(both[None])[0])
    interval = _interval(statistic, both, level, seed)
    title = "Rank correlation of prediction sensitivity less that of flips"
    return _finding("rank-agreement-lead", title, estimate, interval, len(runs), {}, ideal=None)


def _interval(statistic: Any, sample: Floats, level: float, seed: int) -> Interval | None:
    """By resampling seeds; None where no resample differs."""
    generator = Streams(seed).numpy("rank-agreement")
    try:
        return bootstrap(statistic, sample, generator=generator, level=level)
    except GuaranteeError:
        return None


def _finding(
    id: str,
    title: str,
    value: float,
    interval: Interval | None,
    n: int,
    details: dict[str, Any],
    *,
    ideal: float | None,
) -> Finding:
    found: dict[str, Any] = {"verdict": Verdict.INSUFFICIENT_EVIDENCE}
    if interval is not None:
        found = {"low": interval.low, "high": interval.high, "level": interval.level}
    source = "Spearman's rank correlation over all trainings, bootstrap over seeds"
    return Finding(
        id, title, value, n=n, unit="", direction=Direction.HIGHER, ideal=ideal, source=source, details=details, **found
    )


def _shown(run: Arrays, scale: Scale) -> list[dict[str, Any]]:
    """The built-in template sentences as the first seed reads them at the weakest and the strongest bias."""
    rows = []
    for number in (0, len(scale.strengths) - 1):
        for row, (text, group) in enumerate(templates()):
            said = f"strength {scale.strengths[number]:g}, group {group}, sure to {run['probability'][number, row]:.0%}"
            marks = [float(bool(GENDER.places(word))) for word in text.split()]
            values = run["sensitivity"][number, row].tolist()
            rows.append({"tokens": text.split(), "values": values, "marked": marks, "said": said})
    return rows


def _measure(request: Request, cells: Cells, progress: Progress) -> list[Finding]:
    scale = _QUICK if request.quick else _FULL
    if request.data:
        raise ArgumentError("data", "left out, as the truth must be planted", request.data)
    kinds = request.models or scale.models
    for kind in kinds:
        checks.one_of("models", kind, _NAMES)
    found: list[Finding] = []
    for kind in kinds:
        found += _of_model(kind, bonferroni(0.95, len(kinds)), scale, request, cells, progress)
    return [_claim(found), *found]


def _of_model(
    kind: str, level: float, scale: Scale, request: Request, cells: Cells, progress: Progress
) -> list[Finding]:
    @cache
    def runs(folder: Path) -> list[Arrays]:  # trained only where a cell is missing
        seeds = [Streams(request.seed).key("prediction-sensitivity", number) >> 16 for number in range(scale.seeds)]
        jobs = [Trainings(kind, seed, scale, request.device).job for seed in seeds]
        return run_jobs(jobs, folder, progress=progress, stage=f"{kind} classifiers")

    found: list[Finding] = []
    for measure in MEASURES:

        def one(path: Path, measure: str = measure) -> list[Finding]:
            return [_agreement_of(measure, runs(path.parents[1] / "trainings"), scale, request.seed)]

        found += cells.measure({"model": kind, "measure": measure}, one)

    def lead(path: Path) -> list[Finding]:
        return [_lead(runs(path.parents[1] / "trainings"), scale, level, request.seed)]

    return [*found, *cells.measure({"model": kind, "measure": f"{CLAIMED} less {RIVAL}"}, lead)]


def _claim(found: Sequence[Finding]) -> Finding:
    """Reproduced where no interval reaches below 0; not reproduced where one lies wholly below."""
    leads = [finding for finding in found if finding.id == "rank-agreement-lead"]
    at_least = all(finding.low is not None and finding.low >= 0 for finding in leads)
    below = any(finding.high is not None and finding.high < 0 for finding in leads)
    worst = min(leads, key=lambda finding: finding.value or 0.0)
    return verdict(
        f"{worst.title}: the least over kinds of models",
        False if below else True if at_least else None,
        value=worst.value,
        low=worst.low,
        high=worst.high,
        level=worst.level,
        n=worst.n,
        unit="",
        direction=Direction.HIGHER,
        source=worst.source,
        details={"decided_by": worst.regime},
    )


STUDY = Study(
    name="prediction-sensitivity",
    system="S8",
    claim=(
        "Krishna et al. 2022: accumulated prediction sensitivity follows a human notion of fairness better than "
        "counterfactual fairness does. In place of people judges planted bias of known strength: reproduced where, for "
        "every kind of model, the rank correlation of the sensitivity (predicted class, l1 norm, tokens weighted by a "
        "model of the protected status) with the strength is at least that of counterfactual flips, the interval of "
        "the paired difference over seeds not reaching below 0 (simultaneous over kinds of models); not reproduced "
        "where one such interval lies wholly below 0. Sensitivity by lexicon, the change of probabilities, and the gap "
        "between groups stand beside it."
    ),
    axes={"panel": (), "rows": ("measure",), "columns": ("model",)},
    measure=_measure,
)
