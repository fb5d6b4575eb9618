"""Milliseconds for each device of a federated round, beside a plain loop and other libraries, and how they grow.

    python benchmarks/federated_round.py [--shape lr-mnist] [--quick] [--repeats N] [--rounds N] [--json FILE]

Shapes, 1,000 devices each, batches of 10, one pass over a device's examples:

- `words`: a classifier of 331 thousand parameters (words are embedded and averaged), 20 texts of 32 words, cohorts of
  50; two local steps.
- `lr-mnist`: FLUTE's; a logistic regression of 784 pixels on 10 digits, 60 examples, cohorts of 10; six local steps.

Contestants take turns, each in a fresh process; a figure is the median round of a process, without its first one, over
the devices of the cohort, and the table has the median over processes. Ratios are within a turn. `plain loop` is FedAvg
in the fewest lines of PyTorch that train in place: what no library can be much below on one thread. pfl-research is
`pfl` (its own SimulatedBackend), one process. Flower is `flwr`'s message API simulated on Ray (FedAvg, one CPU for each
client, so that two clients train at once, on both cores), without telemetry and without network. Every client computes
on one thread. `moved` is how far the weights are at the end from the first ones: the same for all who do the same work,
but for which devices were drawn (a third, of `words` after six rounds); with `--tiny`, all are. Memory is the most
of the process with the server; worker processes are not counted.

`--populations` grows the population at a fixed cohort: seconds of a round and memory of the process should stay flat.
A library that is not installed is said to be missing; `make bench-federated` installs them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib import metadata, util
from pathlib import Path
from typing import Any

import torch
from federated_contestants import CONTESTANTS, OURS, PACKAGES, SHAPES, Setting
from torch.nn.utils import parameters_to_vector

BASE, BEST = OURS
POPULATIONS = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
LIMIT = 1_800.0  # seconds of a contestant


@contextmanager
def _quiet() -> Iterator[None]:
    """What contestants print goes to standard error: standard output is for the figures."""
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)


def contestant(name: str, setting: Setting) -> dict[str, float]:
    with _quiet():
        seconds, network = CONTESTANTS[name](setting)
    ends = [parameters_to_vector(one.parameters()).detach() for one in (setting.network(), network)]
    return {
        "round": statistics.median(seconds[1:]),
        "first": seconds[0],
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "moved": float(torch.dist(*ends)),
    }


def in_fresh_process(name: str, setting: Setting) -> dict[str, float]:
    command = [sys.executable, __file__, "--contestant", name, "--setting", json.dumps(asdict(setting))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=LIMIT)  # noqa: S603
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(setting: Setting, repeats: int, names: Sequence[str]) -> dict[str, Any]:
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for number in range(repeats):
        for name, found in runs.items():
            found.append(in_fresh_process(name, setting))
            each = 1e3 * found[-1]["round"] / setting.cohort
            print(f"{number + 1}/{repeats}  {name}: {each:.2f} ms a device", file=sys.stderr, flush=True)
    return {
        name: {
            "ms_per_device": 1e3 * _median(found, "round") / setting.cohort,
            "ratios": {one: _ratios(found, runs[one]) for one in OURS if one in runs},
            "first_round_seconds": _median(found, "first"),
            "megabytes": _median(found, "megabytes"),
            "moved": _median(found, "moved"),
            "runs": found,
        }
        for name, found in runs.items()
    }


def _median(runs: Sequence[dict[str, float]], key: str) -> float:
    return statistics.median(run[key] for run in runs)


def _ratios(runs: Sequence[dict[str, float]], base: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of a round's seconds to those of `base` in the same turn."""
    each = [run["round"] / one["round"] for run, one in zip(runs, base, strict=True)]
    return {"median": statistics.median(each), "lowest": min(each), "highest": max(each)}


def show(found: dict[str, Any]) -> str:
    lines = [f"{'':<24} ms a device   to 1 worker   to 2 workers   first round     MB   moved"]
    for name, row in found["contestants"].items():
        one, two = (row["ratios"][ours]["median"] for ours in OURS)
        lines.append(
            f"{name:<24} {row['ms_per_device']:11.2f} {one:13.2f} {two:14.2f} {row['first_round_seconds']:11.2f} s"
            f" {row['megabytes']:6.0f} {row['moved']:7.4f}"
        )
    lines += [f"{name:<24} not installed" for name in found["missing"]]
    for name, versions in found["versions"].items():
        ratio = found["contestants"][name]["ratios"][BEST]
        packages = ", ".join(" ".join(one) for one in versions.items())
        lines.append(
            f"{BEST}, to {name} ({packages}): {ratio['median']:.1f} times as fast"
            f" ({ratio['lowest']:.1f} to {ratio['highest']:.1f} in {found['repeats']} turns)"
        )
    for devices, row in found["populations"].items():
        lines.append(f"{int(devices):>12,} devices {row['ms_per_device']:11.2f} ms a device {row['megabytes']:6.0f} MB")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="words")
    parser.add_argument("--quick", action="store_true", help="few rounds, two processes each")
    parser.add_argument("--tiny", action="store_true", help="to try the benchmark itself: small steps on every device")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--populations", action="store_true", help="also from 10^3 to 10^7 devices")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    parser.add_argument("--setting", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.contestant:
        print(json.dumps(contestant(options.contestant, Setting(**json.loads(options.setting)))))
        return
    setting = Setting(options.shape, cohort=SHAPES[options.shape].cohort, rounds=options.rounds)
    repeats = options.repeats
    if options.quick:
        setting, repeats = replace(setting, rounds=5), 2
    if options.tiny:
        setting, repeats = replace(setting, devices=4, cohort=4, rounds=1, rate=0.001), 1
    found = figures(setting, repeats, POPULATIONS if options.populations else ())
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    print(show(found))


def figures(setting: Setting, repeats: int, populations: Sequence[int]) -> dict[str, Any]:
    missing = [name for name, packages in PACKAGES.items() if not all(util.find_spec(one) for one in packages)]
    return {
        "setting": asdict(setting),
        "repeats": repeats,
        "hardware": {
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "versions": {
            name: {one: metadata.version(one) for one in packages}
            for name, packages in PACKAGES.items()
            if name not in missing
        },
        "missing": missing,
        "contestants": measure(setting, repeats, [name for name in CONTESTANTS if name not in missing]),
        "populations": {
            devices: measure(replace(setting, devices=devices), repeats, [BASE])[BASE] for devices in populations
        },
    }


if __name__ == "__main__":
    main()
