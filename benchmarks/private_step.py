"""Time of a private step as a ratio to the plain step, contestants interleaved in one run.

    python benchmarks/private_step.py [--quick] [--json FILE]

A step is one logical batch: forward, backward, clipping, noise and the optimiser's update. Plain goes through the same
physical batches and adds up their gradients. The median of the rounds is reported, with the quartiles of the ratio.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification

from trustnlp import models
from trustnlp.data import synthetic
from trustnlp.dp import BookKeeping, PrivacyPlan, per_example_clipped_sum
from trustnlp.models.protocol import Batch
from trustnlp.randomness import Streams

STREAMS = Streams(0)


class Tokens:
    """`count` texts of `length` tokens with a label of two, drawn at random."""

    def __init__(self, count: int, length: int) -> None:
        generator = STREAMS.torch("tokens")
        self._ids = torch.randint(0, 30522, (count, length), generator=generator)
        self._labels = torch.randint(0, 2, (count,), generator=generator)

    def __len__(self) -> int:
        return len(self._ids)

    def batch(self, indices: object) -> Batch:
        rows = torch.as_tensor(indices)
        return Batch({"ids": self._ids[rows]}, {"label": self._labels[rows]})


class MiniLMShape(torch.nn.Module):
    """Six layers of width 384 over 30,522 pieces with a classification head, weights at random."""

    def __init__(self) -> None:
        super().__init__()
        config = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
        self.model = BertForSequenceClassification(config)

    def logits(self, batch: Batch) -> dict[str, torch.Tensor]:
        return {"label": self.model(input_ids=batch.inputs["ids"]).logits}

    def loss(self, batch: Batch) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(self.logits(batch)["label"], batch.targets["label"], reduction="none")


def bilstm() -> tuple[Callable[[], torch.nn.Module], object, int, int]:
    """The BiLSTM tagger on the synthetic corpus: model, data, logical and physical batch."""
    corpus = synthetic.corpus(size=3000, canaries=False)
    data = models.build("bilstm", corpus, streams=STREAMS).encode(corpus.train, for_training=True)
    return lambda: models.build("bilstm", corpus, streams=STREAMS), data, 256, 64


def minilm() -> tuple[Callable[[], torch.nn.Module], object, int, int]:
    """The MiniLM shape at 64 tokens."""
    return MiniLMShape, Tokens(640, 64), 64, 16


CASES = {"bilstm T~10, logical 256, physical 64": bilstm, "minilm shape T=64, logical 64, physical 16": minilm}


def plain_step(make: Callable[[], torch.nn.Module], data, plan: PrivacyPlan, physical: int) -> Callable[[int], None]:
    model = make().train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    sampler = plan.sampler(STREAMS)

    def step(number: int) -> None:
        indices = sampler.draw(number).indices
        optimizer.zero_grad()
        for start in range(0, len(indices), physical):
            loss = model.loss(data.batch(indices[start : start + physical])).sum() / plan.expected_batch
            loss.backward()
        optimizer.step()

    return step


def private_step(make: Callable[[], torch.nn.Module], data, plan: PrivacyPlan, clipped_sum) -> Callable[[int], None]:
    model = make().train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    step = plan.step(model, torch.optim.Adam(trained, 1e-4), streams=STREAMS, clipped_sum=clipped_sum)
    sampler = plan.sampler(STREAMS)
    return lambda number: step(data, sampler.draw(number)) and None


def measure(name: str, rounds: int, loop: bool) -> dict[str, object]:
    make, data, logical, physical = CASES[name]()
    plan = PrivacyPlan(len(data), logical, steps=1000, noise_multiplier=1.0, delta=1e-5)
    contestants = {
        "plain": plain_step(make, data, plan, physical),
        "book-keeping": private_step(make, data, plan, BookKeeping(physical)),
    }
    if loop:
        contestants["one backward per example"] = private_step(make, data, plan, per_example_clipped_sum)
    seconds: dict[str, list[float]] = {contestant: [] for contestant in contestants}
    for number in range(rounds + 1):  # the first round warms up and is not counted
        for contestant, step in contestants.items():
            begun = time.perf_counter()
            step(number)
            seconds[contestant].append(time.perf_counter() - begun)
    found = {}
    for contestant, times in seconds.items():
        ratios = [mine / plain for mine, plain in zip(times[1:], seconds["plain"][1:], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        found[contestant] = {"seconds": statistics.median(times[1:]), "ratio": middle, "quartiles": [low, high]}
    return {"case": name, "rounds": rounds, "contestants": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, without the per-example loop")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    results = [measure(name, 5 if options.quick else 15, not options.quick) for name in CASES]
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}")
    for result in results:
        print(f"\n{result['case']} ({result['rounds']} rounds)")
        for contestant, found in result["contestants"].items():  # type: ignore[attr-defined]
            low, high = found["quartiles"]
            milliseconds = 1000 * found["seconds"]
            print(f"  {contestant:<26} {milliseconds:8.0f} ms   {found['ratio']:.2f} ({low:.2f} to {high:.2f})")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
