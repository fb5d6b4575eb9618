"""Time and peak memory of a private step beside the plain one and other libraries', in one run.

    python benchmarks/private_step.py [--case NAME ...] [--quick] [--device cuda] [--dtype bfloat16] [--results FOLDER]

A step is one logical batch: forward, backward, clipping, noise and Adam's update. All contestants train the same model
from the same draws in the same physical batches. They take turns, round by round; the first round warms up. A ratio is
to the plain step of the same round; its median and quartiles are reported.

Peak memory is of one fresh process for each contestant: on a CPU the most that is resident within two steps, all
first-time checks included, beyond what was before the model was made; on CUDA the most that PyTorch has allocated.

Exactness: the gradient of one draw, without noise and dropout, against one backward per example, as relative L2
distance; asked of those who clip every example to one norm.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from cases import STREAMS, Case, Setting, cases
from contestants import Contestant, contestants, plan, sum_function
from tables import hardware, markdown, plot
from torch import Tensor, nn

from trustnlp.dp import Clip, per_unit_clipped_sum
from trustnlp.dp.clipping import ClippedSumFunction, examples

ROUNDS, QUICK_ROUNDS = 5, 2
EXACT_EXAMPLES = 16
NOISELESS = 1e-9  # of other libraries; trustnlp's plans have no room for so little
QUICK = ("minilm-64", "bilstm")
MEMORY_TARGETS = {"flat": 1.25, "layer-wise": 1.05, "micro-batch": 1.05}


def times(case: Case, rounds: int, device: str) -> dict[str, dict[str, Any]]:
    """Seconds of a step and ratios to plain, by contestant; or why there are none."""
    steps: dict[str, Callable[[int], object]] = {}
    seconds: dict[str, list[float]] = {}
    found: dict[str, dict[str, Any]] = {}
    for contestant in contestants(case):
        try:
            steps[contestant.name] = contestant.prepare(case, torch.optim.Adam, 1.0)[1]
            seconds[contestant.name] = []
        except Exception as error:
            found[contestant.name] = {"error": first_line(error)}
    for number in range(rounds + 1):
        for name, step in list(steps.items()):
            try:
                seconds[name].append(_timed(step, number, device))
            except Exception as error:
                found[name] = {"error": first_line(error)}
                del steps[name]
                gc.collect()
    for name in steps:
        ratios = [mine / plain for mine, plain in zip(seconds[name][1:], seconds["plain"][1:], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        found[name] = {"seconds": statistics.median(seconds[name][1:]), "ratio": middle, "quartiles": [low, high]}
    return found


def _timed(step: Callable[[int], object], number: int, device: str) -> float:
    begun = time.perf_counter()
    step(number)
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def peak_memory(name: str, contestant: str, setting: Setting) -> int:
    """Bytes that a training takes at most; to be called in a fresh process."""
    tiny = cases(setting.device)[name](replace(setting, tiny=True))
    _named(tiny, contestant).prepare(tiny, torch.optim.Adam, 1.0)[1](0)  # libraries are loaded, threads are there
    case = cases(setting.device)[name](setting)
    # More physical batches need no more memory.
    case = replace(case, logical=min(case.logical, max(2 * case.physical, *case.micro_batches)))
    gc.collect()
    before = _resident()
    step = _named(case, contestant).prepare(case, torch.optim.Adam, 1.0)[1]
    for number in range(2):
        step(number)
    if setting.device == "cuda":
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def exactness(name: str, contestant: str, setting: Setting) -> dict[str, Any]:
    """How many trained tensors get no gradient, and how far the gradient of one draw is from the exact one."""
    case = cases(setting.device)[name](setting)
    logical, make = min(case.logical, EXACT_EXAMPLES), case.make
    case = replace(case, make=lambda: without_dropout(make()), logical=logical, physical=logical // 2)
    chosen = _named(case, contestant)
    seen: list[tuple[Tensor, bool]] = []

    class Recorder(torch.optim.SGD):
        def step(self, closure: Callable[[], float] | None = None) -> None:
            for parameter in (parameter for group in self.param_groups for parameter in group["params"]):
                absent = parameter.grad is None
                seen.append((torch.zeros_like(parameter) if absent else parameter.grad.clone(), absent))
            super().step(closure)

    chosen.prepare(case, Recorder, 1.0 if chosen.ours else NOISELESS)[1](0)
    found: dict[str, Any] = {"tensors": len(seen), "without_gradient": sum(absent for _, absent in seen)}
    if chosen.kind == "flat":
        exact = _in_order(clipped_gradient(case, per_unit_clipped_sum))
        mine = clipped_gradient(case, sum_function(case, plan(case, 1.0, **chosen.fields))) if chosen.ours else None
        mine = _in_order(mine or [gradient for gradient, _ in seen])
        found["distance"] = float((mine - exact).norm() / exact.norm())
    return found


def clipped_gradient(case: Case, function: ClippedSumFunction) -> list[Tensor]:
    """Of the first draw, before noise, as a clipped-sum function computes it."""
    model, chosen = case.make(), plan(case, 1.0)
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    clip = Clip(chosen.clipping, dict.fromkeys(parameters, 0), chosen.clipping.thresholds(1))
    units = examples(chosen.sampler(STREAMS).draw(0).indices)
    found = function(model, model.loss, case.data, units, parameters, clip)
    return [gradient / case.logical for gradient in found.gradients.values()]


def _in_order(gradients: Sequence[Tensor]) -> Tensor:
    """End to end by shape, since a library's own LSTM may hold the same tensors in another order."""
    return torch.cat([g.detach().flatten().double() for g in sorted(gradients, key=lambda tensor: tuple(tensor.shape))])


