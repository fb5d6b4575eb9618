"""Short simulations for tests of algorithms."""

from __future__ import annotations

from typing import Any

from convex import Problem
from torch import nn

from trustnlp.federated.algorithm import Algorithm
from trustnlp.federated.simulator import History, simulate
from trustnlp.randomness import Streams


def train(given: Problem, model: nn.Module, algorithm: Algorithm, **more: Any) -> History:
    """All rounds of `algorithm` on the problem's devices."""
    return simulate(given.population, model, algorithm, streams=more.pop("streams", Streams(0)), **more)
