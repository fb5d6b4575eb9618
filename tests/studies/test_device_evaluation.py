"""Figures on devices by one noised sum: right where noise is little, charged, and of the model's own task."""

from pathlib import Path

import numpy as np
import pytest

from trustnlp import models
from trustnlp.data import load
from trustnlp.randomness import Streams
from trustnlp.studies import device_evaluation as on_devices


def test_accuracy_by_hand_where_noise_is_little(table: Path) -> None:
    corpus = load(str(table))
    model = models.build("bilstm", corpus, streams=Streams(0))
    encoded = model.encode(corpus.train)
    by = np.arange(len(corpus.train)) % 7
    sizes = np.array([5, 12, 12, 40, 40, 200, 200])
    asked = on_devices.planned(model, 60.0, 1e-3)
    overall, worst = on_devices.findings(asked, model, encoded, by, sizes, Streams(1))
    right = models.predict(model, encoded).correct
    shares = [right[by == device].mean() for device in range(7)]
    weights = [min((by == device).sum(), on_devices.MOST) for device in range(7)]
    assert overall.id == "on-device-label-accuracy"
    assert overall.low is not None
    assert overall.low <= np.average(shares, weights=weights) <= (overall.high or 0)
    assert worst.id == "on-device-label-accuracy-by-activity"
    assert [cell["cell"] for cell in worst.details["cells"]] == list(on_devices.CELLS)


def test_the_budget_is_that_of_one_release(table: Path) -> None:
    model = models.build("bilstm", load(str(table)), streams=Streams(0))
    asked = on_devices.planned(model, 1.0, 1e-3)
    assert 0.99 <= asked.summing.epsilon() <= 1
    assert asked.summing.bound == pytest.approx(2)  # one metric, all and by activity
