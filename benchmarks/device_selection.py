"""Time and memory of choosing a cohort from 10^3 to 10^7 devices, beside a draw of NumPy that knows no tricks.

    python benchmarks/device_selection.py [--quick] [--populations N,N] [--cohort M] [--rounds N] [--json FILE]

Rules take turns in every round; a time is that of one `select`, in milliseconds of the processor, the median of all
rounds and its quartiles. (Nothing here waits or runs in parallel, so that it is the time on a clock where nobody else
computes.) Devices have a number of texts that follows a power law, or each a number of its own, which is the worst case
for classes of equal size. `begin` is what a rule needs once, and memory what it then holds beside the sizes themselves.

The target is a draw by activity of 1,000 of 10^7 devices in less than 5 ms.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustnlp.federated.conditions import Conditions
from trustnlp.federated.selection import Cohort, Selection, parse
from trustnlp.randomness import Streams

TARGET = 5.0
STREAMS = Streams(0)
WORLD = Conditions(availability=0.3)
BASE = "numpy choice"
RULES = (
    "uniform",
    "activity:gamma=1",
    "activity:gamma=0.5,weighting=importance",
    "log",
    "top-k",
    "poisson-activity",
    "oort",
)
Draw = Callable[[int], Any]


@dataclass(frozen=True)
class Contestant:
    """A rule at work, or the base: `draw` makes the cohort of a round."""

    draw: Draw
    begin_seconds: float = 0.0
    bytes: int = 0


def sizes(population: int, kind: str) -> NDArray[np.int64]:
    generator = STREAMS.numpy(f"sizes-{kind}", population)
    if kind == "distinct":
        return generator.permutation(population) + 1
    return np.minimum(generator.zipf(1.6, population), 100_000)


def contestants(texts: NDArray[np.int64], cohort: int) -> dict[str, Contestant]:
    rules: dict[str, tuple[Selection, bool]] = {text: (parse(text), False) for text in RULES}
    rules["activity:gamma=1, 30% available"] = parse("activity:gamma=1"), True
    rules[f"power-of-choice:d={3 * cohort}"] = parse(f"power-of-choice:d={3 * cohort}"), False
    shares = texts / texts.sum()

    def plain(round: int) -> Any:
        return STREAMS.numpy("selection", round).choice(len(texts), cohort, p=shares)

    return {BASE: Contestant(plain)} | {
        name: _begun(name, rule, texts, cohort, partly) for name, (rule, partly) in rules.items()
    }


def _begun(name: str, rule: Selection, texts: NDArray[np.int64], cohort: int, partly: bool) -> Contestant:
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    held = rule.begin(texts)
    held.select(0, cohort, STREAMS.numpy("warm"), probe=_probe)
    memory = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    begun = time.process_time()
    selector = rule.begin(texts)
    seconds = time.process_time() - begun

    def draw(round: int) -> Cohort:
        there = WORLD.available(round, STREAMS) if partly else None
        return selector.select(round, cohort, STREAMS.numpy("selection", round), available=there, probe=_probe)

    def observed(round: int) -> Cohort:
        chosen = draw(round)
        selector.observe(chosen.devices, _probe(chosen.devices), 1.0 + chosen.devices % 7)
        return chosen

    return Contestant(observed if name.startswith("oort") else draw, seconds, memory)


def _probe(devices: NDArray[np.int64]) -> NDArray[np.float64]:
    return 1.0 + np.sin(devices)


def measure(population: int, kind: str, cohort: int, rounds: int) -> dict[str, Any]:
    """The rows of one population; `cohort` is at most a tenth of it."""
    cohort = min(cohort, max(1, population // 10))
    texts = sizes(population, kind)
    running = contestants(texts, cohort)
    seconds: dict[str, list[float]] = {name: [] for name in running}
    for round in range(rounds + 1):
        for name, contestant in running.items():
            begun = time.process_time()
            contestant.draw(round)
            seconds[name].append(time.process_time() - begun)
    rows = {name: _row([1000 * each for each in seconds[name][1:]], contestant) for name, contestant in running.items()}
    about = {"population": population, "sizes": kind, "distinct_sizes": len(np.unique(texts)), "cohort": cohort}
    return {**about, "rounds": rounds, "contestants": rows}


def _row(milliseconds: Sequence[float], contestant: Contestant) -> dict[str, Any]:
    low, middle, high = statistics.quantiles(milliseconds, n=4) if len(milliseconds) > 1 else [milliseconds[0]] * 3
    return {
        "milliseconds": middle,
        "quartiles": [low, high],
        "begin_seconds": contestant.begin_seconds,
        "bytes": contestant.bytes,
    }


def hardware() -> dict[str, Any]:
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def show(found: dict[str, Any]) -> str:
    where = found["hardware"]
    lines = [f"NumPy {where['numpy']}, {where['machine']}, {where['cores']} cores; processor ms, quartiles in brackets"]
    for case in found["cases"]:
        head = f"{case['cohort']:,} of {case['population']:,} devices of {case['distinct_sizes']:,} sizes"
        lines += ["", f"## {head}", "", "| rule | select | begin, s | held, MB |", "|---|---|---|---|"]
        for name, row in case["contestants"].items():
            low, high = row["quartiles"]
            times = f"{row['milliseconds']:.2f} ({low:.2f} to {high:.2f})"
            lines.append(f"| {name} | {times} | {row['begin_seconds']:.2f} | {row['bytes'] / 1e6:.1f} |")
    lines += ["", f"By activity from {found['largest']:,} devices in less than {TARGET:g} ms: {found['met']}"]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="up to 10^6 devices and 10 rounds")
    parser.add_argument("--populations", help="numbers of devices, with commas between")
    parser.add_argument("--cohort", type=int, default=1000)
    parser.add_argument("--rounds", type=int, help="50 unless said otherwise")
    parser.add_argument("--json", type=Path, help="where figures are written")
    options = parser.parse_args(arguments)
    default = [10**power for power in range(3, 7 if options.quick else 8)]
    populations = [int(each) for each in options.populations.split(",")] if options.populations else default
    rounds = options.rounds or (10 if options.quick else 50)
    cases = []
    for population, kind in [*((each, "power law") for each in populations), (max(populations), "distinct")]:
        cases.append(measure(population, kind, options.cohort, rounds))
        print(f"{population:,} devices, {kind}: done", file=sys.stderr, flush=True)
    largest = [case for case in cases if case["population"] == max(populations)]
    chosen = [case["contestants"]["activity:gamma=1"]["milliseconds"] for case in largest]
    found = {
        "hardware": hardware(),
        "target": TARGET,
        "largest": max(populations),
        "met": max(chosen) < TARGET,
        "cases": cases,
    }
    print(show(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
