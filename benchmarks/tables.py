"""What was measured, as a Markdown table and as a plot."""

from __future__ import annotations

import importlib.metadata
import itertools
import os
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from cases import Setting

LIBRARIES = ("torch", "transformers", "opacus", "fastDP", "peft")
COLOURS = {"ours": "#0b6e4f", "others": "#c9a66b"}
TARGET, PLAIN = "#c62828", "#444444"
WRONG = 0.01  # a distance from the exact gradient that no rounding explains


def hardware(setting: Setting) -> dict[str, Any]:
    """Where and with what a run is made; `name` is that of its files."""
    cuda = setting.device == "cuda"
    processor = torch.cuda.get_device_name() if cuda else _processor()
    threads = [] if cuda else [f"{torch.get_num_threads()}-threads"]
    peers = [] if setting.peers else ["without-peers"]
    parts = [date.today().isoformat(), processor, *threads, setting.dtype, *peers]
    return {
        "name": re.sub(r"[^a-z0-9-]+", "-", "-".join(parts).lower()),
        "date": parts[0],
        "processor": processor,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": setting.device,
        "dtype": setting.dtype,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in LIBRARIES},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else []
    return models[0].strip() if models else platform.machine()


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _place(where: Mapping[str, Any]) -> str:
    threads = "" if where["device"] == "cuda" else f", {where['threads']} threads"
    return f"{where['processor']}{threads}, {where['dtype']}"


def markdown(found: Mapping[str, Any]) -> str:
    """One table for each case, with what every figure needs to be read."""
    where = found["hardware"]
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items() if version)
    lines = [
        f"# A private step, {where['date']}",
        "",
        f"{_place(where)}; Python {where['python']}, {versions}.",
    ]
    lines += ["", "Ratios are to the plain step of the same round: median, and quartiles in brackets."]
    for case in found["cases"]:
        lines += ["", f"## {case['title']}", "", f"`--case {case['case']}`, {case['rounds']} rounds.", ""]
        lines += [
            "| | ms a step | time ratio | target | peak memory | ratio | distance from exact |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += [_row(row) for row in case["contestants"]]
        lines += ["", *_notes(case["contestants"])]
    return "\n".join(lines).rstrip()


def _row(row: Mapping[str, Any]) -> str:
    name = f"**{row['name']}**" if row["ours"] else row["name"]
    memory = f"{row['memory'] / 2**20:,.0f} MiB | {row['memory_ratio']:.2f}" if row.get("memory_ratio") else " | "
    if "error" in row:
        return f"| {name} | failed | {row['error'].replace('|', '/')[:120]} | | {memory} | |"
    low, high = row["quartiles"]
    ratio = f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})"
    target = f"{row['target']:.2f}" if row["target"] and row["ours"] else ""
    distance = f"{row['distance']:.0e}" if "distance" in row else ""
    return f"| {name} | {1000 * row['seconds']:,.0f} | {ratio} | {target} | {memory} | {distance} |"


