"""What holds of every algorithm, on a tiny model with dropout: the same bits, and no harm from bad answers."""

import copy
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trustnlp import federated, models
from trustnlp.data.corpus import Corpus, Example
from trustnlp.federated import simulator
from trustnlp.federated.algorithm import Algorithm
from trustnlp.federated.conditions import HUGE, Conditions
from trustnlp.federated.crew import Setting
from trustnlp.federated.fedavg import FedAvg
from trustnlp.federated.fedbuff import FedBuff
from trustnlp.federated.feddyn import FedDyn
from trustnlp.federated.fednova import FedNova
from trustnlp.federated.fedopt import FedOpt
from trustnlp.federated.fedprox import FedProx
from trustnlp.federated.local_training import LocalTraining, Vectors
from trustnlp.federated.lora import AveragedLora, FrozenLora, Lora, MergedLora, ProjectedLora
from trustnlp.federated.low_rank import adapt
from trustnlp.federated.moon import Moon
from trustnlp.federated.named_lora import ToAdapt
from trustnlp.federated.population import Partitioned
from trustnlp.federated.scaffold import Scaffold
from trustnlp.federated.selection import Uniform
from trustnlp.federated.simulator import History, simulate
from trustnlp.federated.worker import Returned, Task, Worker
from trustnlp.models.worker_processes import one_thread
from trustnlp.randomness import Streams

ROUNDS, COHORT = 4, 5
WORDS = ["play", "some", "jazz", "song", "by", "nina", "will", "it", "rain", "in", "rome", "tomorrow"]
EXAMPLES = [
    Example(" ".join(WORDS[(3 * i + j) % len(WORDS)] for j in range(2 + i % 3)), ("music", "weather")[i % 2])
    for i in range(18)
]
LOCAL = LocalTraining(0.1, 2)

Made = tuple[models.NLUModel, Algorithm]


def model() -> models.NLUModel:
    sizes = {"buckets": 32, "width": 6, "char_width": 4, "char_filters": 4, "hidden": 6, "dropout": 0.3}
    return models.build("bilstm", Corpus("tiny", tuple(EXAMPLES)), streams=Streams(0), **sizes)


def plain(kind: type[Algorithm], **more: Any) -> Callable[[], Made]:
    return lambda: (model(), kind(ROUNDS, COHORT, LOCAL, **more))


def adapted(kind: type[Lora]) -> Callable[[], Made]:
    def make() -> Made:
        whole = model()
        adapt(whole, 1, layers=("*head",), trained=("backbone.*",), streams=Streams(0))
        return whole, kind.of(whole, ROUNDS, COHORT, local=LOCAL)

    return make


CASES: dict[str, Callable[[], Made]] = {
    "FedAvg": plain(FedAvg),
    "FedProx": plain(FedProx),
    "FedOpt-adam": plain(FedOpt),
    "FedOpt-yogi": plain(FedOpt, optimiser="yogi"),
    "FedOpt-adagrad": plain(FedOpt, optimiser="adagrad"),
    "FedOpt-momentum": plain(FedOpt, optimiser="momentum", server_rate=1.0),
    "Scaffold": plain(Scaffold),
    "FedNova": plain(FedNova),
    "FedDyn": plain(FedDyn),
    "Moon": plain(Moon),
    "FedBuff": plain(FedBuff, buffer=4),
    **{kind.__name__: adapted(kind) for kind in (AveragedLora, FrozenLora, MergedLora, ProjectedLora)},
}


def run(name: str, **more: Any) -> tuple[Tensor, Tensor, History]:
    """The first weights, the last, and what happened."""
    whole, algorithm = CASES[name]()
    devices = tuple(np.split(np.arange(18), [2, 5, 9, 12, 14]))
    population = Partitioned(whole.encode(EXAMPLES, for_training=True), devices)
    first = _vector(whole)
    history = simulate(population, whole, algorithm, **{"streams": Streams(1), "selection": Uniform("equal"), **more})
    return first, _vector(whole), history


