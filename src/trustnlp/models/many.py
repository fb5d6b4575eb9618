"""Many small trainings at once: shadow models, retrainings, the cells of a sweep.

    jobs = [Job(f"shadow-{k}", partial(train_one, corpus, inside[k])) for k in range(16)]
    results = run_jobs(jobs, folder)          # [{"losses": (N,)}, …] in the jobs' order

A step of a small model is too short to be divided among cores: two threads gain little and wait for each other much.
So every training gets one thread, and every core a training. Whatever the way and the number of workers, a job gives
the same bits on the same machine, and what it gave is on the disk at once: the same call after a crash does the rest.

Two other ways are none. Threads of one process share PyTorch's global generator, from which dropout draws: trainings
side by side would draw from each other's streams, and what they give would depend on timing. And models batched into
one, by products of stacked matrices, took 1.1 to 1.2 times as long each (2 to 8 BiLSTMs, 32 texts a step, on a CPU):
the matrices of one fill a core already.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import traceback
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import cast

import numpy as np

from trustnlp import checks, files
from trustnlp.errors import ArgumentError, RunError
from trustnlp.models.worker_processes import CONTEXT, LIMIT, MEMORY, begin, hear, in_words, one_thread, team
from trustnlp.progress import Progress, silent

RESULT = "result.npz"
WAYS = ("auto", "serial", "processes")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Job:
    """One piece of work whose outcome depends on itself alone.

    Args:
        name: of its folder; letters, digits, `.`, `_` and `-`.
        run: called with that folder, where it may keep checkpoints; gives small arrays of numbers by name. For workers
            it must be picklable: a function of a module, or `functools.partial` of one. An object that several jobs
            hold, such as a corpus, is sent once to each worker, and its jobs share it there.

    Raises:
        ArgumentError: a name that breaks its rule.
    """

    name: str
    run: Callable[[Path], Mapping[str, np.ndarray]] = field(repr=False)  # it may hold training texts

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ArgumentError("name", "letters, digits, '.', '_' and '-'", self.name)


def run_jobs(
    jobs: Sequence[Job],
    folder: str | Path,
    *,
    way: str = "auto",
    workers: int | None = None,
    progress: Progress = silent,
    stage: str = "training",
) -> list[Arrays]:
    """What each job gives, in the jobs' order: what is in `folder` already, else what it gives now.

    Nothing but time depends on the way:

    - `serial`: one job after another in this process.
    - `processes`: fresh processes that take one job after another, as each becomes free.
    - `auto`: this process is one of the workers. It begins with the jobs while the others start, which takes seconds,
      so jobs of milliseconds never wait for a process, and long ones have all cores. What the others have done is told
      when this process has ended a job of its own. On one core, for one job, and inside another worker it is `serial`.

    A failing job keeps further ones from being begun; those that are running end, and their results are kept. Ctrl-C
    and a killed run end the workers at once and keep all results too. A job's name is all that tells it from others: to
    give a folder other jobs of the same names is up to the caller to prevent.

    Args:
        jobs: of distinct names.
        folder: each job has a folder of its name in it.
        way: one of WAYS.
        workers: how many processes, >= 1; one for each core that may be used if None.
        progress: hears how many of the jobs are done.
        stage: the name given to `progress`.

    Raises:
        ArgumentError: jobs of one name; jobs that cannot be pickled where workers are wanted; another argument breaks
            its rule.
        RunError: a job failed, by its name; a worker died; a stored result is damaged.
        KeyboardInterrupt: after Ctrl-C.
    """
    checks.one_of("way", way, WAYS)
    limit = _cores() if workers is None else checks.at_least("workers", workers, 1)
    names = [job.name for job in jobs]
    if len(set(names)) < len(names):
        raise ArgumentError("jobs", "of distinct names", sorted({name for name in names if names.count(name) > 1}))
    run = _Run(jobs, Path(folder), progress, stage)
    size = min(limit, len(run.missing))
    alone = size < 2 or multiprocessing.current_process().daemon  # a worker may have none of its own
    if way == "serial" or (way == "auto" and alone):
        for job in list(run.missing):
            run.do_here(job)
    elif run.missing:
        _by_workers(run, size, here=way == "auto")
    return [_load(run.folder / name / RESULT) for name in names]


class _Run:
    """The jobs, and which of them have no result yet."""

    def __init__(self, jobs: Sequence[Job], folder: Path, progress: Progress, stage: str) -> None:
        self.folder = folder
        self.missing = [job for job in jobs if not (folder / job.name / RESULT).exists()]
        self._total = len(jobs)
        self._progress = progress
        self._stage = stage
        self._show()

    def do_here(self, job: Job) -> None:
        """Does a job in this process."""
        try:
            with one_thread():
                _do(job, self.folder)
        except Exception as error:
            raise _failure({job.name: in_words(error)}) from error
        self.finished(job)

    def finished(self, job: Job) -> None:
        """Takes note of a result that is stored."""
        self.missing.remove(job)
        self._show()

    def _show(self) -> None:
        self._progress(self._stage, self._total - len(self.missing), self._total, {})


def _do(job: Job, folder: Path) -> None:
    place = folder / job.name
    place.mkdir(parents=True, exist_ok=True)
    _store(place / RESULT, job.run(place))


def _store(path: Path, given: Mapping[str, np.ndarray]) -> None:
    arrays = {name: np.asarray(array) for name, array in given.items()}
    if objects := [name for name, array in arrays.items() if array.dtype.hasobject]:
        raise ArgumentError("run", "a function that gives arrays of numbers", f"objects for {objects}")
    with files.whole(path) as part, part.open("wb") as out:
        np.savez(out, **arrays)  # type: ignore[arg-type]


def _load(path: Path) -> Arrays:
    try:
        with path.open("rb") as source, np.load(source, allow_pickle=False) as held:
            return {name: held[name] for name in held.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise RunError(f"{path} cannot be read ({error})", "delete it, and its job is done again") from error


def _failure(failed: Mapping[str, str]) -> RunError:
    told = "; ".join(f"job {name!r} failed: {why}" for name, why in failed.items())
    return RunError(told, "mend it and run again: what the others gave is kept")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --- workers ---------------------------------------------------------------------------------------------------


def _by_workers(run: _Run, size: int, here: bool) -> None:
    """All missing jobs by `size` workers; `here`, this process is one of them, and the first to begin."""
    jobs = list(run.missing)
    failed: dict[str, str] = {}
    turns = _Turns(len(jobs))
    with team(size - here, _work, jobs, turns, run.folder, name="jobs") as members:

        def listen(seconds: float | None) -> None:
            for reports in wait(list(members), seconds):
                turn, error = hear(cast(Connection, reports), members[cast(Connection, reports)])
                if turn is None:
                    del members[cast(Connection, reports)]
                elif error:
                    failed[jobs[turn].name] = error
                else:
                    run.finished(jobs[turn])

        while here and (turn := turns.take()) is not None:
            error = _attempt_here(run, jobs[turn])
            if error:
                failed[jobs[turn].name] = error
                turns.stop()
            listen(0)
        while members and (run.missing or failed):
            listen(None)
    if failed:
        raise _failure(failed)


def _attempt_here(run: _Run, job: Job) -> str:
    try:
        run.do_here(job)
    except RunError as error:
        return in_words(error.__cause__ if isinstance(error.__cause__, Exception) else error)
    return ""


class _Turns:
    """The numbers 0, 1, … `end` - 1, each given once, to whichever process asks next."""

    def __init__(self, end: int) -> None:
        self._next = CONTEXT.RawValue("q", 0)
        self._lock = CONTEXT.Lock()
        self._end = end

    @property
    def given(self) -> int:
        """How many have been given."""
        return int(self._next.value)

    def take(self) -> int | None:
        """The next number, or None."""
        with self._locked():
            turn = self.given
            self._next.value = min(turn + 1, self._end)
        return turn if turn < self._end else None

    def stop(self) -> None:
        """No number is given any more."""
        with self._locked():
            self._next.value = self._end

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=LIMIT):
            raise RunError("a worker died while it took its next job", MEMORY)
        try:
            yield
        finally:
            self._lock.release()


def _work(reports: Connection, turns: _Turns, folder: Path) -> None:
    """One worker: does one job after another and tells of each, until none is left."""
    jobs: Sequence[Job] = begin(reports)
    while (turn := turns.take()) is not None:
        error = _attempt(jobs[turn], folder)
        if error:
            turns.stop()
        reports.send((turn, error))
    reports.send((None, ""))


def _attempt(job: Job, folder: Path) -> str:
    """Does a job; its error in words, or nothing."""
    try:
        _do(job, folder)
    except Exception as error:
        traceback.print_exc()
        return in_words(error)
    return ""
