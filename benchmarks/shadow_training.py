"""Time of 16 shadow trainings at once over that of the same trainings one after another.

    python benchmarks/shadow_training.py [--quick] [--epochs N] [--rounds N] [--json FILE]

"One after another" is the same loop with PyTorch's own choice of threads; the others are the ways of `run_jobs`. Every
contestant has a fresh process in each round, in turns; a time is from the first training to the last loss, and holds
what starting workers takes, but not the loading of libraries and texts by the process itself. Ratios are to "one after
another" in the same round; their median is what the target (at most 0.65 on two cores) is for.

The corpus is SNIPS from $TRUSTNLP_DATA, or the synthetic one where that is not set. Epochs are fewer than a study's,
which makes the start of workers weigh more, not less.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trustnlp.attacks.shadows import NLUTraining, design, nlu_job
from trustnlp.models.many import Job, run_jobs
from trustnlp.randomness import Streams

BASE = "one after another"
WAYS = {"one after another, one thread each": "serial", "processes": "processes", "auto": "auto"}
TARGET = 0.65
QUICK_TEXTS = 1_500


@dataclass(frozen=True)
class Setting:
    """What every contestant trains."""

    corpus: str
    texts: int
    shadows: int
    epochs: int


def jobs(setting: Setting) -> list[Job]:
    from trustnlp.studies import corpora, recipes  # not above: workers load this file, too

    streams = Streams(0)
    corpus = corpora.load(setting.corpus, limit=200_000, quick=setting.texts <= QUICK_TEXTS)
    pool = corpus.train[: setting.texts]
    recipe = recipes.plain("bilstm")
    training = NLUTraining(
        "bilstm",
        corpus,
        pool,
        streams,
        recipe.learning_rate,
        recipe.batch_size,
        setting.epochs,
        schedule=recipe.schedule,
        clip_grad_norm=recipes.CLIP_GRAD_NORM,
    )
    inside = design(len(pool), setting.shadows, streams.numpy("design"))
    return [nlu_job(training, number, mask) for number, mask in enumerate(inside)]


def contestant(name: str, setting: Setting) -> dict[str, Any]:
    """One contestant's time in this process, and what it found."""
    chosen = jobs(setting)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        loop = [job.run(Path(folder)) for job in chosen] if name == BASE else None
        found = loop or run_jobs(chosen, folder, way=WAYS[name])
        seconds = time.perf_counter() - begun
    losses = np.stack([each["losses"] for each in found])
    return {
        "seconds": seconds,
        "texts": losses.shape[1],
        "threads": torch.get_num_threads(),
        "bits": hashlib.sha256(losses.tobytes()).hexdigest()[:16],
    }


def in_fresh_process(name: str, setting: Setting) -> dict[str, Any]:
    command = [sys.executable, __file__, "--contestant", name, "--setting", json.dumps(asdict(setting))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(setting: Setting, rounds: int) -> dict[str, Any]:
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in (BASE, *WAYS)}
    for number in range(rounds):
        for name, found in runs.items():
            found.append(in_fresh_process(name, setting))
            print(f"round {number + 1}, {name}: {found[-1]['seconds']:.1f} s", file=sys.stderr, flush=True)
    base = [run["seconds"] for run in runs[BASE]]
    return {
        "setting": {**asdict(setting), "texts": runs[BASE][0]["texts"]},
        "rounds": rounds,
        "hardware": {
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "threads": runs[BASE][0]["threads"],
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "target": TARGET,
        "contestants": {
            name: {
                "seconds": [round(run["seconds"], 2) for run in found],
                "median": statistics.median(run["seconds"] for run in found),
                "ratio": statistics.median(run["seconds"] / one for run, one in zip(found, base, strict=True)),
                "bits": sorted({run["bits"] for run in found}),
            }
            for name, found in runs.items()
        },
        # The trainings of run_jobs must agree to the bit; the first, of several threads, need not.
        "same_bits": len({run["bits"] for name in WAYS for run in runs[name]}) == 1,
    }


def show(found: dict[str, Any]) -> str:
    setting, where = found["setting"], found["hardware"]
    lines = [
        f"{setting['shadows']} shadow models of {setting['texts']:,} texts of {setting['corpus']}, "
        f"{setting['epochs']} epochs; {found['rounds']} rounds, {where['cores']} cores, PyTorch {where['torch']}",
        f"{'':<36}   median   ratio",
    ]
    for name, row in found["contestants"].items():
        lines.append(f"{name:<36} {row['median']:6.1f} s   {row['ratio']:.2f}")
    lines.append(f"target {found['target']}; run_jobs gives the same bits whatever the way: {found['same_bits']}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small part of the corpus, one round")
    parser.add_argument("--tiny", action="store_true", help="a few texts, to try the benchmark itself")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shadows", type=int, default=16)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    parser.add_argument("--setting", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.contestant:
        print(json.dumps(contestant(options.contestant, Setting(**json.loads(options.setting)))))
        return
    setting = Setting(
        "snips" if os.environ.get("TRUSTNLP_DATA") else "synthetic", 200_000, options.shadows, options.epochs
    )
    if options.quick:
        setting, options.rounds = Setting(setting.corpus, QUICK_TEXTS, options.shadows, 1), 1
    if options.tiny:
        setting, options.rounds = Setting("synthetic", 40, 2, 1), 1
    found = measure(setting, options.rounds)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    print(show(found))


if __name__ == "__main__":
    main()
