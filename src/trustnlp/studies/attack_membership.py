"""Membership attacks on any model: all that its answers allow, a bound on epsilon, and which texts are at risk.

members ─────┐  blind classifier: are the two told apart without the model?
non-members ─┤
model ───────┼─ scores of every attack ─┬─ TPR at 1% and 0.1% FPR, AUC
references ──┤                          ├─ lower bound on epsilon ── ladder ── what a ledger promises
shadows ─────┘                          └─ risk by text

    trustnlp attack membership --model PATH --members A.jsonl --nonmembers B.jsonl --out DIR

`run` is that command, `run_callable` the same for a Python function, and `assess --members` the same with utility and
fairness beside it (`audit`).

Shape legend: N texts (members first), M texts of the population, K shadow models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from trustnlp.attacks import blind, shadows
from trustnlp.attacks.shadows import Shadows
from trustnlp.data.corpus import Example
from trustnlp.models.answering import Answer, AnsweringModel
from trustnlp.models.many import Job
from trustnlp.progress import Progress, silent
from trustnlp.randomness import Streams
from trustnlp.results import Finding, Results
from trustnlp.studies import attack_target, membership_findings
from trustnlp.studies import membership_scores as scores
from trustnlp.studies.attack_target import AUDITED, Request, Target
from trustnlp.studies.membership_findings import Promise
from trustnlp.studies.regime import Setting
from trustnlp.studies.regimes import REGIMES
from trustnlp.studies.run_folder import choose_seed, open_run
from trustnlp.studies.sides import Sides

__all__ = ["Promise", "Request", "attack", "run", "run_callable"]

Array = NDArray[Any]
Measure = Callable[[Any, Sequence[Example]], Sequence[Finding]]


def run(
    request: Request,
    out: str | Path,
    *,
    progress: Progress = silent,
    overwrite: bool = False,
    command: str = "",
    also: Measure | None = None,
) -> Results:
    """Attacks the model; writes results.json into `out` and returns the results. Interrupted, the same request goes on.

    Args:
        also: what else to measure of the model on the non-members.

    Raises:
        ModelError: the checkpoint has no usable head, or is not safe to open; or no shadow model can be like it.
        GuaranteeError: members and non-members overlap, are too few for `fpr`, or the model has no loss for some.
        CorpusError, ArgumentError, RunError: files or folder cannot be used.
    """
    request = replace(request, seed=choose_seed(out, request.seed))
    streams = Streams(request.seed or 0)
    target = attack_target.target(request, streams)
    own = scores.of_sides(target.model, target.sides)
    folder = open_run(out, _asked(request, target), overwrite=overwrite)
    with folder.timed("attack"):
        trained = _shadows(target, request.shadows, folder.path / "shadows", streams, progress)
        findings = attack(target, own, streams, trained=trained, folder=folder.path, progress=progress)
    if also is not None:
        with folder.timed("measuring"):
            findings += [finding.of(target.regime) for finding in also(target.model, target.sides.nonmembers)]
            progress("measuring", 1, 1, {})
    results = Results(folder.record(command) | _described(target), tuple(findings))
    results.save(folder.path)
    return results


def run_callable(
    answer: Answer,
    members: Sequence[str | Example],
    nonmembers: Sequence[str | Example],
    *,
    labels: Sequence[str] = (),
    references: Sequence[Answer] = (),
    promise: Promise | None = None,
    seed: int = 0,
    out: str | Path | None = None,
) -> Results:
    """Attacks a model that is known by its answers alone: a Python function in place of a checkpoint.

        run_callable(losses_of, members, nonmembers).get("membership-loss-auc", "audited")

    Args:
        answer: texts -> their losses (B,) in nats; or, with `labels`, unnormalised scores (B, K).
        members, nonmembers: texts it was and was not trained on; with `labels`, as examples with their own label.
        labels: names of the K scores.
        references: like functions of models that saw neither side.
        promise: epsilon and delta that an accountant names.
        seed: >= 0; same seed, same results.
        out: folder for results.json, if wanted.

    Raises:
        ArgumentError: a side is empty, or a function answers another shape than it should.
        GuaranteeError: texts on both sides, NaN or infinite answers, labels that the function does not know.
    """
    sides = Sides(_examples(members), _examples(nonmembers))
    model, *others = (AnsweringModel(function, tuple(labels)) for function in (answer, *references))
    target = Target("a Python function", AUDITED, model, sides, references=tuple(others), promise=promise)
    findings = attack(target, scores.of_sides(model, sides), Streams(seed))
    results = Results({"seed": seed} | _described(target), tuple(findings))
    if out is not None:
        results.save(out)
    return results


def attack(
    target: Target,
    own: Array,
    streams: Streams,
    *,
    trained: Shadows | None = None,
    folder: Path | None = None,
    progress: Progress = silent,
) -> list[Finding]:
    """The findings in the order of a report: is the split fair, what of epsilon is refuted, each attack, the risk.

    Args:
        own: (N,) the model's losses of all texts.
        streams: draws the blind classifier's halves, ties, perturbations and coins.
        trained: losses (K, N + M) of all texts and the population under shadow models.
        folder: where the scores of single texts are kept by keyed hashes (`risk.save`), if anywhere.
    """
    sides = target.sides
    blindly = blind.check(*sides.texts, generator=streams.numpy("blind"))
    progress("attack", 1, 3, {})
    found = _scores(target, own, trained, streams)
    progress("attack", 2, 3, {})
    findings = membership_findings.of_scores(found, sides, streams, target.promise, folder=folder)
    progress("attack", 3, 3, {})
    return [blindly, *(finding.of(target.regime) for finding in findings)]


def _scores(target: Target, own: Array, trained: Shadows | None, streams: Streams) -> dict[str, Array]:
    """Every score (N,) by its attack's name."""
    model, sides = target.model, target.sides
    found = scores.by_loss(own, [scores.of_sides(reference, sides) for reference in target.references])
    if trained is not None:
        known = scores.losses_of(model, target.population, "population") if target.population else np.empty(0)
        found |= scores.by_shadows(own, known, trained)
    found |= scores.by_labels(model, sides, streams)
    found |= scores.by_words(model, sides, target.references, streams)
    found |= scores.by_tokens(model, sides, target.references)
    return found | scores.by_background(model, sides, target.population, streams)