@cache
def undisturbed(name: str) -> tuple[Tensor, Tensor, History]:
    return run(name)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else one worker would have all devices of a round."""
    monkeypatch.setattr(simulator, "BLOCK", 2)


def _vector(whole: nn.Module) -> Tensor:
    """Of all parameters, the frozen ones as well."""
    return torch.cat([parameter.detach().flatten() for parameter in whole.parameters()]).clone()


class InTurns:
    """Two workers that share nothing, in one process: tasks go to them in turn, by value, and come back by value."""

    def __init__(self, setting: Setting) -> None:
        self._own = setting.worker()
        self._workers: list[Worker] = [copy.deepcopy(setting).worker() for _ in range(2)]

    def weights(self) -> Tensor:
        return self._own.parameters.values.clone()

    def load(self, weights: Tensor) -> None:
        self._own.parameters.values.copy_(weights)

    def run(self, tasks: Sequence[Task], weights: Tensor, received: Vectors) -> Iterator[Returned]:
        for number, task in enumerate(tasks):
            sent = copy.deepcopy((task, weights, received))
            yield copy.deepcopy(self._workers[number % 2].run(*sent))


@contextmanager
def in_turns(setting: Setting, workers: int) -> Iterator[InTurns]:
    with one_thread():
        yield InTurns(setting)


@dataclass(frozen=True)
class TwoFaulty(Conditions):
    """Device 0 answers NaN, and device 1 a million times too much."""

    def damage(self, devices: np.ndarray, streams: Streams) -> np.ndarray:
        return np.select([devices == 0, devices == 1], [np.nan, HUGE], 1.0)


@pytest.mark.parametrize("name", CASES)
class TestEvery:
    def test_the_same_bits_whichever_worker_visits_a_device(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        first, one, history = undisturbed(name)
        assert not torch.equal(first, one)
        later = 4 if name == "FedBuff" else COHORT  # its first step waits for as many answers as train at once
        assert [record.returned for record in history.rounds] == [COHORT, *[later] * (ROUNDS - 1)]
        monkeypatch.setattr(simulator, "crew", in_turns)
        _, two, others = run(name)
        assert torch.equal(one, two)
        assert others == history

    @pytest.mark.slow
    def test_the_same_bits_by_two_processes(self, name: str) -> None:
        _, one, history = undisturbed(name)
        _, two, others = run(name, workers=2)
        assert torch.equal(one, two)
        assert others == history

    def test_the_same_bits_after_a_kill(self, name: str, tmp_path: Path) -> None:
        def die(stage: str, done: int, *_: Any) -> None:
            if done == 3:
                raise KeyError  # as sudden as a kill, a round after the newest checkpoint

        _, whole, history = undisturbed(name)
        with pytest.raises(KeyError):
            run(name, folder=tmp_path, checkpoint_every=2, progress=die)
        _, resumed, again = run(name, folder=tmp_path, checkpoint_every=2)
        assert torch.equal(whole, resumed)
        assert again == history

    def test_a_device_of_nan_and_one_a_million_times_too_large_do_no_harm(self, name: str) -> None:
        first, honest, _ = undisturbed(name)
        _, last, history = run(name, conditions=TwoFaulty())
        assert {problem for record in history.rounds for problem in record.problems} == {"not finite", "too long"}
        assert all(record.returned for record in history.rounds)
        assert (last - first).norm() < 5 * (honest - first).norm()  # false of NaN, too


def test_no_algorithm_is_left_out() -> None:
    """Those around another one (`base`) are tested where they are, and so are names of what needs a model first."""
    for module in pkgutil.iter_modules(federated.__path__, "trustnlp.federated."):
        importlib.import_module(module.name)
    tested = {type(make()[1]) for make in CASES.values()}
    every = {kind for kind in below(Algorithm) if "base" not in kind.__dataclass_fields__}
    assert every - below(ToAdapt) - {ToAdapt, Lora} == tested


def below(kind: type) -> set[type]:
    """All subclasses that are of the package."""
    found = set().union(*(below(each) for each in kind.__subclasses__()), kind.__subclasses__())
    return {each for each in found if each.__module__.startswith("trustnlp.")}
