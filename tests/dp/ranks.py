"""Trainings that two processes do together: `outcomes` starts them as a script, once, and gives what each rank saw."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))  # as a script it has no conftest

from small_text import VOCABULARY, Tagger, Texts

from trustnlp.dp import (
    AutomaticClipping,
    FlatClipping,
    LayerwiseClipping,
    Ledger,
    MicroBatchClipping,
    PrivacyPlan,
    Quantile,
)
from trustnlp.dp.distributed import Ranks
from trustnlp.errors import TrustnlpError
from trustnlp.randomness import Streams

STREAMS = Streams(5)
TEXTS = Texts.random(20)
PLAN = PrivacyPlan(20, 4, 8, 1.0, 1e-3, clipping=FlatClipping(0.5))
SIZE = 2


class Tied(Tagger):
    """The head's weight is the embedding's."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, VOCABULARY, bias=False).double()
        self.head.weight = self.embedding.weight


class Single(Tagger):
    def __init__(self) -> None:
        super().__init__()
        self.float()


@dataclass(frozen=True)
class Setup:
    """One training."""

    plan: PrivacyPlan = PLAN
    model: type[Tagger] = Tagger
    wrap: str = ""


TRAININGS = {
    "flat": Setup(),
    "automatic": Setup(replace(PLAN, clipping=AutomaticClipping())),
    "layer-wise": Setup(replace(PLAN, clipping=LayerwiseClipping(0.5))),
    "micro-batches": Setup(replace(PLAN, clipping=MicroBatchClipping(2, 0.5))),
    "adaptive": Setup(replace(PLAN, clipping=FlatClipping(0.5, adapt=Quantile(share=0.3)))),
    "few or no examples": Setup(replace(PLAN, expected_batch=1)),
    "tied weights": Setup(model=Tied),
    "float32": Setup(model=Single),
    "wrapped by DDP": Setup(wrap="ddp"),
}
SHARDED = {name: replace(setup, wrap="fsdp") for name, setup in TRAININGS.items() if name != "wrapped by DDP"}


