"""Milliseconds for each device of a federated round, beside a plain loop and other libraries, and how they grow.

    python benchmarks/federated_round.py [--quick] [--repeats N] [--rounds N] [--json FILE]

The shape: a classifier of 331 thousand parameters (words are embedded and averaged), 1,000 devices of 20 texts of 32
words, cohorts of 50, two local steps of 10 texts. Contestants take turns, each in a fresh process; a figure is the
median round of a process, without its first one, over the devices of the cohort, and the table has the median over
processes. `plain loop` is FedAvg in the fewest lines of PyTorch that train in place: what no library can be much below
on one thread. pfl-research is `pfl` (its own SimulatedBackend), one process.

`--populations` grows the population at a fixed cohort: seconds of a round and memory of the process should stay flat.
A library that is not installed is said to be missing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata, util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trustnlp.models.protocol import Batch

WORDS, CLASSES, LENGTH, TEXTS = 10_000, 20, 32, 20
PACKAGES = {"pfl-research": "pfl"}
POPULATIONS = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)


@dataclass(frozen=True)
class Setting:
    """What every contestant does."""

    devices: int = 1_000
    cohort: int = 50
    rounds: int = 10
    batch: int = 10
    rate: float = 0.1


class Classifier(nn.Module):
    """The mean of word embeddings, a hidden layer and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.hidden, self.head = nn.Embedding(WORDS, 32), nn.Linear(32, 200), nn.Linear(200, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        scores: Tensor = self.head(torch.relu(self.hidden(self.words(ids).mean(1))))
        return scores

    def logits(self, batch: Batch) -> dict[str, Tensor]:
        return {"label": self(batch.inputs["ids"])}

    def loss(self, batch: Batch) -> Tensor:
        return nn.functional.cross_entropy(self.logits(batch)["label"], batch.targets["label"], reduction="none")


class Texts:
    """The texts of a device, as `protocol.Encoded` wants them."""

    def __init__(self, device: int) -> None:
        generator = np.random.default_rng(device)
        self.ids = torch.from_numpy(generator.integers(0, WORDS, (TEXTS, LENGTH)))
        self.labels = torch.from_numpy(generator.integers(0, CLASSES, TEXTS))

    def __len__(self) -> int:
        return TEXTS

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        chosen = torch.as_tensor(np.asarray(indices))
        return Batch({"ids": self.ids[chosen]}, {"label": self.labels[chosen]})


# --- contestants: each gives the seconds of its rounds ---------------------------------------------------------------


def plain_loop(setting: Setting) -> list[float]:
    torch.set_num_threads(1)
    model = Classifier()
    parameters = list(model.parameters())
    generator, seconds = np.random.default_rng(0), []
    for _ in range(setting.rounds + 1):
        begun = time.perf_counter()
        server = [parameter.detach().clone() for parameter in parameters]
        total = [torch.zeros_like(one) for one in server]
        for device in generator.choice(setting.devices, setting.cohort, replace=False):
            data = Texts(int(device))
            with torch.no_grad():
                for parameter, one in zip(parameters, server, strict=True):
                    parameter.copy_(one)
            order = generator.permutation(TEXTS)
            for start in range(0, TEXTS, setting.batch):
                model.zero_grad()
                model.loss(data.batch(order[start : start + setting.batch])).mean().backward()
                with torch.no_grad():
                    for parameter in parameters:
                        parameter.sub_(parameter.grad, alpha=setting.rate)
            with torch.no_grad():
                for one, parameter, origin in zip(total, parameters, server, strict=True):
                    one.add_(parameter - origin, alpha=1 / setting.cohort)
        with torch.no_grad():
            for parameter, origin, one in zip(parameters, server, total, strict=True):
                parameter.copy_(origin + one)
        seconds.append(time.perf_counter() - begun)
    return seconds


def ours(setting: Setting, workers: int) -> list[float]:
    from trustnlp import federated as fl
    from trustnlp.randomness import Streams

    moments = [time.perf_counter()]
    local = fl.LocalTraining(setting.rate, setting.batch)
    fl.simulate(
        fl.Generated(np.full(setting.devices, TEXTS), Texts),
        Classifier(),
        fl.FedAvg(setting.rounds + 1, setting.cohort, local),
        selection=fl.Uniform("equal"),
        streams=Streams(0),
        workers=workers,
        progress=lambda *_: moments.append(time.perf_counter()),
    )
    return np.diff(moments).tolist()


def pfl_research(setting: Setting) -> list[float]:
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.sampling import get_user_sampler
    from pfl.hyperparam import NNTrainHyperParams
    from pfl.metrics import Weighted
    from pfl.model.pytorch import PyTorchModel

    torch.set_num_threads(1)

    class Model(Classifier):
        def loss(self, ids: Tensor, labels: Tensor, eval: bool = False) -> Tensor:  # type: ignore[override]
            self.eval() if eval else self.train()
            return nn.functional.cross_entropy(self(ids), labels)

        def metrics(self, ids: Tensor, labels: Tensor, eval: bool = False) -> dict[str, Any]:
            return {"loss": Weighted(float(self.loss(ids, labels, eval)) * len(labels), len(labels))}

    moments = [time.perf_counter()]

    class Clock(TrainingProcessCallback):
        def after_central_iteration(self, *_: Any, **__: Any) -> tuple[bool, Any]:
            from pfl.metrics import Metrics

            moments.append(time.perf_counter())
            return False, Metrics()

    def made(device: int) -> Any:
        texts = Texts(device)
        return Dataset(raw_data=[texts.ids, texts.labels])

    network = Model()
    data = FederatedDataset(made, get_user_sampler("random", range(setting.devices)))
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=setting.rounds + 1,
            evaluation_frequency=10**9,
            train_cohort_size=setting.cohort,
            val_cohort_size=0,
        ),
        backend=SimulatedBackend(training_data=data, val_data=data),
        model=PyTorchModel(network, torch.optim.SGD, torch.optim.SGD(network.parameters(), 1.0)),
        model_train_params=NNTrainHyperParams(
            local_num_epochs=1, local_learning_rate=setting.rate, local_batch_size=setting.batch
        ),
        callbacks=[Clock()],
    )
    return np.diff(moments).tolist()


