"""One federated training of the study of device selection: an arm in a setting, with a rate and a seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trustnlp.data.corpus import Corpus, Example
from trustnlp.data.synthetic import Parameters
from trustnlp.data.synthetic_devices import SyntheticDevices
from trustnlp.errors import ModelError
from trustnlp.federated import served
from trustnlp.federated.cohort import Selection
from trustnlp.federated.continual import UNKNOWN, AllAtOnce, Periods, learn, of_corpus
from trustnlp.federated.fedavg import FedAvg
from trustnlp.federated.learning_curves import Curve
from trustnlp.federated.local_training import LocalTraining
from trustnlp.models import bag_of_words
from trustnlp.models.evaluation import predict
from trustnlp.models.heads import NLUModel
from trustnlp.models.many import Arrays
from trustnlp.randomness import Streams

SETTINGS = ("static", "continual")
SYNTHETIC = "synthetic"


@dataclass(frozen=True)
class Arm:
    """A way to select devices.

    Args:
        name: as it is shown.
        selection: the rule and its weights.
        matched: `cohort` or `epochs`, which of them is raised until a round has as many texts as with gamma 1.
    """

    name: str
    selection: Selection
    matched: str = ""


@dataclass(frozen=True)
class Scale:
    """How much is done.

    Args:
        seeds, tuning_seeds: of the comparison, and of the choice of rates; disjoint.
        rates: of learning, among which each arm in each setting has its best.
        rounds: of both settings; in the continual one the periods share them.
        cohort: devices of a round.
        every: rounds from one measurement to the next.
        users, texts: of each period of the synthetic corpus.
        periods, tests: how many periods, and texts to test each with.
    """

    seeds: int = 8
    tuning_seeds: int = 3
    rates: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0)
    rounds: int = 300
    cohort: int = 20
    every: int = 5
    users: int = 1_000
    texts: int = 5_000
    periods: int = 4
    tests: int = 1_000


@dataclass(frozen=True)
class Training:
    """One arm in one setting with one rate and seed; the same seed is the same devices, texts and first weights.

    Args:
        corpus: None for the synthetic one.
    """

    corpus: Corpus | None
    setting: str
    arm: Arm
    rate: float
    seed: int
    scale: Scale

    @property
    def name(self) -> str:
        """Of its folder."""
        arm = "-".join(self.arm.name.replace(",", "").split())
        return f"{self.setting}-{arm}-{self.rate:g}-{self.seed}"

    def run(self, folder: Path) -> Arrays:
        """What `curves` reads, the `scores` (P, J), what it costs, chance, and whether it diverged."""
        periods = self._periods()
        model = bag_of_words.build(self._schema(periods), streams=Streams(self.seed), pooling="root")
        algorithm = self._algorithm(periods)
        try:
            course = learn(
                periods,
                model,
                algorithm,
                selection=self.arm.selection,
                streams=Streams(self.seed).child(self.setting),
                evaluate_every=self.scale.every,
                checkpoint_every=50,
                folder=folder,
            )
        except ModelError:
            return self._diverged(periods, algorithm)
        found = {"scores": course.scores, "largest": np.array(course.largest), "diverged": np.array(0)}
        about = {"light": np.array(light_half(model, periods)), "chance": np.array(chance(periods))}
        return found | _as_arrays(course.curves) | about

    def _periods(self) -> Periods:
        if self.corpus is None:
            about = Parameters(
                self.scale.texts, self.scale.users, self.seed, periods=self.scale.periods, canaries=False, drift=1.5
            )
            periods: Periods = SyntheticDevices(about, 0.2, 0.3, 1.0, self.scale.tests)
        else:
            periods = of_corpus(self.corpus, self.scale.periods)
        return periods if self.setting == "continual" else AllAtOnce(periods)

    def _schema(self, periods: Periods) -> Corpus:
        """Labels alone: what the model answers."""
        if self.corpus is not None:
            return self.corpus
        inner = periods.periods if isinstance(periods, AllAtOnce) else periods
        assert isinstance(inner, SyntheticDevices)  # noqa: S101 (as `_periods` made them)
        return Corpus(SYNTHETIC, tuple(Example("any", label) for label in inner.labels))

    def _algorithm(self, periods: Periods) -> FedAvg:
        """As many texts a round as with gamma 1, where the arm is matched: sum n^2 / sum n for the mean n."""
        sizes = periods.sizes(0)
        sizes = sizes[sizes > 0].astype(float)
        factor = max(1, round(float((sizes**2).mean() / sizes.mean() ** 2)))
        cohort, epochs = self.scale.cohort, 1
        if self.arm.matched == "cohort":
            least = min(int((periods.sizes(period) > 0).sum()) for period in range(len(periods)))
            cohort = min(cohort * factor, least)
        elif self.arm.matched == "epochs":
            epochs = factor
        rounds = self.scale.rounds // len(periods)
        return FedAvg(rounds, cohort, LocalTraining(self.rate, 8, epochs))

    def _diverged(self, periods: Periods, algorithm: FedAvg) -> Arrays:
        """A score of 0 throughout, and the texts that the mean device would have had."""
        rounds = np.unique(np.append(np.arange(self.scale.every, algorithm.rounds, self.scale.every), algorithm.rounds))
        sizes = periods.sizes(0)
        texts = rounds * algorithm.cohort * algorithm.local.epochs * max(1, round(sizes[sizes > 0].mean()))
        found = {"scores": np.zeros((len(periods), periods.tests)), "diverged": np.array(1)}
        about = {"largest": np.array(0.0), "light": np.array(0.0), "chance": np.array(chance(periods))}
        return found | _as_arrays([Curve(rounds, texts, np.zeros(len(rounds)))] * len(periods)) | about


def light_half(model: NLUModel, periods: Periods) -> float:
    """Accuracy on the test texts of the less active half of the devices; NaN where they have too few."""
    texts = [example for number in range(periods.tests) for example in periods.test(number)]
    devices = np.array([periods.device_of(example.user or "") for example in texts])
    known = devices != UNKNOWN
    whole = AllAtOnce(periods).sizes(0)
    correct = predict(model, model.encode(texts)).correct
    halves = served.accuracy(correct[known], devices[known], whole)
    value = next(finding.value for finding in halves if finding.id == "accuracy-light-half")
    return float("nan") if value is None else value


def chance(periods: Periods) -> float:
    """The share of the most frequent label, mean over the test sets: what needs no learning."""
    counts = [Counter(example.label for example in periods.test(number)) for number in range(periods.tests)]
    return float(np.mean([max(count.values()) / count.total() for count in counts]))


def _as_arrays(curves: Sequence[Curve]) -> Arrays:
    return {
        f"{name}-{number}": getattr(curve, name)
        for number, curve in enumerate(curves)
        for name in ("rounds", "texts", "scores")
    }


def curves(given: Arrays) -> list[Curve]:
    """The curve of each period of what a training gave."""
    count = sum(name.startswith("rounds-") for name in given)
    return [Curve(*(given[f"{name}-{number}"] for name in ("rounds", "texts", "scores"))) for number in range(count)]