def without_dropout(model: nn.Module) -> nn.Module:
    for module in model.modules():
        for name in ("p", "word_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return model


def _named(case: Case, name: str) -> Contestant:
    return next(contestant for contestant in contestants(case) if contestant.name == name)


def in_fresh_process(measure: Callable[..., Any], *arguments: object) -> tuple[Any, str]:
    """What `measure` gives in a fork of this process, in which no tensor was computed yet; and its error, or ''."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        try:
            return pool.submit(_told, measure, *arguments).result()
        except Exception as error:  # the process itself died
            return None, first_line(error)


def _told(measure: Callable[..., Any], *arguments: object) -> tuple[Any, str]:
    """Errors as text, since not all of them can be sent between processes."""
    try:
        return measure(*arguments), ""
    except Exception as error:
        return None, first_line(error)


def first_line(error: BaseException) -> str:
    """What went wrong, in one line."""
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed"
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"


def measure(names: Sequence[str], setting: Setting, rounds: int, *, memory: bool) -> Iterator[dict[str, Any]]:
    """All figures of each case, JSON-able."""
    whole = {name: cases(setting.device)[name] for name in names}
    apart = {name: _apart(name, whole[name](setting), setting) if memory else {} for name in names}
    for name in names:
        case = whole[name](setting)
        show(f"{name}: {rounds} rounds")
        timed = times(case, rounds, setting.device)
        rows = [
            {"name": c.name, "kind": c.kind, "ours": c.ours, "mend": c.mend}
            | {"target": case.targets.get(c.kind), "memory_target": MEMORY_TARGETS.get(c.kind)}
            | timed[c.name]
            | apart[name].get(c.name, {})
            for c in contestants(case)
        ]
        for row in rows:
            if row.get("memory") and rows[0]["memory"]:
                row["memory_ratio"] = row["memory"] / rows[0]["memory"]
        yield {
            "case": name,
            "title": case.title,
            "sweep": dict(case.sweep),
            "rounds": rounds,
            "contestants": rows,
        }


def _apart(name: str, case: Case, setting: Setting) -> dict[str, dict[str, Any]]:
    """Memory and exactness by contestant, each from a process of its own; before anything is computed in this one."""
    found = {}
    for contestant in contestants(case):
        show(f"{name}: memory of {contestant.name}")
        memory, error = in_fresh_process(peak_memory, name, contestant.name, setting)
        found[contestant.name] = {"memory": memory, "memory_error": error}
        if not case.sweep and not error:
            checked, error = in_fresh_process(exactness, name, contestant.name, setting)
            found[contestant.name] |= checked or {"exactness_error": error}
    return found


def show(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", help="one of the cases, may be repeated; all if left out")
    parser.add_argument(
        "--quick", action="store_true", help=f"time of {' and '.join(QUICK)} alone, {QUICK_ROUNDS} rounds"
    )
    parser.add_argument("--tiny", action="store_true", help="toy models, to try the benchmark itself")
    parser.add_argument("--rounds", type=int, help=f"counted rounds, {ROUNDS} if left out")
    parser.add_argument("--no-memory", action="store_true", help="time alone")
    parser.add_argument("--no-peers", action="store_true", help="trustnlp beside the plain step alone")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of autocast")
    parser.add_argument("--threads", type=int, help="of PyTorch; its own choice if left out")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--table", type=Path, help="write a Markdown table here")
    parser.add_argument("--plot", type=Path, help="draw the figures here")
    parser.add_argument("--results", type=Path, help="write all three into this folder, named by date and hardware")
    options = parser.parse_args(arguments)
    known = cases(options.device)
    names = options.case or [name for name in known if not options.quick or name in QUICK]
    if unknown := set(names) - set(known):
        parser.error(f"--case must be one of {', '.join(known)}, got {', '.join(sorted(unknown))}")
    if options.threads:
        torch.set_num_threads(options.threads)
    setting = Setting(options.device, options.dtype, options.tiny, not options.no_peers)
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    found: dict[str, Any] = {"hardware": hardware(setting), "cases": []}
    for case in measure(names, setting, rounds, memory=not (options.no_memory or options.quick)):
        found["cases"].append(case)  # written after every case, so that an interrupted run is not lost
        for path, write in outputs(options, found).items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path)
    print(markdown(found))


def outputs(options: argparse.Namespace, found: dict[str, Any]) -> dict[Path, Callable[[Path], object]]:
    """Where to write what."""
    writers: dict[str, Callable[[Path], object]] = {
        "json": lambda path: path.write_text(json.dumps(found, indent=1) + "\n"),
        "table": lambda path: path.write_text(markdown(found) + "\n"),
        "plot": lambda path: plot(found, path),
    }
    chosen = {getattr(options, kind): write for kind, write in writers.items() if getattr(options, kind)}
    if options.results:
        stem = options.results / found["hardware"]["name"]
        chosen |= {
            Path(f"{stem}.{end}"): writers[kind] for kind, end in (("json", "json"), ("table", "md"), ("plot", "png"))
        }
    return chosen


if __name__ == "__main__":
    main()