def sharded(model: nn.Module) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    if not isinstance(model, Tied):  # whose weight must stay in one group
        fully_shard(model.head, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def prepared(setup: Setup, **options: Any) -> Any:
    """A model and its step."""
    model = setup.model()
    if dist.is_initialized() and setup.wrap == "ddp":
        model = nn.parallel.DistributedDataParallel(model)
        options["loss"] = lambda batch: loss_through(model, batch)
    if dist.is_initialized() and setup.wrap == "fsdp":
        model = sharded(model)
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    return model, setup.plan.step(model, optimizer, streams=STREAMS, **options)


def loss_through(wrapper: nn.Module, batch: Any) -> torch.Tensor:
    """The model's loss, by a call of the wrapper, as users do."""
    wrapper.module.forward = wrapper.module.loss
    return wrapper(batch)


def weights(model: nn.Module) -> np.ndarray:
    parts = [p.full_tensor() if hasattr(p, "full_tensor") else p for p in model.parameters()]
    return torch.cat([part.detach().flatten() for part in parts]).numpy()


def trained(setup: Setup) -> dict[str, Any]:
    model, step = prepared(setup)
    losses = [step(TEXTS, draw) for draw in setup.plan.sampler(STREAMS)]
    return {"weights": weights(model), "losses": losses, "spent": step.ledger.spent, "path": str(step.ledger._path)}


def resumed(folder: Path) -> dict[str, Any]:
    """Three steps, then the same from ledger and checkpoint by a new step."""
    path = folder / "ledger.jsonl"
    ledger = Ledger.open(path, PLAN) if dist.get_rank() == 0 else None
    model, step = prepared(Setup(), ledger=ledger)
    for number in range(3):
        step(TEXTS, PLAN.sampler(STREAMS).draw(number))
    again, other = prepared(Setup(), ledger=Ledger.open(path, PLAN))
    again.load_state_dict(model.state_dict())
    other.restore(step.state())
    for number in range(other.resume_at(3), 8):
        other(TEXTS, PLAN.sampler(STREAMS).draw(number))
    return {"weights": weights(again), "lines": len(path.read_text().splitlines()), "spent": other.ledger.spent}


def refusal(name: str, folder: Path) -> dict[str, Any]:
    """What each rank says where rank 1 differs or fails."""
    odd = dist.get_rank() == 1
    texts, streams, setup, options = TEXTS, STREAMS, Setup(), {}
    if name == "data":
        texts = replace(TEXTS, ids=TEXTS.ids[::-1]) if odd else TEXTS
    if name == "size":
        texts = Texts.random(21) if odd else TEXTS
    if name == "draws":
        streams = Streams(6) if odd else STREAMS
    if name == "plan":
        setup = Setup(replace(PLAN, delta=2e-3)) if odd else setup
    if name == "failure":

        def fails(*args: Any) -> None:
            raise ValueError("no memory")

        options = {"clipped_sum": fails} if odd else {}
    if name == "ledger":
        ledger = Ledger.in_memory(PLAN)
        ledger.spend()
        options = {"ledger": ledger} if odd else {}
    if name == "disk":
        path = folder / "disk" / "ledger.jsonl"
        options = {} if odd else {"ledger": Ledger.open(path, PLAN)}
    said = spent = ""
    model = None
    try:
        model, step = prepared(setup, **options)
        if name == "weights" and odd:
            with torch.no_grad():
                model.head.bias.add_(1)
        if name == "disk" and not odd:
            path.unlink()
        step(texts, setup.plan.sampler(streams).draw(0))
    except (TrustnlpError, ValueError, OSError) as error:
        said = f"{type(error).__name__}: {error}"
    if model is not None:
        spent = step.ledger.spent
    return {"said": said, "spent": spent}


REFUSALS = ("data", "size", "draws", "plan", "weights", "failure", "ledger", "disk")


def shard_sizes() -> dict[str, Any]:
    """Bytes of the optimizer's moments and of the noisy gradient on this rank, against those of the whole."""
    model, step = prepared(SHARDED["flat"])
    step.release(TEXTS, PLAN.sampler(STREAMS).draw(0))
    held = sum(p.grad.to_local().numel() for p in model.parameters())
    return {"held": held, "whole": sum(p.numel() for p in model.parameters())}


def all_cases(folder: Path) -> dict[str, Any]:
    found = {name: trained(setup) for name, setup in TRAININGS.items()}
    found |= {f"sharded {name}": trained(setup) for name, setup in SHARDED.items()}
    found["resumed"] = resumed(folder)
    found["shard sizes"] = shard_sizes()
    found |= {f"refusal {name}": refusal(name, folder) for name in REFUSALS}
    found["secret"] = {"bytes": Ranks.of_process(torch.device("cpu")).secret(32).hex()}
    return found


def losing_a_rank(how: str, folder: Path) -> dict[str, Any]:
    """Rank 1 is gone at the third step, asleep or killed; what does rank 0 say, and after how long?"""
    _, step = prepared(Setup())
    begun = time.monotonic()
    try:
        for number in range(8):
            if number == 2 and dist.get_rank() == 1:
                if how == "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                return sleep_until(folder / "rank 0 has given up")
            begun = time.monotonic()
            step(TEXTS, PLAN.sampler(STREAMS).draw(number))
    except TrustnlpError as error:
        (folder / "rank 0 has given up").touch()
        return {"said": f"{type(error).__name__}: {error}", "seconds": time.monotonic() - begun}
    return {"said": "", "seconds": 0.0}


def sleep_until(file: Path) -> dict[str, Any]:
    while not file.exists():
        time.sleep(0.05)
    return {}


@functools.cache
def outcomes(limit: float = 120) -> list[dict[str, Any]]:
    """What each rank found; ranks that are still running after `limit` seconds are killed."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, folder]
        ranks = [subprocess.Popen([*command, str(rank)]) for rank in range(SIZE)]
        deadline = time.monotonic() + limit
        try:
            for process in ranks:
                process.wait(max(0.0, deadline - time.monotonic()))
        finally:
            for process in ranks:
                process.kill()
                process.wait()
        return [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(SIZE)]


def main(folder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for number, case in enumerate(("work", "asleep", "killed")):
        wait = timedelta(seconds=30 if case == "work" else 2)
        store = f"file://{folder}/store {number}"
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=SIZE, timeout=wait)
        found |= all_cases(folder) if case == "work" else {case: losing_a_rank(case, folder)}
        (folder / f"{rank}.json").write_text(json.dumps(found, default=np.ndarray.tolist))
        dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