def _notes(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for row in rows:
        if row["mend"]:
            yield f"- {row['name']}: {row['mend']}."
        if row.get("without_gradient"):
            missing = f"{row['without_gradient']} of {row['tensors']}"
            yield f"- {row['name']}: {missing} trained tensors never get a gradient."
        if row.get("memory_error") and "error" not in row:
            yield f"- {row['name']}: memory was not measured ({row['memory_error']})."
        if row.get("exactness_error"):
            yield f"- {row['name']}: exactness was not measured ({row['exactness_error']})."
        if row.get("distance", 0) > WRONG:
            yield f"- {row['name']}: what it releases is not the sum of clipped gradients."


def plot(found: Mapping[str, Any], path: Path) -> None:
    """Bars of time and of memory for each case, and lines where a case is a point of a sweep."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    bars = [case for case in found["cases"] if not case["sweep"]]
    sweeps = sorted({sweep for case in found["cases"] for sweep in case["sweep"]})
    heights = [0.3 * len(case["contestants"]) + 0.7 for case in bars] + [3.6] * bool(sweeps)
    figure = pyplot.figure(figsize=(12, sum(heights) + 1.1), layout="constrained")
    where = found["hardware"]
    figure.suptitle(f"A private step as a multiple of the plain one, noise and update included\n{_place(where)}")
    grid = figure.add_gridspec(len(heights), 2, height_ratios=heights)
    for number, case in enumerate(bars):
        left = figure.add_subplot(grid[number, 0])
        _bars(left, case, "ratio", "target", f"{case['title']}\ntime of a step (median, quartiles)")
        _bars(figure.add_subplot(grid[number, 1]), case, "memory_ratio", "memory_target", "peak memory")
    for number, sweep in enumerate(sweeps[:2]):
        _lines(figure.add_subplot(grid[len(bars), number]), found["cases"], sweep)
    marks = [Patch(color=COLOURS["ours"], label="trustnlp"), Patch(color=COLOURS["others"], label="other libraries")]
    marks += [
        Line2D([], [], color=TARGET, lw=2.5, label="target"),
        Line2D([], [], color=PLAIN, ls="--", label="plain step"),
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _bars(axes: Any, case: Mapping[str, Any], what: str, target: str, title: str) -> None:
    rows = case["contestants"][1:][::-1]
    values = [row.get(what) or 0 for row in rows]
    axes.barh(range(len(rows)), values, color=[_colour(row) for row in rows], height=0.7)
    reach = max([*values, *(row["quartiles"][1] for row in rows if what == "ratio" and "quartiles" in row), 1.3])
    for place, (row, value) in enumerate(zip(rows, values, strict=True)):
        edge = value
        if what == "ratio" and value:
            low, edge = row["quartiles"]
            axes.errorbar(value, place, xerr=[[value - low], [edge - value]], color=PLAIN, capsize=2, lw=1)
        if row["ours"] and row[target] and value:
            axes.plot([row[target]] * 2, [place - 0.45, place + 0.45], color=TARGET, lw=2.5, zorder=3)
            edge = max(edge, row[target])
        text = f"{value:.2f}" if value else "fails" if "error" in row else "not measured"
        wrong = "  (not the clipped sum)" if what == "ratio" and row.get("distance", 0) > WRONG else ""
        axes.text(edge + 0.02 * reach, place, text + wrong, va="center", fontsize=9, color="black" if value else PLAIN)
    axes.axvline(1, color=PLAIN, lw=1, ls="--")
    axes.set_yticks(range(len(rows)), [row["name"] if what == "ratio" else "" for row in rows], fontsize=9)
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, 1.15 * reach)
    axes.set_title(title, fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def _lines(axes: Any, cases: Sequence[Mapping[str, Any]], sweep: str) -> None:
    lines: dict[str, list[tuple[int, float]]] = {}
    colours = {}
    for case in cases:
        for row in case["contestants"][1:] if sweep in case["sweep"] else []:
            if "ratio" in row:
                lines.setdefault(row["name"], []).append((case["sweep"][sweep], row["ratio"]))
                colours[row["name"]] = _colour(row)
    for marker, (name, line) in zip(itertools.cycle("os^Dv<>*"), lines.items()):
        axes.plot(*zip(*sorted(line), strict=True), marker=marker, label=name, color=colours[name], lw=1.8)
    axes.axhline(1, color=PLAIN, lw=1, ls="--")
    axes.set_xlabel(sweep.replace("_", " "))
    axes.set_xscale("log", base=2)
    ticks = sorted({place for line in lines.values() for place, _ in line})
    axes.set_xticks(ticks, map(str, ticks))
    axes.set_ylim(0.8, 1.45 * max((value for line in lines.values() for _, value in line), default=1))
    name = next(case["case"].split("-")[0] for case in cases if sweep in case["sweep"])
    what = sweep.replace("_", " ")
    axes.set_title(f"{name}: time by {what}", fontsize=10, loc="left")
    axes.legend(fontsize=8, frameon=False, ncols=2, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)


def _colour(row: Mapping[str, Any]) -> str:
    return COLOURS["ours" if row["ours"] else "others"]
