"""Study `distributed-training` (S13): do several processes train the same private model, and in how much less time?

    one process:   step, one thread or device ─────────┐ take turns, draw by draw
    two processes: the same step, half the units each ─┘─> time ratio; at the end: the same weights?

Both train from one seed, so draws and noise are the same and only the order of summation differs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import product
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from trustnlp import data, models
from trustnlp.data.corpus import Corpus
from trustnlp.dp import PrivacyPlan
from trustnlp.errors import RunError
from trustnlp.progress import Progress
from trustnlp.randomness import Streams
from trustnlp.results import Direction, Finding
from trustnlp.studies import recipes, step_time
from trustnlp.studies.study import Cells, Request, Study, verdict
from trustnlp.uncertainty import median

PROCESSES = 2
_WAIT = 300  # seconds that anybody waits for anybody
# Fixed before measuring: what "nearly in proportion" and "the same model" mean here.
_NEARLY, _SAME = 0.8, 1e-5
_SEPARATE, _SHARED = "one CUDA device each", "one thread each, of one machine"
_QUICK_TEXTS, _ROUNDS, _QUICK_ROUNDS = 1_500, 15, 7


@dataclass(frozen=True)
class _Training:
    """What every process needs to take part in the same training."""

    corpus: str
    model: str
    limit: int
    seed: int
    steps: int
    cuda: bool

    def begin(self, rank: int) -> tuple[nn.Module, step_time.TimedStep]:
        """The model and its step, on this process's thread or device."""
        torch.set_num_threads(1)
        corpus, streams = self.load(), Streams(self.seed)
        recipe = recipes.private(self.model, len(corpus.train))
        model = models.build(self.model, corpus, streams=streams, **recipe.options)
        encoded = model.encode(corpus.train, for_training=True)
        size = len(corpus.train)
        plan = PrivacyPlan(size, recipe.batch_size, self.steps, 1.0, min(1e-5, size**-1.1), clipping=recipe.clipping)
        if self.cuda:
            model.to(f"cuda:{rank}")
        return model, step_time.private(model, encoded, plan, streams, recipe.learning_rate)

    def load(self) -> Corpus:
        return data.load(self.corpus, limit=self.limit)


def _measure(request: Request, cells: Cells, progress: Progress) -> list[Finding]:
    found: list[Finding] = []
    for corpus, model in product(request.data or ("snips",), request.models or ("bilstm", "transformer")):
        cell = {"corpus": corpus, "model": model, "processes": str(PROCESSES)}
        training = _Training(
            corpus,
            model,
            limit=_QUICK_TEXTS if request.quick else 200_000,
            seed=request.seed,
            steps=1 + (_QUICK_ROUNDS if request.quick else _ROUNDS),
            cuda=request.device.startswith("cuda") and torch.cuda.device_count() >= PROCESSES,
        )
        found += cells.measure(cell, lambda _, t=training: _compare(t, progress))  # type: ignore[misc]
    return [_claim(found), *found]


def _compare(training: _Training, progress: Progress) -> list[Finding]:
    """Times of both in turn, and the difference of what they have trained."""
    threads = torch.get_num_threads()
    try:
        with _team(training) as team:
            model, step = training.begin(0)
            steps = {"one process": step, "several": team.step}
            stage = f"{training.corpus} {training.model} on {PROCESSES} processes"
            times = step_time.ratios(steps, training.steps - 1, progress, stage, against="several")["one process"]
            ranks = team.weights()
    finally:
        torch.set_num_threads(threads)
    return [_speed_up(times, training), _difference(_flat(model), ranks)]


def _speed_up(times: np.ndarray, training: _Training) -> Finding:
    interval = median(times)
    return Finding(
        "process-speed-up",
        f"Speed of {PROCESSES} processes, one process = 1",
        float(np.median(times)),
        interval.low,
        interval.high,
        n=len(times),
        unit="",
        direction=Direction.HIGHER,
        ideal=float(PROCESSES),
        source="median over steps that both take in turn; interval by order statistics",
        details={"devices": _SEPARATE if training.cuda else _SHARED},
    )


def _difference(alone: np.ndarray, ranks: Sequence[np.ndarray]) -> Finding:
    away = np.abs(ranks[0] - alone)
    return Finding(
        "weights-difference",
        "Distance of the weights from those of one process, relative to their length",
        float(np.linalg.norm(away) / np.linalg.norm(alone)),
        unit="",
        direction=Direction.LOWER,
        ideal=0.0,
        source="the same plan, seed and draws; what is left is the rounding of sums in another order",
        details={
            # Adam's first steps are as long for a gradient of almost 0 as for any other, so single weights may differ.
            "largest_of_one_weight": float(away.max()),
            "same_bits_on_all_ranks": len({rank.tobytes() for rank in ranks}) == 1,
        },
    )


