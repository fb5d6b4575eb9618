"""Learning over consecutive periods: devices join, leave and change, and what a period brought is gone when it ends.

    period 0            period 1            ...
    devices, texts      devices, texts              past texts: only what `replay` lets a device keep
    rounds of simulate  rounds of simulate          the same algorithm, selection and conditions in every period
        weights --------------> weights             always handed on
        server's state -------> (carry)             optimiser, control variates, selector's memory; or begun anew
    scores[0, :]        scores[1, :]                after period i, on the test set of each period j

The static setting, all texts at once, is the case of a single period (`AllAtOnce`) of as many rounds, scored on the
same test sets. So one function gives both, and they can be compared. (Round numbers, and with them a decay of the local
rate, begin anew in each period.)

Each period is a simulation in a folder of its own, with streams of its own. So a run that was killed in any round of
any period goes on to the same bits.

Shape legend: P periods, J test sets, K devices that were ever there, E evaluations of a period.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from torch import nn

from trustnlp import checks
from trustnlp.data.corpus import Corpus, Example
from trustnlp.errors import ArgumentError, CorpusError
from trustnlp.federated import partition
from trustnlp.federated.algorithm import Algorithm
from trustnlp.federated.cohort import Cohort, Devices, PlainSelector, Request, Selection, Selector
from trustnlp.federated.conditions import IDEAL, Conditions
from trustnlp.federated.crew import Setting, crew
from trustnlp.federated.learning_curves import Curve
from trustnlp.federated.population import Generated, Ints, Population
from trustnlp.federated.selection import Uniform
from trustnlp.federated.simulator import CHECKPOINT, History, Server, simulate
from trustnlp.models.evaluation import evaluate
from trustnlp.models.protocol import Encoded
from trustnlp.models.state import load_state, save_state
from trustnlp.progress import Progress, silent
from trustnlp.randomness import Streams

UNKNOWN = -1
HELD = 1_000  # devices whose encoded texts are held, so that memory does not grow with the population
Encode = Callable[..., Encoded]  # (examples, for_training) -> Encoded, as the models' own `encode`
Score = Callable[[nn.Module, Encoded], float]


class Periods(Protocol):
    """Devices and their texts over periods; to be sent to worker processes, it must be picklable."""

    def __len__(self) -> int:
        """P."""
        ...

    @property
    def tests(self) -> int:
        """J: P, a test set for each period, unless several periods have been put together."""
        ...

    def sizes(self, period: int) -> Ints:
        """(K,) how many training texts each device has in `period`; of all devices ever, 0 for those not there."""
        ...

    def texts(self, period: int, device: int) -> Sequence[Example]:
        """These texts; the same at every call."""
        ...

    def test(self, number: int) -> Sequence[Example]:
        """The test texts `number`, 0 <= number < J; at least one."""
        ...

    def device_of(self, user: str) -> int:
        """The device on which the texts of `user` are; -1 for an unknown user."""
        ...


@dataclass(frozen=True)
class AllAtOnce:
    """Several periods as one, in which every device has all the texts that it ever gets: the static setting."""

    periods: Periods

    def __len__(self) -> int:
        return 1

    @property
    def tests(self) -> int:
        """J, those of the periods."""
        return self.periods.tests

    def sizes(self, period: int) -> Ints:
        """(K,) the texts of all periods."""
        del period
        return np.sum([self.periods.sizes(each) for each in range(len(self.periods))], axis=0, dtype=np.int64)

    def texts(self, period: int, device: int) -> Sequence[Example]:
        """The device's texts of all periods, in their order."""
        del period
        return [text for each in range(len(self.periods)) for text in self.periods.texts(each, device)]

    def test(self, number: int) -> Sequence[Example]:
        """The test texts of one of the periods."""
        return self.periods.test(number)

    def device_of(self, user: str) -> int:
        """See `Periods`."""
        return self.periods.device_of(user)


