"""Jobs for workers, which import them from here."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import torch

Arrays = dict[str, np.ndarray]


def count(number: int, folder: Path) -> Arrays:
    """Leaves a line in its folder each time it is done, and tells who did it."""
    with (folder / "done").open("a") as done:
        done.write("once\n")
    facts = {"number": number, "process": os.getpid(), "threads": torch.get_num_threads()}
    return {name: np.array(value) for name, value in facts.items()}


def times_done(folder: Path) -> int:
    return len((folder / "done").read_text().splitlines())


def train(seed: int, folder: Path) -> Arrays:
    """A training with dropout: its losses and a weight."""
    from trustnlp import models
    from trustnlp.data.corpus import Corpus, Example
    from trustnlp.randomness import Streams

    corpus = Corpus("tiny", tuple(Example(f"{n} {n % 3}", f"{n % 2}") for n in range(12)))
    streams = Streams(seed)
    model = models.build("bilstm", corpus, streams=streams, buckets=32, width=4, char_filters=2, hidden=4)
    encoded = model.encode(corpus.train)
    sampler = models.ShuffledBatches(len(encoded), 3, 4, streams)
    step = models.PlainStep(model, torch.optim.Adam(model.parameters(), 1e-2))
    models.fit(model, encoded, sampler, step, streams=streams, folder=folder)
    return {"losses": models.losses(model, encoded), "weights": next(model.parameters()).detach().numpy()}


def fail_without(permit: Path, folder: Path) -> Arrays:
    if not permit.exists():
        raise ValueError("planted failure")
    return count(0, folder)


def die_without(permit: Path, folder: Path) -> Arrays:
    """Ends its process as the kernel does where memory runs out."""
    if not permit.exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return count(0, folder)


def wait_for(permit: Path, folder: Path) -> Arrays:
    """Takes until somebody permits it to end."""
    (folder / "process").write_text(str(os.getpid()))
    for _ in range(600):
        if permit.exists():
            return count(0, folder)
        time.sleep(0.1)
    raise TimeoutError


def give(permit: Path, folder: Path) -> Arrays:
    permit.touch()
    return count(0, folder)


def nap(folder: Path) -> Arrays:
    time.sleep(0.1)
    return count(0, folder)


def environment(folder: Path) -> Arrays:
    assert multiprocessing.parent_process() is not None
    return {name: np.array(os.environ[name]) for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")}


class Shared:
    """Something large that jobs have in common; notes each time it is unpacked."""

    def __init__(self, notes: Path) -> None:
        self.notes = notes
        self.numbers = np.arange(100_000)

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        with self.notes.open("a") as notes:
            notes.write("unpacked\n")


def pick(shared: Shared, number: int, folder: Path) -> Arrays:
    return {"number": shared.numbers[number]}


def nested(folder: Path) -> Arrays:
    """Jobs within a job."""
    from functools import partial

    from trustnlp.models.many import Job, run_jobs

    found = run_jobs([Job(f"inner-{n}", partial(count, n)) for n in range(3)], folder)
    return {"processes": np.array(len({int(each["process"]) for each in found}))}
