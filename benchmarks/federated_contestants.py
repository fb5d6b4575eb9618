"""Who takes part in `federated_round`, and the work that is the same for all of them.

A contestant trains from the same first weights on the same examples of each device, one pass in batches on one thread,
and its server moves by the plain mean of the cohort's changes. It gives the seconds of its rounds and the network that
it ends with, so that work left out would be seen in how far the weights have moved.

What was settled in favour of a peer: networks are made once for each process, never for each device; pfl-research goes
through devices in order, since its random sampler may draw one twice; Flower evaluates nothing, reads its client from
a module (so that Ray sends a reference to it, no code), and sends nothing home.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trustnlp.models.protocol import Batch

WORDS, CLASSES, LENGTH = 10_000, 20, 32
PIXELS, DIGITS = 784, 10
MEAN_SQUARE = 0.112  # of MNIST's pixels between 0 and 1: mean 0.131, deviation 0.308
CORES = 2
PATIENCE = 300.0  # seconds that Flower's server waits for a round


class Network(nn.Module):
    """A classifier as `protocol.TextModel` wants it."""

    def logits(self, batch: Batch) -> dict[str, Tensor]:
        return {"label": self(batch.inputs["inputs"])}

    def loss(self, batch: Batch) -> Tensor:
        return nn.functional.cross_entropy(self.logits(batch)["label"], batch.targets["label"], reduction="none")


class Classifier(Network):
    """The mean of word embeddings, a hidden layer and a head: 331 thousand parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.hidden, self.head = nn.Embedding(WORDS, 32), nn.Linear(32, 200), nn.Linear(200, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        scores: Tensor = self.head(torch.relu(self.hidden(self.words(ids).mean(1))))
        return scores


class LogisticRegression(Network):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(PIXELS, DIGITS)

    def forward(self, pixels: Tensor) -> Tensor:
        scores: Tensor = self.head(pixels)
        return scores


class Examples:
    """The examples of a device, as `protocol.Encoded` wants them."""

    def __init__(self, inputs: np.ndarray, labels: np.ndarray) -> None:
        self.inputs, self.labels = torch.from_numpy(inputs), torch.from_numpy(labels)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        chosen = torch.as_tensor(np.asarray(indices))
        return Batch({"inputs": self.inputs[chosen]}, {"label": self.labels[chosen]})


def texts(device: int, count: int) -> Examples:
    generator = np.random.default_rng(device)
    return Examples(generator.integers(0, WORDS, (count, LENGTH)), generator.integers(0, CLASSES, count))


def digits(device: int, count: int) -> Examples:
    """Pixels at random, as bright as MNIST's: what takes time is their number."""
    generator = np.random.default_rng(device)
    pixels = generator.random((count, PIXELS), dtype=np.float32)
    pixels *= (3 * MEAN_SQUARE) ** 0.5
    return Examples(pixels, generator.integers(0, DIGITS, count))


@dataclass(frozen=True)
class Shape:
    """What is trained, on how much of what.

    Args:
        network: makes it.
        make: (device, count) -> its examples.
        examples: of each device.
        cohort: devices of a round.
    """

    network: Callable[[], Network]
    make: Callable[[int, int], Examples]
    examples: int
    cohort: int


SHAPES = {
    "words": Shape(Classifier, texts, examples=20, cohort=50),
    "lr-mnist": Shape(LogisticRegression, digits, examples=60, cohort=10),
}


@dataclass(frozen=True)
class Setting:
    """What every contestant does. One round more than `rounds` is made: the first is told apart."""

    shape: str = "words"
    devices: int = 1_000
    cohort: int = 50
    rounds: int = 10
    batch: int = 10
    rate: float = 0.1

    @property
    def examples(self) -> int:
        return SHAPES[self.shape].examples

    def data(self, device: int) -> Examples:
        return SHAPES[self.shape].make(device, self.examples)

    def network(self) -> Network:
        """With the same first weights for everybody."""
        torch.manual_seed(0)
        return SHAPES[self.shape].network()


Run = tuple[list[float], nn.Module]


def descend(network: Network, data: Examples, setting: Setting, generator: np.random.Generator) -> None:
    """One pass over the examples of a device, in place and with nothing around it."""
    order = generator.permutation(len(data))
    for start in range(0, len(data), setting.batch):
        network.zero_grad()
        network.loss(data.batch(order[start : start + setting.batch])).mean().backward()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.sub_(parameter.grad, alpha=setting.rate)


def plain_loop(setting: Setting) -> Run:
    torch.set_num_threads(1)
    network = setting.network()
    parameters = list(network.parameters())
    generator, seconds = np.random.default_rng(0), []
    for _ in range(setting.rounds + 1):
        begun = time.perf_counter()
        server = [parameter.detach().clone() for parameter in parameters]
        total = [torch.zeros_like(one) for one in server]
        for device in generator.choice(setting.devices, setting.cohort, replace=False):
            with torch.no_grad():
                for parameter, one in zip(parameters, server, strict=True):
                    parameter.copy_(one)
            descend(network, setting.data(int(device)), setting, generator)
            with torch.no_grad():
                for one, parameter, origin in zip(total, parameters, server, strict=True):
                    one.add_(parameter - origin, alpha=1 / setting.cohort)
        with torch.no_grad():
            for parameter, origin, one in zip(parameters, server, total, strict=True):
                parameter.copy_(origin + one)
        seconds.append(time.perf_counter() - begun)
    return seconds, network


def ours(setting: Setting, workers: int) -> Run:
    from trustnlp import federated as fl
    from trustnlp.randomness import Streams

    network, moments = setting.network(), [time.perf_counter()]
    fl.simulate(
        fl.Generated(np.full(setting.devices, setting.examples), setting.data),
        network,
        fl.FedAvg(setting.rounds + 1, setting.cohort, fl.LocalTraining(setting.rate, setting.batch)),
        selection=fl.Uniform("equal"),
        streams=Streams(0),
        workers=workers,
        progress=lambda *_: moments.append(time.perf_counter()),
    )
    return np.diff(moments).tolist(), network


def pfl_research(setting: Setting) -> Run:
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.sampling import get_user_sampler
    from pfl.hyperparam import NNTrainHyperParams
    from pfl.metrics import Metrics, Weighted
    from pfl.model.pytorch import PyTorchModel

    torch.set_num_threads(1)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = setting.network()

        def loss(self, inputs: Tensor, labels: Tensor, eval: bool = False) -> Tensor:
            self.eval() if eval else self.train()
            return nn.functional.cross_entropy(self.network(inputs), labels)

        def metrics(self, inputs: Tensor, labels: Tensor, eval: bool = False) -> dict[str, Any]:
            return {"loss": Weighted(float(self.loss(inputs, labels, eval)) * len(labels), len(labels))}

    moments = [time.perf_counter()]

    class Clock(TrainingProcessCallback):
        def after_central_iteration(self, *_: Any, **__: Any) -> tuple[bool, Any]:
            moments.append(time.perf_counter())
            return False, Metrics()

    def made(device: int) -> Any:
        examples = setting.data(device)
        return Dataset(raw_data=[examples.inputs, examples.labels])

    model = Model()
    data = FederatedDataset(made, get_user_sampler("minimize_reuse", range(setting.devices)))
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=setting.rounds + 1,
            evaluation_frequency=10**9,
            train_cohort_size=setting.cohort,
            val_cohort_size=0,
        ),
        backend=SimulatedBackend(training_data=data, val_data=data),
        model=PyTorchModel(model, torch.optim.SGD, torch.optim.SGD(model.parameters(), 1.0)),
        model_train_params=NNTrainHyperParams(
            local_num_epochs=1, local_learning_rate=setting.rate, local_batch_size=setting.batch
        ),
        callbacks=[Clock()],
    )
    return np.diff(moments).tolist(), model.network


