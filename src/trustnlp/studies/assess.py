"""The central job: one corpus, one model, every asked regime, each attacked and measured the same way.

corpus ─ hold out non-members ─ plant canaries ─┬─ regime plain ───┐
                 │                              ├─ regime private ─┤─ utility, membership, canaries, fairness
                 └─ background ── reference model (the attacker's)─┘            └─> results.json
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from trustnlp import checks
from trustnlp.attacks import blind
from trustnlp.attacks.membership import check_disjoint
from trustnlp.data import canaries, groups
from trustnlp.data.canaries import Canary
from trustnlp.data.corpus import Corpus, Example
from trustnlp.data.membership_split import MembershipSplit, hold_out
from trustnlp.errors import RunError
from trustnlp.progress import Progress, silent
from trustnlp.randomness import Streams
from trustnlp.results import Finding, Results
from trustnlp.studies import corpora, measures, membership_findings, membership_scores
from trustnlp.studies.membership_findings import Promise
from trustnlp.studies.recipes import MECHANISMS
from trustnlp.studies.regime import Setting, Trained
from trustnlp.studies.regimes import REGIMES, plain
from trustnlp.studies.run_folder import RunFolder, choose_seed, held_request, open_run
from trustnlp.studies.sides import Sides

MOST_MEMBERS = 2_000
MEMBER_SHARE = 0.15
SECRET_LENGTH = 4


@dataclass(frozen=True)
class Request:
    """What a run is asked for; everything that decides its results.

    Args:
        data: corpus by name or path.
        model: `bilstm`, `transformer`, `minilm`, a local path or a hub name.
        regimes: names of `regimes.REGIMES`, in the order of the report.
        epsilon: budget of private regimes, > 0.
        mechanism: how private regimes bound gradients, of `recipes.MECHANISMS`.
        delta: below 1/N; None for N^-1.1, at most 1e-5.
        group: which groups fairness compares; None for those of the corpus, or text length where it has none.
        limit: the most texts to use.
        seed: >= 0; same seed, same results. None draws one, or takes that of the run in the folder.
        quick: fewer texts, epochs and canaries.
        device: where models are trained.
        columns: column of the data by role, where their names are unusual.
    """

    data: str = "synthetic"
    model: str = "bilstm"
    regimes: tuple[str, ...] = ("plain", "private")
    epsilon: float = 8.0
    delta: float | None = None
    mechanism: str = "exact"
    group: str | None = None
    limit: int = 200_000
    seed: int | None = None
    quick: bool = False
    device: str = "cpu"
    columns: Mapping[str, str | int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checks.not_empty("regimes", self.regimes)
        for regime in self.regimes:
            checks.one_of("regimes", regime, tuple(REGIMES))
        checks.positive("epsilon", self.epsilon, "give a budget such as 8")
        checks.one_of("mechanism", self.mechanism, tuple(MECHANISMS))
        checks.at_least("limit", self.limit, 1)


def run(
    request: Request, out: str | Path, *, progress: Progress = silent, overwrite: bool = False, command: str = ""
) -> Results:
    """Trains, attacks and measures; writes models and results.json into `out` and returns the results.

    Interrupted, the same request goes on where it stopped.

    Raises:
        CorpusError, ArgumentError, GuaranteeError: the corpus or the request cannot be used; nothing was written.
        RunError: `out` holds another run.
    """
    request = replace(request, seed=choose_seed(out, request.seed))
    corpus = _load(request)
    streams = _streams(request, corpus)
    prepared = prepare(corpus, request, streams)
    for regime in request.regimes:
        REGIMES[regime].check(prepared.setting(request, streams.child(regime)))
    folder = open_run(
        out, {**asdict(request), "regimes": list(request.regimes), "corpus": corpus.digest}, overwrite=overwrite
    )
    folder.log(f"assess {corpus.name}: {len(corpus.train)} training texts")
    findings = [blind.check(*prepared.sides.texts, generator=streams.numpy("blind"))]
    reference = _reference(prepared, request, folder, streams, progress)
    facts = {}
    for regime in request.regimes:
        with folder.timed(regime):
            setting = prepared.setting(request, streams.child(regime))
            trained = REGIMES[regime].train(setting, folder.path / regime, progress, f"{regime} training")
        with folder.timed(f"{regime} measuring"):
            measured = [*trained.findings, *_measure(trained, prepared, reference, streams, progress, regime)]
        facts[regime] = {"model": request.model, **trained.facts}
        findings += [finding.of(regime) for finding in measured]
        folder.log(f"{regime}: done")
    secret = any(finding.id == "epsilon" for finding in findings)
    about = {"corpus": _describe(corpus, prepared), "regimes": facts}
    return folder.finish(findings, command, secret_seed=secret, facts=about)


@dataclass(frozen=True)
class Prepared:
    """A corpus made ready: held out, planted, and what models will be measured on."""

    schema: Corpus
    split: MembershipSplit
    train: tuple[Example, ...]
    canaries: tuple[Canary, ...]
    test: tuple[Example, ...]
    protected_group: str

    @property
    def sides(self) -> Sides:
        """Members and non-members."""
        return Sides(self.split.members, self.split.nonmembers)

    def setting(self, request: Request, streams: Streams) -> Setting:
        """What a regime trains from."""
        return Setting(
            model=request.model,
            schema=self.schema,
            train=self.train,
            valid=self.schema.valid,
            epsilon=request.epsilon,
            delta=request.delta or corpora.delta_for(len(self.train)),
            streams=streams,
            quick=request.quick,
            device=request.device,
            mechanism=request.mechanism,
        )


def prepare(corpus: Corpus, request: Request, streams: Streams) -> Prepared:
    """Groups, non-members and canaries of a run; the same request, corpus and streams give the same.

    Raises:
        CorpusError: too few texts that occur once.
    """
    protected_group = "speaker group"
    if not corpus.groups:
        corpus, protected_group = groups.derive(corpus, "length"), "short and long texts"
    size = min(MOST_MEMBERS, int(MEMBER_SHARE * len(corpus.train)))
    split = hold_out(corpus, size, streams.numpy("members"))
    check_disjoint([e.text for e in split.corpus.train], [e.text for e in split.nonmembers])
    planted = canaries.design(
        corpus,
        generator=streams.numpy("canary secrets"),
        per_count=2 if request.quick else 8,
        length=SECRET_LENGTH,
    )
    train = canaries.plant(split.corpus, planted, streams.numpy("canary places")).train
    return Prepared(corpus, split, train, planted, corpus.test, protected_group)


def reopen(folder: str | Path) -> tuple[Request, Prepared, Streams]:
    """What the run in `folder` was made from: its request, its corpus held out and planted as then, its streams.

    Raises:
        RunError: `folder` holds no run of `assess`, or its corpus is not what it was.
        CorpusError: its corpus cannot be read.
    """
    held = held_request(Path(folder)) or {}
    if not {"regimes", "corpus"} <= set(held):
        raise RunError(f"{folder} holds no run of 'trustnlp assess'", "give the folder that its --out named")
    digest = held.pop("corpus")
    request = Request(**{**held, "regimes": tuple(held["regimes"])})
    corpus = _load(request)
    if corpus.digest != digest:
        raise RunError(f"the corpus of {folder} has changed since", "attack it with the texts that it was trained on")
    streams = _streams(request, corpus)
    return request, prepare(corpus, request, streams), streams


def _load(request: Request) -> Corpus:
    return corpora.load(
        request.data, limit=request.limit, group=request.group, columns=request.columns, quick=request.quick
    )


def _streams(request: Request, corpus: Corpus) -> Streams:
    """Two corpora never share noise, whatever the seed."""
    return Streams(request.seed or 0).child(corpus.digest)


def _reference(
    prepared: Prepared, request: Request, folder: RunFolder, streams: Streams, progress: Progress
) -> np.ndarray:
    """Losses (N,) of members and non-members under a model that saw neither: what the attacker compares with."""
    with folder.timed("reference"):
        setting = prepared.setting(request, streams.child("reference"))
        setting = replace(setting, train=prepared.split.background.train)
        model = plain(setting, folder.path / "reference", progress, "reference training").model
        return membership_scores.of_sides(model, prepared.sides)


def _measure(
    trained: Trained,
    prepared: Prepared,
    reference: np.ndarray,
    streams: Streams,
    progress: Progress,
    regime: str,
) -> list[Finding]:
    model, dataset = trained.model, f"{prepared.schema.name} test"
    found = measures.answers(model, prepared.test)
    scores = membership_scores.by_loss(membership_scores.of_sides(model, prepared.sides), [reference])
    return [
        *measures.utility(found, dataset=dataset, users=[example.user for example in prepared.test]),
        *membership_findings.of_scores(scores, prepared.sides, streams, _promise(trained)),
        *measures.canary_findings(
            lambda examples: measures.answers(model, examples).losses, prepared.canaries, progress, f"{regime} canaries"
        ),
        *measures.fairness(model, prepared.test, found, dataset=dataset, protected_group=prepared.protected_group),
    ]


def _promise(trained: Trained) -> Promise | None:
    """What the regime's own accountant says of one text, where it has one; a user's text has less than its user."""
    spent = next((finding for finding in trained.findings if finding.id == "epsilon"), None)
    if spent is None or spent.value is None:
        return None
    epsilon = spent.details.get("text_epsilon", spent.value)
    if epsilon is None or not math.isfinite(epsilon):
        return None
    return Promise(epsilon, spent.details["delta"], "the ledger of the run")


def _describe(corpus: Corpus, prepared: Prepared) -> dict[str, Any]:
    return {
        "name": corpus.name,
        "licence": corpus.licence,
        "digest": corpus.digest,
        "train": len(corpus.train),
        "valid": len(corpus.valid),
        "test": len(corpus.test),
        "trained_on": len(prepared.train),
        "members": len(prepared.split.members),
        "labels": len(corpus.labels),
        "tags": len(corpus.tags),
        "users": len(corpus.users),
        "groups": list(prepared.schema.groups),
        "notes": list(prepared.schema.notes),
    }