@dataclass(frozen=True)
class CorpusPeriods:
    """A corpus whose texts have users and times; see `of_corpus`.

    Args:
        train, test: for each period its examples.
        users: the device of each user of the training split.
        rows: for each period the places in `train` of each device's texts, of the devices that have some.
    """

    train: tuple[tuple[Example, ...], ...]
    test_sets: tuple[tuple[Example, ...], ...]
    users: dict[str, int]
    rows: tuple[dict[int, list[int]], ...]

    def __len__(self) -> int:
        return len(self.train)

    @property
    def tests(self) -> int:
        """J = P."""
        return len(self.test_sets)

    def sizes(self, period: int) -> Ints:
        """(K,) see `Periods`."""
        found = np.zeros(len(self.users), dtype=np.int64)
        for device, rows in self.rows[period].items():
            found[device] = len(rows)
        return found

    def texts(self, period: int, device: int) -> Sequence[Example]:
        """See `Periods`."""
        return [self.train[period][row] for row in self.rows[period].get(device, ())]

    def test(self, number: int) -> Sequence[Example]:
        """See `Periods`."""
        return self.test_sets[number]

    def device_of(self, user: str) -> int:
        """See `Periods`."""
        return self.users.get(user, UNKNOWN)


def of_corpus(corpus: Corpus, periods: int) -> CorpusPeriods:
    """The corpus by time: consecutive periods with about as many training texts each, and one device for each user.

    Test texts belong to the period in which they were written, those before the first or after the last to these.

    Raises:
        ArgumentError: a training text without user or time, or fewer different times than periods.
        CorpusError: a test text without time, or a period without test texts.
    """
    spread = partition.by_time([example.time for example in corpus.train], periods)
    by_user = partition.by_user([example.user for example in corpus.train])
    users = {str(corpus.train[int(own[0])].user): device for device, own in enumerate(by_user.devices)}
    train = tuple(tuple(corpus.train[row] for row in rows) for rows in spread.devices)
    begins = [min(cast(float, example.time) for example in examples) for examples in train[1:]]
    test: list[list[Example]] = [[] for _ in range(periods)]
    for example in corpus.test:
        if example.time is None:
            raise CorpusError(f"a test text of {corpus.name!r} has no time", "leave it out")
        test[int(np.searchsorted(begins, example.time, side="right"))].append(example)
    if empty := [number for number, examples in enumerate(test) if not examples]:
        raise CorpusError(f"periods {empty} of {corpus.name!r} have no test texts", "ask for fewer periods")
    rows: list[dict[int, list[int]]] = [{} for _ in range(periods)]
    for period, examples in enumerate(train):
        for row, example in enumerate(examples):
            rows[period].setdefault(users[str(example.user)], []).append(row)
    return CorpusPeriods(train, tuple(map(tuple, test)), users, tuple(rows))


# --- what is on a device -----------------------------------------------------------------------------------------


def population(periods: Periods, period: int, *, encode: Encode, streams: Streams, replay: int = 0) -> Population:
    """The devices of one period, with the texts of this period and what each has kept of earlier ones.

    Nothing else of the past can be reached through it, and a text is encoded when its device is visited. A device
    without texts of this period is not there, whatever it has kept.

    Args:
        encode: called with a device's texts.
        streams: of the whole course; what is kept is drawn from `replay`.
        replay: at most so many texts of earlier periods on each device, a uniform sample of all that it ever had.
    """
    checks.at_least("replay", replay, 0)
    now = periods.sizes(period)
    past = np.sum([periods.sizes(each) for each in range(period)], axis=0, dtype=np.int64)
    sizes = now + np.where(now > 0, np.minimum(past, replay), 0)
    return Generated(sizes, _Visited(periods, period, encode, streams, replay))