def _shadows(target: Target, count: int, folder: Path, streams: Streams, progress: Progress) -> Shadows | None:
    """Shadow models, each trained on what the attacker has and a random half of both sides; none of the population."""
    if not count or target.shadow is None:
        return None
    every, size = tuple(scores.named(target.model, target.sides)), len(target.population)
    regime, setting = target.shadow
    inside = shadows.design(len(every), count, streams.numpy("shadows"))

    def job(number: int, chosen: Array) -> Job:
        drawn = tuple(example for example, taken in zip(every, chosen, strict=False) if taken)
        here = replace(setting, train=(*setting.train, *drawn), streams=setting.streams.child("model", number))
        return Job(f"shadow-{number}", partial(_shadow_losses, regime, here, (*every, *target.population)))

    nowhere = np.zeros((count, size), dtype=bool)
    identity = {"texts": dict(target.digests), "regime": regime, "model": setting.model, "seed": setting.streams.seed}
    inside = np.concatenate([inside, nowhere], axis=1)
    return shadows.train(inside, job, folder, identity=identity, progress=progress)


def _shadow_losses(regime: str, setting: Setting, texts: tuple[Example, ...], folder: Path) -> dict[str, Array]:
    model = REGIMES[regime].train(setting, folder, silent, "shadow").model
    return {"losses": scores.losses_of(model, texts)}


def _asked(request: Request, target: Target) -> dict[str, Any]:
    """What decides the results, as the run folder keeps it: files by what is in them, wherever they are."""
    given = {name: value for name, value in asdict(request).items() if name not in target.digests}
    paths = {"run": str(request.run) if request.run else None, "references": list(request.references)}
    return given | paths | {"digests": dict(target.digests)}


def _described(target: Target) -> dict[str, Any]:
    """What results.json says of the texts and the model."""
    sizes = {"members": len(target.sides.members), "nonmembers": len(target.sides.nonmembers)}
    facts: dict[str, Any] = {"model": target.name}
    if isinstance(target.model, nn.Module):
        facts["parameters"] = sum(parameter.numel() for parameter in target.model.parameters())
    name = f"Attack on {Path(target.name).name}"
    return {"corpus": {"name": name, **sizes}, "regimes": {target.regime: facts}}


def _examples(texts: Sequence[str | Example]) -> tuple[Example, ...]:
    return tuple(Example(each) if isinstance(each, str) else each for each in texts)
