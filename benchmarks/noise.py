"""Time of noising one sum of 22 million float32 entries, contestants interleaved in one run.

    python benchmarks/noise.py [--quick] [--json FILE]

Plain is PyTorch's `normal_` alone, which runs in one thread; the noises also add, divide and take the threads given.
The median of the rounds is reported, with the processor time of all threads, which other programs disturb less.
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

from trustnlp.dp.noise import Noise, SeededNoise
from trustnlp.dp.secure_noise import SecureNoise
from trustnlp.randomness import Streams

ENTRIES = 22_000_000  # parameters of MiniLM-L6


def contestants(entries: int) -> dict[str, Callable[[int], object]]:
    sums = {"weights": torch.zeros(entries)}
    generator = Streams(0).torch("plain")

    def release(noise: Noise) -> Callable[[int], object]:
        return lambda block: noise.release_(sums, block, {"weights": 1.0}, 64.0)

    return {
        "plain": lambda _: sums["weights"].normal_(generator=generator),
        "seeded": release(SeededNoise(Streams(0))),
        "secure": release(SecureNoise()),
    }


def measure(threads: int, rounds: int) -> dict[str, object]:
    torch.set_num_threads(threads)
    runners = contestants(ENTRIES)
    wall: dict[str, list[float]] = {name: [] for name in runners}
    processor: dict[str, list[float]] = {name: [] for name in runners}
    for number in range(rounds + 1):  # the first round warms up and is not counted
        for name, run in runners.items():
            begun, used = time.perf_counter(), time.process_time()
            run(number)
            wall[name].append(time.perf_counter() - begun)
            processor[name].append(time.process_time() - used)
    found = {
        name: {
            "seconds": statistics.median(wall[name][1:]),
            "processor_seconds": statistics.median(processor[name][1:]),
            "to_plain": statistics.median(a / b for a, b in zip(wall[name][1:], wall["plain"][1:], strict=True)),
            "to_seeded": statistics.median(a / b for a, b in zip(wall[name][1:], wall["seeded"][1:], strict=True)),
        }
        for name in runners
    }
    return {"entries": ENTRIES, "threads": threads, "rounds": rounds, "contestants": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    threads = sorted({1, torch.get_num_threads()})
    results = [measure(count, 5 if options.quick else 15) for count in threads]
    print(f"{platform.machine()}, PyTorch {torch.__version__}")
    for result in results:
        print(f"\n{ENTRIES:,} entries, {result['threads']} threads ({result['rounds']} rounds)")
        for name, found in result["contestants"].items():  # type: ignore[attr-defined]
            print(
                f"  {name:<8} {1000 * found['seconds']:6.0f} ms   {found['to_plain']:.2f} of plain   "
                f"{found['to_seeded']:.2f} of seeded   {1000 * found['processor_seconds']:6.0f} ms of processor time"
            )
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