class _Visited:
    """Encodes a device's texts when it is first visited; of the last `HELD` devices, they are held for further visits.

    It lives as long as its period.
    """

    def __init__(self, periods: Periods, period: int, encode: Encode, streams: Streams, replay: int) -> None:
        self._periods, self._period, self._encode = periods, period, encode
        self._streams, self._replay = streams, replay
        self._held: dict[int, Encoded] = {}

    def __call__(self, device: int) -> Encoded:
        if device not in self._held:
            if len(self._held) == HELD:
                del self._held[next(iter(self._held))]
            old = kept(self._periods, self._period, device, self._replay, self._streams) if self._replay else []
            now = self._periods.texts(self._period, device)
            self._held[device] = self._encode([*now, *old], for_training=True)
        return self._held[device]


def kept(periods: Periods, period: int, device: int, budget: int, streams: Streams) -> list[Example]:
    """What `device` has kept when `period` begins: at most `budget` texts, of all it had until then each as likely.

    A reservoir that is drawn from as texts come: what was dropped in one period cannot be there in a later one.
    Source: Vitter 1985, ACM Transactions on Mathematical Software 11(1):37-57, algorithm R.
    """
    held: list[tuple[int, int]] = []  # (period, place on the device)
    seen = 0
    for past in range(period):
        count = int(periods.sizes(past)[device])
        draws = streams.numpy("replay", past, device).integers(0, np.arange(seen + 1, seen + count + 1))
        for place, draw in enumerate(draws.tolist()):
            if len(held) < budget:
                held.append((past, place))
            elif draw < budget:
                held[draw] = (past, place)
        seen += count
    texts = {past: periods.texts(past, device) for past in sorted({past for past, _ in held})}
    return [texts[past][place] for past, place in held]


# --- learning ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Course:
    """What learning over periods gave.

    Args:
        histories: the rounds of each period.
        scores: (P, J) after period i, on test set j, in [0, 1], higher is better: R of Lopez-Paz and Ranzato 2017.
    """

    histories: tuple[History, ...]
    scores: NDArray[np.float64]

    @property
    def curves(self) -> tuple[Curve, ...]:
        """For each period the score on its own test set, or on all of them where it is the only one."""
        periods, tests = self.scores.shape
        own = [[number] if periods == tests else range(tests) for number in range(periods)]
        return tuple(_curve(history, columns) for history, columns in zip(self.histories, own, strict=True))

    @property
    def largest(self) -> float:
        """Mean over rounds of the most texts that a single device trained on, for which the others had to wait."""
        return float(np.mean([record.largest for history in self.histories for record in history.rounds]))


def _curve(history: History, columns: Sequence[int]) -> Curve:
    texts = np.cumsum([record.texts for record in history.rounds])
    at = [number for number, record in enumerate(history.rounds) if record.figures]
    scores = [np.mean([history.rounds[number].figures[_name(column)] for column in columns]) for number in at]
    return Curve(np.array(at) + 1, texts[at], np.array(scores))