CONTESTANTS: dict[str, Callable[[Setting], list[float]]] = {
    "plain loop": plain_loop,
    "trustnlp, 1 worker": partial(ours, workers=1),
    "trustnlp, 2 workers": partial(ours, workers=2),
    "pfl-research": pfl_research,
}
BASE = "trustnlp, 1 worker"


# --- measuring -----------------------------------------------------------------------------------------------------


@contextmanager
def _quiet() -> Iterator[None]:
    """What contestants print goes to standard error: standard output is for the figures."""
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)


def contestant(name: str, setting: Setting) -> dict[str, float]:
    with _quiet():
        seconds = CONTESTANTS[name](setting)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"round": statistics.median(seconds[1:]), "first": seconds[0], "megabytes": memory}


def in_fresh_process(name: str, setting: Setting) -> dict[str, float]:
    command = [sys.executable, __file__, "--contestant", name, "--setting", json.dumps(asdict(setting))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(setting: Setting, repeats: int, names: Sequence[str]) -> dict[str, Any]:
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for number in range(repeats):
        for name, found in runs.items():
            found.append(in_fresh_process(name, setting))
            each = 1e3 * found[-1]["round"] / setting.cohort
            print(f"{number + 1}/{repeats}  {name}: {each:.2f} ms a device", file=sys.stderr, flush=True)
    base = [run["round"] for run in runs[BASE]]
    return {
        name: {
            "ms_per_device": 1e3 * statistics.median(run["round"] for run in found) / setting.cohort,
            "ratio_to_ours": statistics.median(run["round"] / one for run, one in zip(found, base, strict=True)),
            "first_round_seconds": statistics.median(run["first"] for run in found),
            "megabytes": statistics.median(run["megabytes"] for run in found),
            "runs": found,
        }
        for name, found in runs.items()
    }


def show(found: dict[str, Any]) -> str:
    lines = [f"{'':<24} ms a device   to ours   first round   MB"]
    for name, row in found["contestants"].items():
        lines.append(
            f"{name:<24} {row['ms_per_device']:11.2f} {row['ratio_to_ours']:9.2f} {row['first_round_seconds']:11.2f} s"
            f" {row['megabytes']:6.0f}"
        )
    lines += [f"{name:<24} not installed" for name in found["missing"]]
    for devices, row in found["populations"].items():
        lines.append(f"{int(devices):>12,} devices {row['ms_per_device']:11.2f} ms a device {row['megabytes']:6.0f} MB")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds, two processes each")
    parser.add_argument("--tiny", action="store_true", help="to try the benchmark itself")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--populations", action="store_true", help="also from 10^3 to 10^7 devices")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    parser.add_argument("--setting", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.contestant:
        print(json.dumps(contestant(options.contestant, Setting(**json.loads(options.setting)))))
        return
    setting, repeats = Setting(rounds=options.rounds), options.repeats
    if options.quick:
        setting, repeats = Setting(rounds=5), 2
    if options.tiny:
        setting, repeats = Setting(devices=20, cohort=4, rounds=1), 1
    missing = [name for name, package in PACKAGES.items() if util.find_spec(package) is None]
    names = [name for name in CONTESTANTS if name not in missing]
    grown = POPULATIONS if options.populations else ()
    found = {
        "setting": asdict(setting),
        "repeats": repeats,
        "hardware": {
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "versions": {name: metadata.version(package) for name, package in PACKAGES.items() if name not in missing},
        "missing": missing,
        "contestants": measure(setting, repeats, names),
        "populations": {
            devices: measure(Setting(**{**asdict(setting), "devices": devices}), repeats, [BASE])[BASE]
            for devices in grown
        },
    }
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    print(show(found))


if __name__ == "__main__":
    main()
