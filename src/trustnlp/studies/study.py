"""What every study shares: a claim of the literature, the request, and cells that are measured once.

A study measures many cells (a corpus, a model, a mechanism, a budget), each with its own findings. What a cell has
found is written into the run folder at once, so an interrupted study goes on with the next cell.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from trustnlp import checks
from trustnlp.progress import Progress, silent
from trustnlp.results import Finding, Results, Verdict
from trustnlp.studies.run_folder import RunFolder, open_run

CLAIM = "claim"


@dataclass(frozen=True)
class Request:
    """What a study is asked for.

    Args:
        data: corpora by name or path; the study's own where empty.
        models: kinds of models; the study's own where empty.
        quick: at most ten minutes on two cores: fewer texts, cells and rounds.
        seed: >= 0. Studies are of public corpora, so it need not be secret, and the same seed gives the same results.
        device: where models are trained.
    """

    data: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    quick: bool = False
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        checks.at_least("seed", self.seed, 0)


@dataclass(frozen=True)
class Study:
    """A claim and how it is put to the test.

    Args:
        name: of `trustnlp study NAME`.
        system: its row in docs/papers.md.
        claim: what the paper says, and what counts as reproducing it, fixed before anything was measured.
        axes: how a reader sees the cells: the keys of a cell that make `panel`, `rows` and `columns`.
        measure: fills the cells and gives the findings, the claim's first.
    """

    name: str
    system: str
    claim: str
    axes: Mapping[str, Sequence[str]]
    measure: Callable[[Request, Cells, Progress], Sequence[Finding]]

    def run(
        self,
        request: Request,
        out: str | Path,
        *,
        progress: Progress = silent,
        overwrite: bool = False,
        command: str = "",
    ) -> Results:
        """Measures what is not measured yet, writes results.json into `out` and returns the results.

        Raises:
            RunError: `out` holds another run.
            CorpusError: a corpus cannot be read.
        """
        asked = {"study": self.name, **asdict(request), "data": list(request.data), "models": list(request.models)}
        folder = open_run(out, asked, overwrite=overwrite)
        findings = self.measure(request, Cells(folder), progress)
        axes = {axis: list(keys) for axis, keys in self.axes.items()}
        about = {"name": self.name, "system": self.system, "claim": self.claim, "axes": axes}
        record = folder.record(command) | {"corpus": {"name": f"Study: {self.name}"}, "study": about}
        results = Results(record, tuple(findings))
        results.save(folder.path)
        return results


class Cells:
    """The cells of a study in its run folder."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    def measure(self, cell: Mapping[str, str], make: Callable[[Path], Sequence[Finding]]) -> tuple[Finding, ...]:
        """The cell's findings: those already in the folder, else what `make` finds in the cell's own folder."""
        name = ", ".join(cell.values())
        path = self._folder.path / "cells" / re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")
        if (path / "results.json").exists():
            return Results.load(path).findings
        with self._folder.timed(name):
            findings = tuple(_placed(finding, cell, name) for finding in make(path))
        Results({"cell": dict(cell)}, findings).save(path)
        self._folder.log(f"{name}: done")
        return findings


def _placed(finding: Finding, cell: Mapping[str, str], name: str) -> Finding:
    return replace(finding, regime=name, details={**finding.details, "cell": dict(cell)})


def verdict(title: str, reproduced: bool | None, *, value: float | None, **fields: Any) -> Finding:
    """The finding `claim`; None where the evidence does not suffice."""
    verdicts = {True: Verdict.REPRODUCED, False: Verdict.NOT_REPRODUCED, None: Verdict.INSUFFICIENT_EVIDENCE}
    return Finding(CLAIM, title, value, verdict=verdicts[reproduced], **fields)