def learn(
    periods: Periods,
    model: nn.Module,
    algorithm: Algorithm,
    *,
    encode: Encode | None = None,
    score: Score | None = None,
    selection: Selection | None = None,
    conditions: Conditions = IDEAL,
    replay: int = 0,
    carry: bool = True,
    streams: Streams,
    workers: int = 1,
    evaluate_every: int = 10,
    checkpoint_every: int = 10,
    folder: str | Path | None = None,
    progress: Progress = silent,
) -> Course:
    """Trains `model` through all periods, one after another, and scores it on all test sets as it goes.

    Args:
        periods: who is there when, with which texts.
        model: its weights are the first of the server; it is left with the last.
        algorithm: what devices and server do; its rounds are those of **each** period.
        encode: see `Encode`; the model's own if None.
        score: how good the model is on an encoded test set, in [0, 1]; `evaluation.evaluate`'s score if None.
        selection, conditions, workers, evaluate_every, checkpoint_every, progress: as for `simulate`, in each period.
        replay: see `population`.
        carry: whether the server's state, what devices keep for the algorithm, and the selector's memory go from one
            period to the next; otherwise each period begins with the weights alone.
        streams: period p draws from the child `period` p of these.
        folder: each period has a folder of its own in it; the same call goes on where the last one stopped.

    Raises:
        ArgumentError: fewer devices in a period than a cohort has, an empty test set, an asynchronous algorithm whose
            state is to be carried, or another argument breaks its rule.
        ModelError, RunError, KeyboardInterrupt: as for `simulate`.
    """
    if carry and getattr(algorithm, "asynchronous", False):
        raise ArgumentError("carry", "false for an asynchronous algorithm, whose devices are still out", carry)
    encode = encode or cast(Any, model).encode
    score = score or _score
    tests = [encode(periods.test(number), for_training=False) for number in range(periods.tests)]
    if not tests or not all(map(len, tests)):
        raise ArgumentError("periods", "with at least one text in every test set", [len(test) for test in tests])
    measure = partial(_measure, tests=tests, score=score)
    rule: Selection = _Present(selection or Uniform())
    histories, scores = [], []
    with _place(folder) as place:
        for period in range(len(periods)):
            own = streams.child("period", period)
            there = population(periods, period, encode=encode, streams=streams, replay=replay)
            here = place / f"period-{period}"
            if carry and period and not (here / CHECKPOINT).exists():
                setting = Setting(model, there, algorithm, own)
                with crew(setting, 1) as hands:
                    server = Server(setting, rule, conditions, hands)
                    _hand_over(place / f"period-{period - 1}", here, server)
            history = simulate(
                there,
                model,
                algorithm,
                selection=rule,
                conditions=conditions,
                streams=own,
                workers=workers,
                evaluate=measure,
                evaluate_every=evaluate_every,
                folder=here,
                checkpoint_every=checkpoint_every,
                progress=progress,
                stage=f"period {period + 1} of {len(periods)}",
            )
            histories.append(history)
            scores.append([history.figures[_name(number)] for number in range(len(tests))])
    return Course(tuple(histories), np.array(scores))


@dataclass(frozen=True)
class _Present:
    """A rule that never chooses a device that is not there, though its selector remembers it from an earlier period."""

    rule: Selection

    @property
    def unbiased(self) -> bool:
        """As the rule: it is so over devices with texts."""
        return self.rule.unbiased

    def begin(self, sizes: Ints) -> Selector:
        """The rule's own selector where it remembers nothing."""
        selector = self.rule.begin(sizes)
        return _PresentSelector(selector, sizes) if selector.state() else selector


class _PresentSelector(PlainSelector):
    """Adds to those who are not available those who have no texts."""

    def __init__(self, selector: Selector, sizes: Ints) -> None:
        self._selector, self._sizes = selector, sizes

    def choose(self, request: Request) -> Cohort:
        def there(devices: Devices) -> NDArray[np.bool_]:
            return np.asarray(request.there(devices) & (self._sizes[devices] > 0))

        return self._selector.select(
            request.round, request.cohort, request.generator, available=there, probe=request.probe
        )

    def observe(self, devices: Devices, losses: NDArray[np.float64], seconds: NDArray[np.float64]) -> None:
        self._selector.observe(devices, losses, seconds)

    def state(self) -> dict[str, Any]:
        return self._selector.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        self._selector.restore(state)


def _hand_over(before: Path, after: Path, server: Server) -> None:
    """Writes a checkpoint of `server` before its first round, with what the last period's server remembers."""
    after.mkdir(parents=True, exist_ok=True)
    new = after / "begun.safetensors"
    server.save(new)
    last = load_state(before / CHECKPOINT)
    memory = {name: last[name] for name in ("state", "kept", "selector")}
    save_state(after / CHECKPOINT, load_state(new) | memory)
    new.unlink()


def _measure(model: nn.Module, *, tests: Sequence[Encoded], score: Score) -> dict[str, float]:
    return {_name(number): score(model, test) for number, test in enumerate(tests)}


def _score(model: nn.Module, encoded: Encoded) -> float:
    return evaluate(cast(Any, model), encoded)["score"]


def _name(number: int) -> str:
    return f"test-{number}"


@contextmanager
def _place(folder: str | Path | None) -> Iterator[Path]:
    if folder is not None:
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory(prefix="trustnlp-") as made:
        yield Path(made)
