import time
from pathlib import Path

import pytest
import torch

from trustnlp import data, models
from trustnlp.dp import FlatClipping, PrivacyPlan, engine
from trustnlp.progress import silent
from trustnlp.randomness import Streams
from trustnlp.studies import step_time

STREAMS = Streams(2)


class Noiseless:
    def release_(self, sums, block, stds, divisor):
        for tensor in sums.values():
            tensor.div_(divisor)


def test_ratios_are_of_the_same_round_and_leave_the_first_out() -> None:
    naps = {"plain": [0.2, 0.01, 0.01], "slow": [0.0, 0.04, 0.04]}
    seen = []

    def step(name: str):
        return lambda number: (seen.append(name), time.sleep(naps[name][number]))

    found = step_time.ratios({name: step(name) for name in naps}, 2, silent, "stage")
    assert seen == ["plain", "slow"] * 3
    assert found["plain"].tolist() == [1.0, 1.0]
    assert (found["slow"] > 1.5).all()


def test_the_plain_step_does_what_the_private_one_does_without_clipping_and_noise(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise their times could not be compared."""
    corpus = data.load(table)
    monkeypatch.setattr(engine, "SeededNoise", lambda streams: Noiseless())
    plan = PrivacyPlan(60, 12, 3, 1.0, 1e-3, clipping=FlatClipping(1e6))
    built = [models.build("bilstm", corpus, streams=STREAMS, dropout=0.0, word_dropout=0.0) for _ in range(2)]
    encoded = built[0].encode(corpus.train[:60], for_training=True)
    steps = (
        step_time.private(built[0], encoded, plan, STREAMS, 1e-2),
        step_time.plain(built[1], encoded, plan, STREAMS, 1e-2, physical=5),
    )
    for number in range(3):
        for step in steps:
            step(number)
    one, other = (torch.cat([p.detach().flatten() for p in model.parameters()]) for model in built)
    assert torch.allclose(one, other, atol=1e-4)
