"""What a model does on the devices' own held-out texts, told by one noised sum and nothing else.

Devices stand in for themselves here: each counts its right answers, or adds up its losses, and `private_evaluation`
releases the sum. The cells of activity have public edges, as whoever knew deciles would know something of all devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustnlp import models
from trustnlp.federated.private_evaluation import DeviceMetric, PrivateEvaluation, activity_cell
from trustnlp.randomness import Streams
from trustnlp.results import Direction, Finding

MOST = 10  # texts for which one device counts
LARGEST_LOSS = 10.0  # nats
EDGES = (10, 30, 100)  # texts that a device trains on
CELLS = ("under 10 texts", "10 to 29 texts", "30 to 99 texts", "100 texts or more")
ACCURACY = DeviceMetric("label-accuracy", "Label accuracy", most=MOST)
LOSS = DeviceMetric("loss", "Loss", most=MOST, scale=LARGEST_LOSS, unit="nats", direction=Direction.LOWER, ideal=0.0)


def planned(model: Any, epsilon: float, delta: float) -> PrivateEvaluation:
    """Label accuracy where the model has labels, else its loss; over all devices and by activity.

    Guarantee: (epsilon, delta) for one device with all its held-out texts, add-remove.
    """
    metric = ACCURACY if _has_labels(model) else LOSS
    return PrivateEvaluation.for_budget(epsilon, delta, [metric], {"activity": CELLS})


def findings(
    asked: PrivateEvaluation,
    model: Any,
    encoded: Any,
    by: NDArray[np.int64],
    sizes: NDArray[np.int64],
    streams: Streams,
) -> Sequence[Finding]:
    """What `asked` releases of the held-out texts.

    Args:
        encoded: the texts, as the model encodes them.
        by: (N,) the device of each.
        sizes: (K,) texts that each device trains on.
        streams: of the noise; for another model others.
    """
    right = models.predict(model, encoded).correct if _has_labels(model) else models.losses(model, encoded)
    known = np.isfinite(right)
    parts = np.bincount(by[known], weights=right[known], minlength=len(sizes))
    wholes = np.bincount(by[known], minlength=len(sizes))
    (metric,) = asked.metrics
    vectors = (
        asked.vector({metric.id: (float(part), float(whole))}, {"activity": activity_cell(int(size), EDGES)})
        for part, whole, size in zip(parts, wholes, sizes, strict=True)
    )
    return asked.release(vectors, streams)


def _has_labels(model: Any) -> bool:
    return isinstance(model, models.LabelModel) and bool(model.schema.labels)
