"""An existing checkpoint, attacked and measured without training: its word against two files of texts.

members file ────┐
non-members file ┴─ blind classifier, membership by loss, utility and fairness on the non-members
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trustnlp import checks, data
from trustnlp.attacks import blind
from trustnlp.attacks.membership import check_disjoint
from trustnlp.data.corpus import Corpus, Example
from trustnlp.data.encoding import Schema
from trustnlp.errors import ArgumentError, CorpusError, GuaranteeError
from trustnlp.models import LabelModel, load_checkpoint, losses
from trustnlp.models.encoded import Split
from trustnlp.progress import Progress, silent
from trustnlp.randomness import Streams
from trustnlp.results import Finding, Results
from trustnlp.studies import measures
from trustnlp.studies.run_folder import choose_seed, open_run

REGIME = "audited"


@dataclass(frozen=True)
class Request:
    """What an audit is asked for.

    Args:
        model: path or hub name of a sequence classifier, token classifier or causal language model, or of a folder
            that trustnlp wrote.
        members: file of texts that it was trained on.
        nonmembers: file of texts from the same source that it was not trained on.
        group: the column that names groups, if any.
        limit: the most texts of each file to use.
        seed: >= 0; same seed, same results.
        device: where the model answers.
        columns: column of both files by role, where their names are unusual.

    Raises:
        ArgumentError: one of the two files is not given.
    """

    model: str
    members: Path | None
    nonmembers: Path | None
    group: str | None = None
    limit: int = 200_000
    seed: int | None = None
    device: str = "cpu"
    columns: Mapping[str, str | int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("members", "nonmembers"):
            if getattr(self, name) is None:
                raise ArgumentError(name, "given, as an audit compares members with non-members", None)
        checks.at_least("limit", self.limit, 1)


def run(
    request: Request, out: str | Path, *, progress: Progress = silent, overwrite: bool = False, command: str = ""
) -> Results:
    """Attacks and measures the checkpoint; writes results.json into `out` and returns the results.

    Raises:
        ModelError: the checkpoint has no usable head, or is not safe to open.
        GuaranteeError: members and non-members overlap, or the model has no loss for some of them.
        CorpusError, ArgumentError, RunError: files or folder cannot be used.
    """
    request = replace(request, seed=choose_seed(out, request.seed))
    streams = Streams(request.seed or 0)
    members, nonmembers = (_corpus(path, request) for path in (request.members, request.nonmembers))
    inside, outside = _texts(members), _texts(nonmembers)
    check_disjoint([e.text for e in inside], [e.text for e in outside])
    model = load_checkpoint(request.model).to(request.device)
    sides = _encoded(model, inside, "members"), _encoded(model, outside, "non-members")
    asked = {"model": request.model, "members": members.digest, "nonmembers": nonmembers.digest, "seed": request.seed}
    folder = open_run(out, asked, overwrite=overwrite)
    with folder.timed("attack"):
        blindly = blind.check([e.text for e in inside], [e.text for e in outside], generator=streams.numpy("blind"))
        member_losses, nonmember_losses = (losses(model, side) for side in sides)
        findings = measures.membership_findings(member_losses, nonmember_losses, None, streams)
        progress("attack", 1, 1, {})
    with folder.timed("measuring"):
        findings += _measure(model, outside)
        progress("measuring", 1, 1, {})
    facts = {REGIME: {"model": request.model, "parameters": sum(p.numel() for p in model.parameters())}}
    corpora = {"name": nonmembers.name, "members": len(inside), "nonmembers": len(outside)}
    record = folder.record(command) | {"corpus": corpora, "regimes": facts}
    results = Results(record, (blindly, *(finding.of(REGIME) for finding in findings)))
    results.save(folder.path)
    return results


def _corpus(path: Path | None, request: Request) -> Corpus:
    return data.load(path or "", limit=request.limit, group=request.group, columns=request.columns)


def _texts(corpus: Corpus) -> tuple[Example, ...]:
    return (*corpus.train, *corpus.valid, *corpus.test)


def _encoded(model: Any, examples: Sequence[Example], side: str) -> Split:
    """The texts, all of which have a loss: those that a model cannot score are never just left out."""
    schema = model.schema if isinstance(model, LabelModel) else Schema((), ())
    for what, names in (("label", schema.labels), ("tags", schema.tags)):
        if names and any(getattr(example, what) is None for example in examples):
            raise CorpusError(
                f"the {side} have no {what}, so this model has no loss for them", f"add a {what} column to both files"
            )
    encoded: Split = model.encode(examples)
    lost = int((~encoded.complete).sum())
    if lost:
        raise GuaranteeError(
            f"{lost} of {len(examples)} {side} have no loss under this model: it does not know their label or tags, or "
            "they are too short",
            "name labels as its config.json does, and leave other such texts out of both files",
        )
    return encoded


def _measure(model: Any, examples: Sequence[Example]) -> list[Finding]:
    """Utility and fairness, where the model answers labels or tags."""
    if not isinstance(model, LabelModel):
        return []
    found = measures.answers(model, examples)
    dataset = "non-members"
    return [
        *measures.utility(found, dataset=dataset, users=[example.user for example in examples]),
        *measures.fairness(model, examples, found, dataset=dataset, protected_group="group column"),
    ]
