"""What teams of processes are given to do in tests; workers import it by its name."""

import os
import signal
from multiprocessing.connection import Connection

import torch

from trustnlp.models.worker_processes import begin


def echo(connection: Connection, more: int) -> None:
    """Tells what it was given, then waits to be ended."""
    payload = begin(connection)
    deaf = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    connection.send((payload, more, torch.get_num_threads(), deaf))
    connection.recv()


def die(connection: Connection) -> None:
    """Ends without a word."""
    begin(connection)
    os._exit(3)
