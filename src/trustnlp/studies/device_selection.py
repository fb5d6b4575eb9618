"""Study `device-selection` (S4): do rounds that pick devices by their activity beat uniform ones, and at what cost?

Dupuy et al. 2022 (arXiv 2202.03925) pick devices by their number of training texts, in a static and in a continual
setting. Here every arm has its weights, its own tuned rate, and two axes: rounds, and texts that devices train on. An
active device brings more texts to a round, so two arms stand for what that alone would give: a larger uniform cohort
and more local epochs, each with as many texts a round as selection by activity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from trustnlp import data
from trustnlp.data.corpus import Corpus, Example
from trustnlp.federated import forgetting
from trustnlp.federated.learning_curves import ROUNDS, area, compared, findings, over_seeds, saved
from trustnlp.federated.selection import Activity, Uniform
from trustnlp.models.many import Arrays, Job, run_jobs
from trustnlp.progress import Progress
from trustnlp.randomness import Streams
from trustnlp.results import Direction, Finding
from trustnlp.studies.selection_training import SETTINGS, SYNTHETIC, Arm, Scale, Training, curves
from trustnlp.studies.study import Cells, Request, Study, verdict

Key = TypeVar("Key")
# Fixed before measuring: the score that counts as reached, as a share of the way from the share of the most frequent
# label to the score with which the baseline ends on other seeds.
_TARGET = 0.95
_TUNING_SEEDS = 1_000  # the first of them; those of the comparison begin at 0


STARS = "amazon-instruments"
BASELINE, CLAIMED = "uniform, n_k", "activity 1, equal"
ARMS = (
    Arm(BASELINE, Uniform("samples")),
    Arm("uniform, equal", Uniform("equal")),
    Arm("activity 0.5, equal", Activity(0.5)),
    Arm(CLAIMED, Activity(1.0)),
    Arm("activity 2, equal", Activity(2.0)),
    Arm("activity 1, n_k", Activity(1.0, "samples")),
    Arm("uniform, larger cohort", Uniform("samples"), "cohort"),
    Arm("uniform, more epochs", Uniform("samples"), "epochs"),
)


_FULL = Scale()
_QUICK = Scale(4, 1, (0.5, 1.0), 48, 8, 4, 150, 900, 3, 200)


# --- all trainings of a corpus -------------------------------------------------------------------------------------


@dataclass
class Trainings:
    """All trainings of a corpus: rates are chosen first, on seeds of their own; nothing is trained twice.

    Args:
        corpus: None for the synthetic one.
        scale: how much.
        seed: of the study.
        folder: of all trainings.
        progress: hears how many are done.
    """

    corpus: Corpus | None
    scale: Scale
    seed: int
    folder: Path
    progress: Progress

    @cached_property
    def rates(self) -> dict[tuple[str, str], float]:
        """By setting and arm, the rate with the largest mean area under the curve; of equals, the smallest."""
        areas = {key: np.mean([area(curves(each)) for each in given]) for key, given in self._tuning.items()}
        found = {}
        for setting, arm in product(SETTINGS, ARMS):
            found[setting, arm.name] = max(self.scale.rates, key=lambda rate: (areas[setting, arm.name, rate], -rate))
        return found

    @cached_property
    def targets(self) -> dict[str, float]:
        """By setting, `_TARGET` of the way from chance to where the baseline ends its periods on the tuning seeds."""
        found = {}
        for setting in SETTINGS:
            given = self._tuning[setting, BASELINE, self.rates[setting, BASELINE]]
            end = np.mean([curve.scores[-1] for each in given for curve in curves(each)])
            chance = np.mean([each["chance"] for each in given])
            found[setting] = float(chance + _TARGET * (end - chance))
        return found

    @cached_property
    def runs(self) -> dict[tuple[str, str], list[Arrays]]:
        """By setting and arm, what each seed of the comparison gave."""
        wanted = {
            (setting, arm.name): [self._training(setting, arm, self.rates[setting, arm.name], n) for n in self._seeds()]
            for setting, arm in product(SETTINGS, ARMS)
        }
        return self._run(wanted, "comparing")

    @cached_property
    def _tuning(self) -> dict[tuple[str, str, float], list[Arrays]]:
        seeds = [_TUNING_SEEDS + number for number in range(self.scale.tuning_seeds)]
        wanted = {
            (setting, arm.name, rate): [self._training(setting, arm, rate, seed) for seed in seeds]
            for setting, arm, rate in product(SETTINGS, ARMS, self.scale.rates)
        }
        return self._run(wanted, "choosing rates")

    def _seeds(self) -> range:
        return range(self.scale.seeds)

    def _training(self, setting: str, arm: Arm, rate: float, number: int) -> Training:
        seed = Streams(self.seed).key("device-selection", number) >> 16
        return Training(self.corpus, setting, arm, rate, seed, self.scale)

    def _run(self, wanted: Mapping[Key, Sequence[Training]], stage: str) -> dict[Key, list[Arrays]]:
        jobs = [Job(training.name, training.run) for trainings in wanted.values() for training in trainings]
        given = iter(run_jobs(jobs, self.folder, progress=self.progress, stage=stage))
        return {key: [next(given) for _ in trainings] for key, trainings in wanted.items()}


# --- findings ------------------------------------------------------------------------------------------------------


def _cell(trainings: Trainings, setting: str, arm: Arm) -> list[Finding]:
    """All that is said of one arm in one setting."""
    runs = trainings.runs[setting, arm.name]
    others = trainings.runs[setting, BASELINE]
    own, target = [curves(each) for each in runs], trainings.targets[setting]
    found = list(findings(own, target))
    if arm.name != BASELINE:
        found += compared(own, [curves(each) for each in others], target)
    matrices = np.array([each["scores"] for each in runs])
    if setting == "continual":
        static = np.array([each["scores"][-1] for each in trainings.runs["static", arm.name]])
        found += forgetting.findings(matrices, static)
    else:
        title = "Score after the last period, mean over the test sets of all periods"
        higher: dict[str, Any] = {"direction": Direction.HIGHER, "ideal": 1.0}
        found.append(over_seeds("average-accuracy", title, matrices[:, -1].mean(1), **higher))
    found += _costs(runs, others if arm.name != BASELINE else None)
    rate = {"rate": trainings.rates[setting, arm.name], "diverged": int(sum(each["diverged"] for each in runs))}
    return [replace(finding, details={**finding.details, **rate}) for finding in found]


def _costs(runs: Sequence[Arrays], others: Sequence[Arrays] | None) -> list[Finding]:
    """What an arm asks of the largest device, and what it gives to the light ones."""
    title = "Texts on the largest device of a round, for which the others wait"
    largest = [float(each["largest"]) for each in runs]
    found = [over_seeds("largest-device-texts", title, largest, unit="texts", direction=Direction.LOWER)]
    light = np.array([float(each["light"]) for each in runs])
    if not np.isfinite(light).all():
        return found
    higher: dict[str, Any] = {"direction": Direction.HIGHER}
    title = "Accuracy of the less active half of the devices"
    found.append(over_seeds("accuracy-light-half", title, light, ideal=1.0, **higher))
    if others is not None and np.isfinite(rest := np.array([float(each["light"]) for each in others])).all():
        title = "Accuracy of the less active half of the devices, less that with the other arm"
        found.append(over_seeds("light-half-lead", title, light - rest, **higher))
    return found


def _excess(trainings: Trainings) -> Finding:
    """By how much more the claimed arm saves in the continual setting, seed by seed."""
    continual, static = (_shares(trainings, setting) for setting in reversed(SETTINGS))
    title = "Share of the rounds saved in the continual setting, less that in the static one"
    return over_seeds("rounds-saved-excess", title, continual - static, direction=Direction.HIGHER)


def _shares(trainings: Trainings, setting: str) -> np.ndarray:
    """(S,) what the claimed arm saves with each seed."""
    pairs = zip(trainings.runs[setting, CLAIMED], trainings.runs[setting, BASELINE], strict=True)
    target = trainings.targets[setting]
    return np.array([saved(curves(run), curves(other), target, ROUNDS) for run, other in pairs])


def _measure(request: Request, cells: Cells, progress: Progress) -> list[Finding]:
    found: list[Finding] = []
    for name in request.data or ((SYNTHETIC,) if request.quick else (SYNTHETIC, STARS)):
        found += _of_corpus(name, request, cells, progress)
    return [_claim(found), *found]


def _of_corpus(name: str, request: Request, cells: Cells, progress: Progress) -> list[Finding]:
    scale, shown = _QUICK if request.quick else _FULL, Path(name).stem

    @cache
    def trainings(run: Path) -> Trainings:  # read and trained only where a cell is missing
        return Trainings(_corpus(name), scale, request.seed, run / "trainings" / shown, progress)

    found: list[Finding] = []
    for setting, arm in product(SETTINGS, ARMS):

        def one(path: Path, setting: str = setting, arm: Arm = arm) -> list[Finding]:
            return _cell(trainings(path.parents[1]), setting, arm)

        found += cells.measure({"corpus": shown, "setting": setting, "arm": arm.name}, one)
    both = {"corpus": shown, "setting": "continual less static", "arm": CLAIMED}
    found += cells.measure(both, lambda path: [_excess(trainings(path.parents[1]))])
    return found


def _corpus(name: str) -> Corpus | None:
    """None for the synthetic one; of stars, all five against fewer, as a small model cannot tell the fewer apart."""
    if name == SYNTHETIC:
        return None
    corpus = data.load(name)
    if corpus.name != STARS:
        return corpus

    def two(examples: Sequence[Example]) -> tuple[Example, ...]:
        return tuple(replace(one, label="five" if one.label == "5" else "fewer") for one in examples)

    return replace(corpus, train=two(corpus.train), valid=two(corpus.valid), test=two(corpus.test))


def _claim(found: Sequence[Finding]) -> Finding:
    """Reproduced where all intervals lie above 0; not reproduced where one lies at or below 0."""
    asked = [
        finding
        for finding in found
        if finding.details["cell"]["arm"] == CLAIMED and finding.id in ("rounds-saved", "rounds-saved-excess")
    ]
    above = all(finding.low is not None and finding.low > 0 for finding in asked)
    below = any(finding.high is not None and finding.high <= 0 for finding in asked)
    worst = min(asked, key=lambda finding: finding.value or 0.0)
    return verdict(
        "Share of the rounds saved by selection by activity: the least of both settings and their difference",
        above or (False if below else None),
        value=worst.value,
        low=worst.low,
        high=worst.high,
        n=worst.n,
        direction=Direction.HIGHER,
        source="Dupuy et al. 2022, arXiv 2202.03925",
        details={"cell": worst.details["cell"], "figure": worst.id},
    )


STUDY = Study(
    name="device-selection",
    system="S4",
    claim=(
        "Selecting devices by activity beats uniform selection, and more so in the continual setting. Counted as "
        "reproduced where, on every corpus, selection in proportion to the number of texts (gamma 1, equal weights) "
        "saves rounds against uniform selection weighted by texts, in the static and in the continual setting, and a "
        "larger share of them in the continual one, with intervals over paired seeds wholly above 0; not reproduced "
        f"where one of these lies at or below 0. Saved are rounds until {_TARGET:.0%} of the way from the share of the "
        "most frequent label to the score with which the uniform arm ends on other seeds; a run that never gets there "
        "counts with all its rounds. What this costs in texts, waiting and the accuracy of light users is told beside "
        "it, as is what a larger cohort or more epochs would have given."
    ),
    axes={"panel": ("corpus",), "rows": ("arm",), "columns": ("setting",)},
    measure=_measure,
)
