"""A population of devices on one machine: rounds of selection, local training, summing and the server's step.

    for each round:  select -> who returns -> blocks of devices -> workers -> totals, in the order of blocks -> update

A cohort is cut into blocks of a fixed size, each is summed by whichever worker takes it, and the blocks' sums are added
in their order. All draws depend on the round and the device. So the same seed gives the same bits for any number of
workers, and for a run that was killed and resumed.

Shape legend: P entries of all trained parameters, K devices, m of a cohort.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trustnlp import checks
from trustnlp.errors import ArgumentError, GuaranteeError, ModelError, RunError
from trustnlp.federated.algorithm import CHANGE, Algorithm, Round
from trustnlp.federated.cohort import Available, Cohort, Selection
from trustnlp.federated.conditions import IDEAL, Conditions, Outcome
from trustnlp.federated.crew import Crew, Setting, crew
from trustnlp.federated.local_training import Vectors
from trustnlp.federated.population import Population
from trustnlp.federated.private_rounds import Plan, PrivateRounds, begin
from trustnlp.federated.screening import Screen
from trustnlp.federated.selection import Uniform
from trustnlp.federated.worker import NOT_FINITE, Report, Returned, Task
from trustnlp.models.state import load_state, save_state
from trustnlp.models.training import deferred_interrupt
from trustnlp.progress import Progress, silent
from trustnlp.randomness import Streams

CHECKPOINT = "federated.safetensors"
BLOCK = 8  # devices that one worker sums before anything is handed over
PATIENCE = 20  # rounds in which nothing finite may come back
Evaluate = Callable[[nn.Module], Mapping[str, float]]


@dataclass(frozen=True)
class RoundRecord:
    """What happened in one round.

    Of a private training only the number and the figures are told: all else would be a figure of private texts that
    nothing has noised. A round that a kill has lost after it was charged has its number alone, and changed nothing.

    Args:
        number: 0-based.
        figures: of `evaluate`, where it was asked.
        cohort: distinct devices that were selected.
        returned: those whose answers are in the sum.
        problems: how many answers are not, by reason.
        texts: that all visited devices have trained on, passes counted.
        largest: the most of them on one device, for which a round has to wait.
        seconds: that the round would have taken, by the conditions.
        loss: mean local training loss of those that returned, each by its texts; NaN where none has.
        told: figures of the algorithm's own step.
        staleness: mean over the answers in the sum of how many steps the server has made since each began; 0 unless the
            algorithm is asynchronous.
        stalest: the most of them.
    """

    number: int
    figures: Mapping[str, float] = field(default_factory=dict)
    cohort: int = 0
    returned: int = 0
    problems: Mapping[str, int] = field(default_factory=dict)
    texts: int = 0
    largest: int = 0
    seconds: float = math.nan
    loss: float = math.nan
    told: Mapping[str, float] = field(default_factory=dict)
    staleness: float = 0.0
    stalest: int = 0


@dataclass(frozen=True)
class History:
    """All rounds of a simulation, and the wall time that it took over all resumptions."""

    rounds: tuple[RoundRecord, ...]
    wall_seconds: float = field(compare=False)

    @property
    def figures(self) -> Mapping[str, float]:
        """The newest of `evaluate`."""
        return next((record.figures for record in reversed(self.rounds) if record.figures), {})


def simulate(
    population: Population,
    model: nn.Module,
    algorithm: Algorithm,
    *,
    selection: Selection | None = None,
    conditions: Conditions = IDEAL,
    privacy: Plan | None = None,
    streams: Streams,
    workers: int = 1,
    evaluate: Evaluate | None = None,
    evaluate_every: int = 10,
    folder: str | Path | None = None,
    checkpoint_every: int = 10,
    progress: Progress = silent,
    stage: str = "federated",
) -> History:
    """Trains `model` on devices and leaves it, with the server's last weights, in evaluation mode.

    Ctrl-C lets the current round end, writes a checkpoint where `folder` is given, and raises KeyboardInterrupt. The
    same call with the same folder goes on from there.

    Args:
        population: of K devices, at least as many as the cohort with a text.
        model: a `TextModel`; its weights are the first of the server.
        algorithm: what devices and server do, and for how many rounds.
        selection: who takes part; uniform with weights by texts if None.
        conditions: who is there, who comes back, and when.
        privacy: a plan of user-level privacy; what it does not cover is refused.
        streams: same streams, same bits.
        workers: processes; 1 is this one. No result depends on it.
        evaluate: figures of the model with the server's weights, after each `evaluate_every` rounds and the last.
        folder: where checkpoints are written, every `checkpoint_every` rounds and after the last; of a private
            training after every round, beside the ledger of what was spent (`ledger.jsonl`).
        progress: called after every round.

    Raises:
        ArgumentError: fewer devices with texts than a cohort has, or another argument breaks its rule.
        ModelError: the server's weights are no longer finite, or nothing finite has come back for 20 rounds.
        GuaranteeError: something that the plan of privacy does not cover.
        RunError: the folder holds another simulation, or a damaged checkpoint.
        KeyboardInterrupt: after Ctrl-C.
    """
    checks.at_least("evaluate_every", evaluate_every, 1)
    checks.at_least("checkpoint_every", checkpoint_every, 1)
    populated = int((population.sizes > 0).sum())
    if algorithm.cohort > populated:
        raise ArgumentError("cohort", f"at most the {populated} devices that have texts", algorithm.cohort)
    setting = Setting(model, population, algorithm, streams, privacy)
    with crew(setting, checks.at_least("workers", workers, 1)) as hands:
        kind = _kind(algorithm)
        path = None if folder is None else Path(folder) / CHECKPOINT
        server = kind(setting, selection or Uniform(), conditions, hands, path and path.parent)
        if path is not None and path.exists():
            server.restore(path)
        server.leave_lost_rounds()
        with deferred_interrupt() as interrupted:
            while server.number < algorithm.rounds:
                record = server.round()
                if path is not None and privacy is not None:
                    server.save(path)  # at once: a round that is charged and not kept is lost
                last = server.number == algorithm.rounds
                if evaluate is not None and (last or server.number % evaluate_every == 0):
                    hands.load(server.weights)
                    record = server.note(evaluate(model))
                if path is not None and (last or interrupted() or server.number % checkpoint_every == 0):
                    server.save(path)
                progress(stage, server.number, algorithm.rounds, {"loss": record.loss, **server.history().figures})
                if interrupted():
                    raise KeyboardInterrupt
        hands.load(server.weights)
        if evaluate is not None and not server.history().rounds[-1].figures:  # a kill came in between
            server.note(evaluate(model))
        model.eval()
        return server.history()


def _kind(algorithm: Algorithm) -> type[Server]:
    if not algorithm.asynchronous:
        return Server
    from trustnlp.federated.asynchronous import AsynchronousServer  # which builds on this module

    return AsynchronousServer


class Server:
    """The server's weights and memory, and one round after another."""

    def __init__(
        self, setting: Setting, selection: Selection, conditions: Conditions, hands: Crew, folder: Path | None = None
    ) -> None:
        population, algorithm, streams, privacy = setting.population, setting.algorithm, setting.streams, setting.plan
        self.number = 0
        self.weights = hands.weights()
        self._first = self.weights.clone()
        self._population, self._algorithm, self._selection = population, algorithm, selection
        self._conditions, self._streams, self._hands = conditions, streams, hands
        self._state = algorithm.state(self.weights)
        self._selector = selection.begin(population.sizes)
        self._privacy, self._private = privacy, None
        if privacy is not None:
            devices = len(population.sizes)
            self._private = begin(privacy, algorithm, selection, self._selector, conditions, devices, streams, folder)
        self._kept: dict[int, Vectors] = {}
        self._screen = Screen()
        self._records: list[RoundRecord] = []
        self._seconds = 0.0

    def round(self) -> RoundRecord:
        """Selects, trains, adds up and takes one step."""
        begun = time.perf_counter()
        cohort = self._select()
        texts = self._texts(cohort)
        outcome = self._conditions.outcome(
            self.number,
            cohort.devices,
            texts,
            self._streams,
            wanted=self._wanted(),
            size=2 * self.weights.nbytes,
        )
        total, reports = self._train(list(self._tasks(cohort, outcome)))
        if self._private is None:
            self._follow(total, cohort, reports)
            self._learn(reports, dict(zip(outcome.devices.tolist(), outcome.seconds.tolist(), strict=True)))
            self._record(reports, texts, outcome.reasons, outcome.round_seconds)
        else:
            self._release(self._private, total, cohort)
            self._records.append(RoundRecord(self.number))
        self._refuse_to_stand_still()
        self.number += 1
        self._seconds += time.perf_counter() - begun
        return self._records[-1]

    def note(self, figures: Mapping[str, float]) -> RoundRecord:
        """Puts figures of the server's weights into the newest record."""
        self._records[-1] = replace(self._records[-1], figures=dict(figures))
        return self._records[-1]

    def history(self) -> History:
        """All rounds so far."""
        return History(tuple(self._records), self._seconds)

    def _select(self) -> Cohort:
        there: Available | None = self._conditions.available(self.number, self._streams)
        if self._private is not None:
            there = self._private.available(there)
        return self._selector.select(
            self.number,
            self._conditions.invited(self._algorithm.cohort),
            self._streams.numpy("selection", self.number),
            available=there,
            probe=lambda devices: self._hands.losses(devices, self.weights),
        )

    def _wanted(self) -> int | None:
        """After how many answers the round is over, where more were invited than are needed."""
        return self._algorithm.cohort if self._conditions.over_selection > 1 else None

    def _texts(self, cohort: Cohort) -> NDArray[np.int64]:
        """(m,) texts that each device trains on, passes counted."""
        local, sizes = self._algorithm.local, self._population.sizes[cohort.devices]
        return np.array([local.texts_of(int(size)) for size in sizes], dtype=np.int64)

    def _tasks(self, cohort: Cohort, outcome: Outcome) -> Iterator[Task]:
        """The devices that come back, in blocks; nobody needs to simulate the others."""
        back = np.flatnonzero(outcome.returned)
        private = self._private is not None  # its changes are clipped, none is left out, and the plan weighs them
        size = 1 if self._screen.ceiling is None and not private else BLOCK
        for start in range(0, len(back), size):
            block = back[start : start + size]
            devices = tuple(cohort.devices[block].tolist())
            damage = zip(devices, outcome.damage[block].tolist(), strict=True)
            yield Task(
                self.number,
                devices,
                (1.0,) * len(block) if private else tuple(cohort.weights[block].tolist()),
                self._screen.ceiling or math.inf,
                None if self._private is None else self._private.clip_norm(),
                {device: self._kept[device] for device in devices if device in self._kept},
                {device: factor for device, factor in damage if factor != 1},
            )

    def _train(self, tasks: Sequence[Task]) -> tuple[Vectors, list[Report]]:
        """The sum of what came back, and what is told of each device."""
        total: Vectors = {}
        reports: list[Report] = []
        returned: Iterable[Returned] = self._hands.run(tasks, self.weights, self._algorithm.sent(self._state))
        if self._screen.ceiling is None and self._private is None:
            returned = self._screen.sift(list(returned))
        for part in returned:
            for name, vector in part.total.items():
                total[name] = total[name].add_(vector) if name in total else vector
            reports += part.reports
            self._kept.update(part.kept)
        return total, reports

    def _follow(self, total: Vectors, cohort: Cohort, reports: Sequence[Report]) -> None:
        """The server's step from the sum, in which those that are in it speak for those that are not."""
        good = [report.weight for report in reports if not report.problem]
        if not good:
            return
        share = float(cohort.weights.sum()) / sum(good) if sum(good) else 0.0
        mean = {name: vector * share for name, vector in total.items()}
        self._update(mean, Round(self.number, len(self._population.sizes), len(good), float(cohort.weights.sum())))

    def _release(self, private: PrivateRounds, total: Vectors, cohort: Cohort) -> None:
        """The server's step from what the plan lets out; how many came is not among it."""
        step = private.release(total, self.number, cohort, self.weights)
        self._update({CHANGE: step}, Round(self.number, len(self._population.sizes), self._algorithm.cohort))

    def _update(self, mean: Vectors, about: Round) -> None:
        self._algorithm.update(self.weights, mean, self._state, about)
        if not bool(self.weights.isfinite().all()):
            raise ModelError(
                f"the server's weights are no longer finite after round {self.number}",
                "lower server_rate, or the rate of local training",
            )

    def _refuse_to_stand_still(self) -> None:
        newest = self._records[-PATIENCE:]
        if len(newest) == PATIENCE and all(not one.returned and NOT_FINITE in one.problems for one in newest):
            raise ModelError(
                f"in {PATIENCE} rounds to round {self.number} nothing finite came back from any device",
                "lower the rate of local training or server_rate, or check the model for overflow",
            )

    def _learn(self, reports: Sequence[Report], seconds: Mapping[int, float]) -> None:
        """What the next rounds make of this one: whom to select, and how long a change may be."""
        self._screen.learn(report.length for report in reports)
        self._observe(reports, seconds)

    def _observe(self, reports: Sequence[Report], seconds: Mapping[int, float]) -> None:
        heard = [report for report in reports if math.isfinite(report.loss)]
        self._selector.observe(
            np.array([report.device for report in heard], dtype=np.int64),
            np.array([report.loss for report in heard], dtype=np.float64),
            np.array([seconds[report.device] for report in heard], dtype=np.float64),
        )

    def _record(
        self,
        reports: Sequence[Report],
        texts: NDArray[np.int64],
        lost: Mapping[str, int],
        seconds: float,
        staleness: Sequence[int] = (),
    ) -> None:
        good = [report for report in reports if not report.problem]
        problems = Counter(report.problem for report in reports if report.problem)
        problems.update(lost)
        seen = sum(report.texts for report in good)
        self._records.append(
            RoundRecord(
                number=self.number,
                cohort=len(texts),
                returned=len(good),
                problems=dict(problems),
                texts=int(texts.sum()),
                largest=int(texts.max(initial=0)),
                seconds=seconds,
                loss=sum(report.texts * report.loss for report in good) / seen if seen else math.nan,
                told=dict(self._algorithm.figures(self._state)),
                staleness=float(np.mean(staleness)) if staleness else 0.0,
                stalest=max(staleness, default=0),
            )
        )

    # --- going on ----------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Writes all that the rest of the simulation depends on."""
        save_state(path, {"identity": self._identity(), **self._memory()})

    def _memory(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "screen": self._screen.state(),
            "seconds": self._seconds,
            "records": [
                asdict(record) | {"loss": repr(record.loss), "seconds": repr(record.seconds)}
                for record in self._records
            ],
            "selector": _tensors(self._selector.state()),
            "private": {} if self._private is None else _tensors(self._private.state()),
            "weights": self.weights,
            "state": self._state,
            "kept": {str(device): vectors for device, vectors in self._kept.items()},
        }

    def restore(self, path: Path) -> None:
        """Goes on where `save` was called.

        Raises:
            RunError: another simulation's, or damaged.
        """
        state = load_state(path)
        if state.get("identity") != self._identity():
            raise RunError(f"{path} is of another simulation", "use another folder, or delete it to begin again")
        self._remember(state)

    def leave_lost_rounds(self) -> None:
        """Goes on after all rounds that a private training was charged for: none is released again.

        Raises:
            GuaranteeError: all are charged and nothing was kept; or see `PrivateRounds.resume_at`.
        """
        if self._private is None:
            return
        first = self._private.resume_at(self.number)
        if not self.number and first >= self._algorithm.rounds:
            raise GuaranteeError(
                f"all {first} rounds are spent, and no checkpoint has what they trained",
                "restore the checkpoint beside the ledger; a training in another folder spends a budget of its own",
            )
        self._records += [RoundRecord(number) for number in range(self.number, first)]
        self.number = first

    def _remember(self, state: Mapping[str, Any]) -> None:
        where = self.weights.device
        self.number, self._seconds = state["number"], state["seconds"]
        self._screen.restore(state["screen"])
        self._records = [
            RoundRecord(**record | {name: float(record[name]) for name in ("loss", "seconds")})
            for record in state["records"]
        ]
        self._selector.restore(_arrays(state["selector"]))
        if self._private is not None:
            self._private.restore(state["private"])
        self.weights = state["weights"].to(where)
        self._state = {name: vector.to(where) for name, vector in state["state"].items()}
        self._kept = {
            int(device): {name: vector.to(where) for name, vector in vectors.items()}
            for device, vectors in state["kept"].items()
        }

    def _identity(self) -> dict[str, Any]:
        """What two simulations must share for one to go on where the other stopped."""
        said = [repr(each) for each in (self._algorithm, self._selection, self._conditions, self._privacy)]
        return {
            "seed": self._streams.seed,
            "parameters": len(self.weights),
            "first": _digest(self._first),
            "sizes": _digest(torch.from_numpy(np.ascontiguousarray(self._population.sizes))),
            "rules": hashlib.sha256("\n".join(said).encode()).hexdigest(),
        }


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.cpu().numpy().tobytes()).hexdigest()


def _tensors(state: Any) -> Any:
    """Arrays as tensors, which is what checkpoints hold."""
    if isinstance(state, Mapping):
        return {name: _tensors(one) for name, one in state.items()}
    if isinstance(state, list | tuple):
        return [_tensors(one) for one in state]
    return torch.from_numpy(state) if isinstance(state, np.ndarray) else state


def _arrays(state: Any) -> Any:
    if isinstance(state, Mapping):
        return {name: _arrays(one) for name, one in state.items()}
    if isinstance(state, list):
        return [_arrays(one) for one in state]
    return state.numpy() if isinstance(state, Tensor) else state
