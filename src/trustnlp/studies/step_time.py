"""Time of a training step as a ratio to the plain step of the same logical batch, contestants interleaved."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import torch

from trustnlp.dp import PrivacyPlan
from trustnlp.models import NLUModel
from trustnlp.models.protocol import Encoded
from trustnlp.progress import Progress
from trustnlp.randomness import Streams

TimedStep = Callable[[int], object]


def private(
    model: NLUModel, data: Encoded, plan: PrivacyPlan, streams: Streams, rate: float, **options: object
) -> TimedStep:
    """The plan's own step; `options` go to `PrivacyPlan.step`."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    step = plan.step(model.train(), torch.optim.Adam(trained, rate), streams=streams, **options)  # type: ignore[arg-type]
    sampler = plan.sampler(streams)
    return lambda number: step(data, sampler.draw(number))


def plain(model: NLUModel, data: Encoded, plan: PrivacyPlan, streams: Streams, rate: float, physical: int) -> TimedStep:
    """The same logical batches without privacy: gradients of physical batches are added up, then Adam moves."""
    optimizer = torch.optim.Adam([p for p in model.train().parameters() if p.requires_grad], rate)
    sampler = plan.sampler(streams)
    device = next(model.parameters()).device

    def step(number: int) -> None:
        indices = sampler.draw(number).indices
        optimizer.zero_grad()
        for start in range(0, len(indices), physical):
            batch = data.batch(indices[start : start + physical]).to(device)
            (model.loss(batch).sum() / plan.expected_batch).backward()
        optimizer.step()

    return step


def ratios(
    steps: Mapping[str, TimedStep], rounds: int, progress: Progress, stage: str, against: str = "plain"
) -> dict[str, np.ndarray]:
    """(rounds,) seconds of every step over those of `against` in the same round, after a round that warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            begun = time.perf_counter()
            step(number)
            seconds[name].append(time.perf_counter() - begun)
        progress(stage, number + 1, rounds + 1, {})
    base = np.array(seconds[against][1:])
    return {name: np.array(times[1:]) / base for name, times in seconds.items()}
