"""Attacks on canaries: how far up every secret ranks, and whether it can be read out of the model.

model ────┬─ all candidates scored ─> exposure, extraction rate
canaries ─┘─ model inversion ───────> exact match, wrong words       (models with labels or tags)

    trustnlp attack canaries --model PATH --canaries planted.jsonl --out DIR
    trustnlp attack canaries --run runs/tickets --regime plain --out DIR
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from trustnlp import checks, files
from trustnlp.attacks import inversion
from trustnlp.data.canaries import Canary
from trustnlp.errors import ArgumentError
from trustnlp.models import NLUModel, load_checkpoint
from trustnlp.progress import Progress, silent
from trustnlp.randomness import Streams
from trustnlp.results import Finding, Results
from trustnlp.studies import assess, canary_file, measures
from trustnlp.studies import membership_scores as scores
from trustnlp.studies.attack_target import AUDITED
from trustnlp.studies.run_folder import choose_seed, open_run

MOST_CANDIDATES = 1_000_000


@dataclass(frozen=True)
class Request:
    """What is attacked.

    Args:
        model: path or hub name of a classifier, tagger or causal language model, or of a folder that trustnlp wrote.
        canaries: file of what was planted in its training texts (`canary_file`).
        run: in place of both, the folder of an `assess` run.
        regime: which model of that run.
        invert: also read secrets out by gradients, where the model has labels or tags; takes seconds a canary.
        seed: >= 0; same seed, same results.
        device: where the model answers.

    Raises:
        ArgumentError: neither a run nor both others, or both.
    """

    model: str = ""
    canaries: Path | None = None
    run: Path | None = None
    regime: str = "plain"
    invert: bool = True
    seed: int | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("model", "canaries"):
            value = getattr(self, name)
            if self.run is None and not value:
                raise ArgumentError(name, "given, or 'run' in place of model and canaries", value)
            if self.run is not None and value:
                raise ArgumentError(name, "left out beside 'run', which knows it", value)


def run(
    request: Request, out: str | Path, *, progress: Progress = silent, overwrite: bool = False, command: str = ""
) -> Results:
    """Attacks every canary; writes results.json into `out` and returns the results.

    Raises:
        ModelError: the checkpoint has no usable head, or is not safe to open.
        GuaranteeError: the model has no loss for a canary, as it does not know its label or tags, or answers NaN.
        CorpusError, ArgumentError, RunError: files or folder cannot be used.
    """
    request = replace(request, seed=choose_seed(out, request.seed))
    name, regime, model, canaries, digest = _opened(request)
    largest = max(canary.space for canary in canaries)
    if largest > MOST_CANDIDATES:
        rule = f"of at most {MOST_CANDIDATES:,} possible secrets each, as every one is scored"
        raise ArgumentError("canaries", rule, f"{largest:,}", "plant shorter secrets, or ones of a smaller alphabet")
    scores.losses_of(model, [canary.example() for canary in canaries], "canaries")  # refused before anything is written
    asked = asdict(request) | {"canaries": digest, "run": str(request.run) if request.run else None}
    folder = open_run(out, asked, overwrite=overwrite)
    with folder.timed("attack"):
        findings = [*measures.canary_findings(partial(scores.losses_of, model), canaries, progress, "exposure")]
        if request.invert and isinstance(model, NLUModel):
            findings += invert(model, canaries, Streams(request.seed or 0), progress)
    about = {"name": f"Canaries in {Path(name).name}", "canaries": len(canaries)}
    record = folder.record(command) | {"corpus": about, "regimes": {regime: {"model": name}}}
    results = Results(record, tuple(finding.of(regime) for finding in findings))
    results.save(folder.path)
    return results


def invert(model: NLUModel, canaries: Sequence[Canary], streams: Streams, progress: Progress) -> tuple[Finding, ...]:
    """What model inversion reads out of the planted canaries, all of one model; controls are nobody's secrets."""
    planted = [canary for canary in canaries if canary.repetitions > 0]
    progress("inversion", 0, 1, {})
    guesses = inversion.of_many(model, planted, streams=streams)
    progress("inversion", 1, 1, {})
    return inversion.evaluate(guesses, models=["this one"] * len(guesses))


def _opened(request: Request) -> tuple[str, str, Any, tuple[Canary, ...], str]:
    """Name, regime, model, canaries, and what tells these canaries from others."""
    if request.run is None:
        model = load_checkpoint(request.model).to(request.device)
        path = request.canaries or Path()
        return request.model, AUDITED, model, canary_file.read(path), files.sha256(path)
    asked, prepared, _ = assess.reopen(request.run)
    regime = checks.one_of("regime", request.regime, asked.regimes)
    model = load_checkpoint(request.run / regime).to(request.device)
    return f"{asked.model} on {prepared.schema.name}", regime, model, prepared.canaries, prepared.schema.digest
