"""What a membership attack is aimed at: a model, its members and non-members, and all that the attacker has beside.

files given by a reviewer ──┐
                            ├─> Target
a regime of an assess run ──┘
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trustnlp import checks
from trustnlp.data.corpus import Corpus, Example
from trustnlp.data.membership_split import normalise
from trustnlp.dp.ledger import FILE_NAME as LEDGER
from trustnlp.errors import ArgumentError, GuaranteeError, ModelError
from trustnlp.federated.device_plan import text_epsilon
from trustnlp.federated.private_rounds import read_ledger
from trustnlp.models import LabelModel, checkpoint, load_checkpoint
from trustnlp.randomness import Streams
from trustnlp.studies import assess
from trustnlp.studies import membership_scores as scores
from trustnlp.studies.membership_findings import Promise
from trustnlp.studies.regime import Setting
from trustnlp.studies.sides import Sides, read

AUDITED = "audited"
_FEWEST_SHADOWS = 6  # with fewer, some text is outside of none that RMIA is tuned by
_FROM_SCRATCH = ("bilstm", "transformer")  # whose training by trustnlp can be done again without knowing more


@dataclass(frozen=True)
class Request:
    """What is attacked, and with what.

    Args:
        model: path or hub name of a sequence classifier, token classifier or causal language model, or of a folder
            that trustnlp wrote.
        members: file of texts that it was trained on.
        nonmembers: file of texts from the same source that it was not trained on.
        run: in place of these three, the folder of an `assess` run, whose texts are then held out as they were.
        regime: which model of that run.
        references: paths or hub names of models that saw neither side.
        shadows: how many models to train on random halves of both sides: 0, or an even number of at least 6.
        shadow_model: `bilstm`, `transformer`, `minilm`, a path or a hub name; None for what the model itself is.
        population: file of texts that neither the model nor a reference saw: for RMIA beside shadow models, and for a
            language model's neighbourhood and ReCaLL.
        fpr: a false-alarm rate that the non-members must be able to resolve; None asks for none.
        epsilon, delta: what was promised, where no ledger beside the model says it; both or none.
        group: the column that names groups, if any.
        limit: the most texts of each file to use.
        seed: >= 0; same seed, same results.
        device: where models answer and are trained.
        columns: column of the files by role, where their names are unusual.

    Raises:
        ArgumentError: a field breaks its rule, or fields that do not go together.
    """

    model: str = ""
    members: Path | None = None
    nonmembers: Path | None = None
    run: Path | None = None
    regime: str = "plain"
    references: tuple[str, ...] = ()
    shadows: int = 0
    shadow_model: str | None = None
    population: Path | None = None
    fpr: float | None = None
    epsilon: float | None = None
    delta: float | None = None
    group: str | None = None
    limit: int = 200_000
    seed: int | None = None
    device: str = "cpu"
    columns: Mapping[str, str | int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_texts(self)
        if (self.epsilon is None) != (self.delta is None):
            raise ArgumentError("epsilon", "given together with delta", (self.epsilon, self.delta))
        if self.fpr is not None:
            checks.inside("fpr", self.fpr, 0, 1)
        if checks.at_least("shadows", self.shadows, 0) % 2 or 0 < self.shadows < _FEWEST_SHADOWS:
            raise ArgumentError("shadows", f"0, or an even number from {_FEWEST_SHADOWS} on", self.shadows)
        checks.at_least("limit", self.limit, 1)


def _check_texts(request: Request) -> None:
    """Either files or a run."""
    if request.run is None:
        for name in ("members", "nonmembers"):
            if getattr(request, name) is None:
                raise ArgumentError(name, "given, as an audit compares members with non-members", None)
        if not request.model:
            raise ArgumentError("model", "given, a path or a hub name", request.model)
        return
    for name in ("model", "members", "nonmembers", "references", "shadow_model", "population", "epsilon", "group"):
        if getattr(request, name):
            raise ArgumentError(name, "left out beside 'run', which knows it", getattr(request, name))


@dataclass(frozen=True)
class Target:
    """A model under attack, with all that the attacker has.

    Args:
        name: of the model.
        regime: what the findings are said of.
        model: a `TextModel` with `encode`, or an `AnsweringModel`.
        sides: members and non-members.
        references: models that saw neither side.
        population: texts that no model here saw.
        promise: of whoever trained it, if any.
        shadow: how a shadow model is trained, if that is known: a regime's name and its setting.
        digests: by name, what tells the texts from others.
    """

    name: str
    regime: str
    model: Any
    sides: Sides
    references: tuple[Any, ...] = ()
    population: tuple[Example, ...] = ()
    promise: Promise | None = None
    shadow: tuple[str, Setting] | None = None
    digests: Mapping[str, str] = field(default_factory=dict)


def target(request: Request, streams: Streams) -> Target:
    """What the request names, opened and checked.

    Args:
        streams: of shadow models.

    Raises:
        ModelError: a model that has no usable head, or is not safe to open; or no shadow model can be like it.
        GuaranteeError: texts on both sides, or too few non-members for `fpr`.
        CorpusError, ArgumentError, RunError: a file or folder cannot be used.
    """
    found = _of_files(request, streams) if request.run is None else _of_run(request, request.run)
    if request.fpr is not None:
        found.sides.require(request.fpr)
    return found


def _of_files(request: Request, streams: Streams) -> Target:
    options: dict[str, Any] = {"limit": request.limit, "columns": request.columns}
    sides = Sides.read(request.members or "", request.nonmembers or "", group=request.group, **options)
    population, digest = read(request.population, **options) if request.population else ((), "")
    _refuse_known(population, sides)
    model, *references = (load_checkpoint(path).to(request.device) for path in (request.model, *request.references))
    return Target(
        request.model,
        AUDITED,
        model,
        sides,
        references=tuple(references),
        population=population,
        promise=_promise(request),
        shadow=("plain", _setting(request, model, sides, streams)) if request.shadows else None,
        digests={"members": sides.digests[0], "nonmembers": sides.digests[1], "population": digest},
    )


def _of_run(request: Request, folder: Path) -> Target:
    """A regime of an `assess` run, with its own non-members and reference model, and its test split as population."""
    asked, prepared, streams = assess.reopen(folder)
    regime = checks.one_of("regime", request.regime, asked.regimes)
    model, reference = (load_checkpoint(folder / name).to(request.device) for name in (regime, "reference"))
    shadow_streams = streams.child("shadow", request.seed or 0)
    setting = prepared.setting(replace(asked, device=request.device), shadow_streams)
    used = {normalise(example.text) for example in (*prepared.train, *prepared.split.nonmembers)}
    unused = tuple(example for example in prepared.test if normalise(example.text) not in used)
    complete = model.encode(unused).complete if unused else ()
    return Target(
        f"{asked.model} on {prepared.schema.name}",
        regime,
        model,
        prepared.sides,
        references=(reference,),
        population=tuple(example for example, known in zip(unused, complete, strict=True) if known),
        promise=_promise_of(folder / regime),
        shadow=(regime, replace(setting, train=prepared.split.background.train)),
        digests={"corpus": prepared.schema.digest},
    )


def _refuse_known(population: tuple[Example, ...], sides: Sides) -> None:
    every = {normalise(example.text) for example in sides.every}
    known = sum(normalise(example.text) in every for example in population)
    if known:
        raise GuaranteeError(
            f"{known} texts of the population are members or non-members, too",
            "give texts that neither the model nor a reference was trained on",
        )


def _setting(request: Request, model: Any, sides: Sides, streams: Streams) -> Setting:
    """Plain training of a shadow model on nothing yet; its budget is never spent."""
    if not isinstance(model, LabelModel):
        raise ModelError(
            "shadow models answer labels or tags, and this model does not", "give --reference models instead"
        )
    schema = Corpus("members and non-members", tuple(scores.named(model, sides)))
    kind = request.shadow_model or _kind(request.model, model)
    return Setting(kind, schema, (), (), 1.0, 1e-6, streams.child("shadow"), device=request.device)


def _kind(source: str, model: Any) -> str:
    """What a shadow of the model would be, where we know."""
    kind = model.config.get("kind") if checkpoint.is_ours(source) else None
    if kind not in _FROM_SCRATCH:
        raise ModelError(
            f"how {source!r} was trained is not known, so no shadow model can be like it",
            "name what to train with --shadow-model, such as the encoder that it was fine-tuned from, "
            "or give --reference models",
        )
    return str(kind)


def _promise(request: Request) -> Promise | None:
    """What a ledger beside the model says; else what the request does."""
    found = _promise_of(Path(request.model).expanduser())
    if request.epsilon is None or request.delta is None:
        return found
    if found is not None:
        raise ArgumentError("epsilon", f"left out, as {found.source} says it ({found.epsilon:.4g})", request.epsilon)
    return Promise(request.epsilon, request.delta)


def _promise_of(folder: Path) -> Promise | None:
    """What the ledger in the model's folder has spent; a Trainer's checkpoint has it in the folder above."""
    places = [folder, folder.parent] if folder.name.startswith("checkpoint-") else [folder]
    for path in (place / LEDGER for place in places):
        if path.is_file():
            ledger = read_ledger(path)
            delta, source = ledger.plan.delta, f"the ledger beside the model ({LEDGER})"
            if ledger.plan.unit == "example":
                return Promise(ledger.spent_epsilon(), delta, source)
            epsilon = text_epsilon(ledger.events(), delta)  # of one text, which has less than its user or device
            return Promise(epsilon, delta, source) if math.isfinite(epsilon) else None
    return None