def _claim(found: Sequence[Finding]) -> Finding:
    """Not reproduced where models differ, or separate devices are too slow; cores that share a memory prove no less."""
    differences = [f for f in found if f.id == "weights-difference"]
    same = all(f.value is not None and f.value <= _SAME and f.details["same_bits_on_all_ranks"] for f in differences)
    worst = min((f for f in found if f.id == "process-speed-up"), key=lambda f: f.low or 0.0)
    goal = _NEARLY * PROCESSES
    fast = True if (worst.low or 0) >= goal else None
    if (worst.high or 0) < goal and worst.details["devices"] == _SEPARATE:
        fast = False
    return verdict(
        f"Least speed of {PROCESSES} processes, one process = 1",
        fast if same else False,
        value=worst.value,
        low=worst.low,
        high=worst.high,
        n=worst.n,
        unit="",
        direction=Direction.HIGHER,
        ideal=float(PROCESSES),
        source="survey 'Advances in trustworthy machine learning at Alexa AI' (2022)",
        details={"cell": worst.details["cell"], "same_model": same, "devices": worst.details["devices"]},
    )


@dataclass(frozen=True)
class _Team:
    """Processes that take steps when they are told to."""

    connections: Sequence[Connection]

    def step(self, number: int) -> None:
        """Step `number`, by all of them together."""
        self._ask(number)

    def weights(self) -> list[np.ndarray]:
        """Every rank's weights, flat."""
        return [np.frombuffer(answer, np.float32) for answer in self._ask(-1)]

    def _ask(self, number: int) -> list[bytes]:
        try:
            for connection in self.connections:
                connection.send_bytes(str(number).encode())
            return [self._answer(connection) for connection in self.connections]
        except (EOFError, OSError) as error:
            raise RunError("a process has ended, or has not answered in time", "see what it wrote") from error

    def _answer(self, connection: Connection) -> bytes:
        if not connection.poll(_WAIT):
            raise TimeoutError
        return connection.recv_bytes()


@contextmanager
def _team(training: _Training) -> Iterator[_Team]:
    context = get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        ends, processes = [], []
        for rank in range(PROCESSES):
            ours, theirs = context.Pipe()
            store = f"file://{Path(folder) / 'store'}"
            process = context.Process(target=_work, args=(training, rank, store, theirs), daemon=True)
            process.start()
            theirs.close()
            ends.append(ours)
            processes.append(process)
        try:
            yield _Team(ends)
        finally:
            for connection in ends:
                connection.close()
            for process in processes:
                process.join(10)
                process.kill()


def _work(training: _Training, rank: int, store: str, orders: Connection) -> None:
    """One process: takes the steps that it is told to, until nobody is there to tell."""
    backend = "cpu:gloo,cuda:nccl" if training.cuda else "gloo"
    limit = timedelta(seconds=_WAIT)
    dist.init_process_group(backend, init_method=store, rank=rank, world_size=PROCESSES, timeout=limit)
    model, step = training.begin(rank)
    try:
        while (number := int(orders.recv_bytes())) >= 0:
            step(number)
            orders.send_bytes(b"done")
        orders.send_bytes(_flat(model).tobytes())
    except EOFError:  # the study was interrupted
        pass
    dist.destroy_process_group()


def _flat(model: nn.Module) -> np.ndarray:
    return np.concatenate([parameter.detach().cpu().float().numpy().ravel() for parameter in model.parameters()])


STUDY = Study(
    name="distributed-training",
    system="S13",
    claim=(
        f"Private training on several processes gives the model of one process in nearly 1/{PROCESSES} of the time on "
        f"{PROCESSES}. Counted as reproduced where, on every corpus and model, all ranks hold the same bits, the "
        f"weights are those of one process up to a relative {_SAME:g}, and {PROCESSES} processes are at least "
        f"{_NEARLY * PROCESSES:g} times as fast as one, with the interval. Slower processes speak against it only "
        "where each has a device of its own: threads of one machine share its memory with whatever else runs there."
    ),
    axes={"panel": ("corpus", "model"), "rows": ("processes",), "columns": ()},
    measure=_measure,
)
