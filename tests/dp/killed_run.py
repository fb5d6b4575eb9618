"""Private trainings that are killed and resumed: `python killed_run.py FOLDER SEED BUG...`.

Of the real thing (no bug is named) one until it is done, of each bug a shorter one. One process imports PyTorch and
then forks a child for every attempt, so that dozens of attempts take seconds. A child is killed by SIGKILL at one of
`PLACES`, by its own hand, or at any moment, by its parent's. It notes in notes.jsonl every noise block that it draws
and every state of the weights, with what the ledger's file said at that moment; the parent prints how every attempt
ended.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from small_text import Tagger, Texts

from trustnlp import files
from trustnlp.dp import FlatClipping, Ledger, PrivacyPlan, PrivateStep, Quantile
from trustnlp.dp.noise import ChunkedNoise
from trustnlp.models.training import fit
from trustnlp.randomness import Streams

PLAN = PrivacyPlan(20, 4, 250, 2.0, 1e-3, clipping=FlatClipping(0.5, adapt=Quantile()))
PLACES = (
    "before the ledger",
    "within the line of the ledger",
    "after the ledger",
    "before the noise",
    "after the noise",
    "before the update",
    "after the update",
    "within the checkpoint",
    "after the checkpoint",
)
BUGS = ("late ledger", "blocks from 0 again")
ANY_MOMENT = 8  # kills by the clock: as a child begins, or while it takes steps


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fatal(place: str, visit: int) -> Callable[[str], bool]:
    """Whether to die now, asked with the name of a place: at the given visit of the given place."""
    visits = iter(range(1, visit))

    def reached(here: str) -> bool:
        return here == place and next(visits, None) is None

    return reached


def lines(folder: Path) -> int:
    """Steps in the ledger's file, without what was torn."""
    ledger = folder / "ledger.jsonl"
    return ledger.read_bytes().count(b"\n") - 1 if ledger.exists() else 0


def around(owner: object, name: str, before: Callable, after: Callable) -> None:
    real = getattr(owner, name)

    @functools.wraps(real)
    def wrapped(*args, **options):
        before(*args)
        result = real(*args, **options)
        after(*args)
        return result

    setattr(owner, name, wrapped)


def mine(folder: Path, reached: Callable[[str], bool]) -> None:
    """Puts a mine under every place, and notes what is released."""

    def step_on(place: str) -> Callable[..., None]:
        return lambda *_: die() if reached(place) else None

    def torn(path, line):
        if reached("within the line of the ledger"):
            with Path(path).open("a") as log:
                log.write(line[: len(line) // 2])
            die()

    def note(**fields) -> None:
        with (folder / "notes.jsonl").open("a") as notes:
            notes.write(json.dumps({**fields, "ledger": lines(folder)}) + "\n")

    def drawn(noise, sums, block, *rest):
        note(block=block)
        step_on("before the noise")()

    def updated(optimizer, *rest):
        weights = b"".join(p.detach().numpy().tobytes() for p in optimizer.param_groups[0]["params"])
        note(weights=hashlib.sha256(weights).hexdigest())
        step_on("after the update")()

    around(Ledger, "spend", step_on("before the ledger"), step_on("after the ledger"))
    around(files, "append_line", torn, step_on(""))
    around(ChunkedNoise, "release_", drawn, step_on("after the noise"))
    around(torch.optim.Adam, "step", step_on("before the update"), updated)
    around(Path, "replace", step_on("within the checkpoint"), step_on("after the checkpoint"))


def plant(bug: str) -> None:
    """A bug that the test must notice."""
    spend, settle, init = Ledger.spend, PrivateStep.settle, Ledger.__init__
    if bug == "late ledger":
        Ledger.spend = lambda self: self.spent
        PrivateStep.settle = lambda self, **options: (spend(self.ledger), settle(self, **options))
    if bug == "blocks from 0 again":
        Ledger.__init__ = lambda self, *args: (init(self, *args), setattr(self, "begun", self.spent))[0]
        Ledger.spend = lambda self: spend(self) - self.begun


def train(folder: Path) -> None:
    model, data, streams = Tagger(), Texts.random(20), Streams(3)
    step = PLAN.step(
        model,
        torch.optim.Adam(model.parameters(), 0.01),
        streams=streams,
        ledger=Ledger.open(folder / "ledger.jsonl", PLAN),
    )
    fit(model, data, PLAN.sampler(streams), step, streams=streams, folder=folder, checkpoint_every=3)


def attempt(folder: Path, place: str, visit: int, delay: float | None, bug: str) -> dict[str, object]:
    """A child's life: where it was to die, and what it died of (0: nothing)."""
    before = lines(folder)
    pid = os.fork()
    if pid == 0:
        try:
            plant(bug)
            mine(folder, fatal(place, visit))
            train(folder)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    if delay is not None:
        deadline = time.monotonic() + delay
        while time.monotonic() < deadline and lines(folder) < before + 12:  # a fast machine must not come to the end
            time.sleep(0.001)
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    return {
        "place": place,
        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
        "code": os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
        "spent": lines(folder),
    }


def run(folder: Path, chance: random.Random, bug: str = "") -> list[dict[str, object]]:
    """All attempts of one training; one with a bug is not brought to its end."""
    folder.mkdir()
    deaths = [(place, chance.randint(1, 4), None) for place in PLACES]
    if not bug:
        deaths += [(place, chance.randint(1, 4), None) for place in PLACES]
        deaths += [("any moment", 0, chance.uniform(0, 0.3)) for _ in range(ANY_MOMENT)]
        chance.shuffle(deaths)
        deaths.append(("none", 0, None))
    return [attempt(folder, *death, bug) for death in deaths]


def main(folder: Path, seed: int, bugs: list[str]) -> None:
    torch.set_num_threads(1)
    torch.optim.Adam(Tagger().parameters())  # the first optimizer imports half of PyTorch, once for all children
    chance = random.Random(seed)
    print(json.dumps([run(folder / (bug or "real"), chance, bug) for bug in bugs or [""]]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