@cache
def _flower_network(setting: Setting) -> Network:
    torch.set_num_threads(1)
    return setting.network()


def _flower_client(message: Any, context: Any) -> Any:
    """What Flower runs for a device, in one of Ray's processes."""
    from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

    config = dict(message.content["config"])
    number, device = config.pop("server-round"), int(context.node_config["partition-id"])
    setting = Setting(**config)
    network, data = _flower_network(setting), setting.data(device)
    network.load_state_dict(message.content["arrays"].to_torch_state_dict())
    descend(network, data, setting, np.random.default_rng([number, device]))
    metrics = MetricRecord({"num-examples": len(data)})
    return Message(RecordDict({"arrays": ArrayRecord(network.state_dict()), "metrics": metrics}), reply_to=message)


def flower(setting: Setting) -> Run:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        # Read at import. Without a home of its own, Flower writes an identifier into the user's.
        os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_HOME": folder, "RAY_USAGE_STATS_ENABLED": "0"}
        return _flower(setting, folder)


def _flower(setting: Setting, folder: str) -> Run:
    from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    network, moments = setting.network(), [time.perf_counter()]
    server, client = ServerApp(), ClientApp()
    client.train()(_flower_client)

    def heard(replies: Sequence[Any], _: str) -> MetricRecord:
        if len(replies) < setting.cohort:  # Flower itself goes on without them
            raise RuntimeError(f"{len(replies)} of {setting.cohort} devices answered; why is in Flower's log above")
        return MetricRecord({"devices": len(replies)})

    @server.main()
    def main(grid: Any, _: Any) -> None:
        result = FedAvg(
            fraction_train=setting.cohort / setting.devices,
            min_train_nodes=setting.cohort,
            min_available_nodes=setting.devices,
            fraction_evaluate=0.0,
            train_metrics_aggr_fn=heard,
        ).start(
            grid,
            ArrayRecord(network.state_dict()),
            num_rounds=setting.rounds + 1,
            timeout=PATIENCE,
            train_config=ConfigRecord(asdict(setting)),
            evaluate_fn=lambda number, _: moments.append(time.perf_counter()) if number else None,
        )
        if len(result.train_metrics_clientapp) <= setting.rounds:
            raise RuntimeError("in some rounds no device answered; why is in Flower's log above")
        network.load_state_dict(result.arrays.to_torch_state_dict())

    run_simulation(
        server,
        client,
        num_supernodes=setting.devices,
        backend_name="ray",
        backend_config={
            "init_args": {"num_cpus": CORES, "_temp_dir": folder},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )
    return np.diff(moments).tolist(), network


CONTESTANTS: dict[str, Callable[[Setting], Run]] = {
    "plain loop": plain_loop,
    "trustnlp, 1 worker": partial(ours, workers=1),
    "trustnlp, 2 workers": partial(ours, workers=CORES),
    "pfl-research": pfl_research,
    "Flower": flower,
}
OURS = ("trustnlp, 1 worker", "trustnlp, 2 workers")
PACKAGES = {"pfl-research": ("pfl",), "Flower": ("flwr", "ray")}
