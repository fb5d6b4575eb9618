"""Processes that work for this one: started alike, none left behind.

    with team(2, work, payload) as members:        # work(connection, *arguments) is run by each
        members                                    # {connection: process}

They have one thread each and do not hear Ctrl-C, which is for this process to answer; they end when it does. They are
started afresh, not forked, as a fork would copy threads of PyTorch in the middle of something.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

import torch

from trustnlp.errors import ArgumentError, RunError

CONTEXT = multiprocessing.get_context("spawn")
LIMIT = 60  # seconds that anything but work may take
# Libraries read these when a worker loads them. Threads that wait must not spin: there is one worker for each core.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
MEMORY = "if memory ran out, give fewer workers; run it again: what is done is kept"
_GUARD = "see what it wrote; a script must guard its own calls by: if __name__ == '__main__'"


@contextmanager
def team(
    size: int, work: Callable[..., None], payload: Any, *arguments: Any, name: str = "payload"
) -> Iterator[dict[Connection, SpawnProcess]]:
    """`size` processes that run `work(connection, *arguments)`, by the connections to them; all end with the block.

    Args:
        payload: sent to each once; `begin` gives it. All at once: what its parts share is in it once.
        arguments: what only a starting process can be given, such as locks.
        name: of the payload in a message.

    Raises:
        ArgumentError: a payload that cannot be pickled.
    """
    pickled, members = _pickled(name, payload), {}
    senders: list[threading.Thread] = []
    try:
        for _ in range(size):
            ours, theirs = CONTEXT.Pipe()
            with _for_workers():
                members[ours] = CONTEXT.Process(target=work, args=(theirs, *arguments), daemon=True)
                members[ours].start()
            theirs.close()  # the worker alone has it, so its end is heard
            # Workers read when they have loaded their libraries: nobody waits for that.
            senders.append(threading.Thread(target=_send, args=(ours, pickled), daemon=True))
            senders[-1].start()
        yield dict(members)
    finally:
        for process in members.values():
            process.kill()  # it holds nothing that is needed
            process.join(LIMIT)
        for sender in senders:
            sender.join(LIMIT)
        for ours in members:
            ours.close()


def begin(connection: Connection) -> Any:
    """In a worker: one thread, an end when the parent ends, and the payload."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    return pickle.loads(connection.recv_bytes())  # noqa: S301 (sent by the process that started this one)


def hear(connection: Connection, process: SpawnProcess) -> Any:
    """What a worker has sent.

    Raises:
        RunError: it died.
    """
    try:
        return connection.recv()
    except (EOFError, OSError):
        process.join(LIMIT)
        mend = MEMORY if process.exitcode == -signal.SIGKILL else _GUARD
        raise RunError(f"a worker died (exit code {process.exitcode})", mend) from None


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, PyTorch computes on one thread, as workers do."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_words(error: Exception) -> str:
    """The kind of an error and what it says."""
    return f"{type(error).__name__}: {error}"


def _pickled(name: str, payload: Any) -> bytes:
    try:
        return pickle.dumps(payload)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        mend = "give functions of a module, or functools.partial of them; or work without other processes"
        raise ArgumentError(name, "picklable where workers do them", in_words(error), mend) from None


def _send(connection: Connection, payload: bytes) -> None:
    with suppress(OSError):  # a worker that has died is heard of by those who wait for its reports
        connection.send_bytes(payload)


@contextmanager
def _for_workers() -> Iterator[None]:
    """What a process that is started inside inherits: the environment of workers, and no ear for Ctrl-C."""
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update(_ENVIRONMENT)
    try:
        with _deaf():
            yield
    finally:
        for name, value in before.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value


@contextmanager
def _deaf() -> Iterator[None]:
    """Ctrl-C inside is heard afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
