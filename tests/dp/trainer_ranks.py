"""Trainings that two processes do together by `PrivateTrainer`: `outcomes` starts them by torchrun, once."""

from __future__ import annotations

import functools
import json
import random
import subprocess
import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # as a script it has no conftest

import torch
import torch.distributed as dist
from test_trainer import OPTIONS, PLAN, ROWS, Interrupt, StopAt, bert, masking, private, weights
from transformers import BertForMaskedLM

from trustnlp.dp import LayerwiseClipping
from trustnlp.errors import TrustnlpError

SIZE = 2
PLAIN = {"optim": "sgd", "learning_rate": 0.5}
LAYERWISE = replace(PLAN, clipping=LayerwiseClipping())  # its thresholds adapt


def plain(folder: Path) -> dict[str, Any]:
    """With an evaluation and checkpoints; rank 1 begins with other weights."""
    model = bert()
    if dist.is_initialized() and dist.get_rank():
        model.classifier.weight.data.add_(1)
    trainer = private(folder, model=model, eval_dataset=ROWS[:16], **{**OPTIONS, **PLAIN})
    out = trainer.train()
    logged = [entry["epsilon"] for entry in trainer.state.log_history if "epsilon" in entry]
    return {
        **found(trainer),
        "fallback": getattr(trainer._step._clipped_sum, "fallback", ""),
        "training loss": out.training_loss,
        "evaluation": trainer.evaluate()["eval_loss"],
        "epsilons": logged,
    }


def layerwise(folder: Path) -> dict[str, Any]:
    trainer = private(folder, LAYERWISE, **OPTIONS)
    trainer.train()
    return found(trainer)


def resumed(folder: Path) -> dict[str, Any]:
    private(folder, LAYERWISE, callbacks=[StopAt(4)], **OPTIONS).train()
    trainer = private(folder, LAYERWISE, **OPTIONS)
    trainer.train(resume_from_checkpoint=True)
    return found(trainer)


def crashed(folder: Path) -> dict[str, Any]:
    """With a secret seed, dropout and random masks; steps 5 to 7 are lost."""
    options = {"seed": None, "data_collator": masking, **OPTIONS}
    lost = private(folder, model=bert(BertForMaskedLM, dropout=0.2), callbacks=[Interrupt(7)], **options)
    try:
        lost.train()
    except RuntimeError:
        begun = found(lost)
    trainer = private(folder, model=bert(BertForMaskedLM, dropout=0.2), **options)
    trainer.train(resume_from_checkpoint=True)
    return {**found(trainer), "begun": begun, "chance": random.random()}


def refused(folder: Path) -> dict[str, Any]:
    """Another run in the folder of `plain`, and other data on rank 1."""
    rows = ROWS[::-1] if dist.get_rank() else ROWS
    other = private(folder / "data", rows=rows)
    return {
        "folder": said(private(folder.parent / "plain")),
        "data": said(other),
        "spent": other.ledger.spent,
    }


def said(trainer: Any) -> str:
    try:
        trainer.train()
    except TrustnlpError as error:
        return str(error)
    return ""


def found(trainer: Any) -> dict[str, Any]:
    return {"weights": weights(trainer).tolist(), "spent": trainer.ledger.spent}


CASES = (plain, resumed, crashed, refused)


@functools.cache
def outcomes(limit: float = 120) -> list[dict[str, Any]]:
    """What each rank found, and under `lines` how many each ledger has."""
    with tempfile.TemporaryDirectory() as folder:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(SIZE)]
        done = subprocess.run([*torchrun, __file__, folder], capture_output=True, text=True, timeout=limit)
        assert done.returncode == 0, done.stderr
        ledgers = {path.parent.name: path for path in Path(folder).glob("*/ledger.jsonl")}
        lines = {name: len(path.read_text().splitlines()) for name, path in ledgers.items()}
        files = sorted(str(path.relative_to(folder)) for path in Path(folder).glob("plain/**/*") if path.is_file())
        ranks = [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(SIZE)]
        return [{**rank, "lines": lines, "files": files} for rank in ranks]


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    results = {case.__name__: case(folder / case.__name__) for case in CASES}
    (folder / f"{dist.get_rank()}.json").write_text(json.dumps(results))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
