"""Federated training alone: a corpus of any task on devices, with what the model can do and whom it serves.

Of each device that has enough texts, some are held out: what they are answered tells whom the model serves, device by
device, which a common test split cannot.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from trustnlp import checks, data, models
from trustnlp.data.corpus import Corpus
from trustnlp.data.registry import SYNTHETIC
from trustnlp.dp.ledger import FILE_NAME
from trustnlp.errors import ArgumentError
from trustnlp.federated import (
    algorithms,
    conditions,
    low_rank,
    options,
    partition,
    partition_report,
    private_rounds,
    selection,
    served,
)
from trustnlp.federated.algorithm import Algorithm
from trustnlp.federated.local_training import LocalTraining
from trustnlp.federated.named_lora import for_model
from trustnlp.federated.partition import Partition
from trustnlp.federated.poisson_activity import PoissonActivity
from trustnlp.federated.population import Partitioned
from trustnlp.federated.private_evaluation import PrivateEvaluation
from trustnlp.federated.simulator import History, simulate
from trustnlp.federated.user_privacy import UserPrivacy
from trustnlp.models import checkpoint
from trustnlp.progress import Progress, silent
from trustnlp.randomness import Streams
from trustnlp.results import Direction, Finding, Results
from trustnlp.studies import corpora, device_evaluation, measures, tasks
from trustnlp.studies.federated_regimes import epsilon_finding
from trustnlp.studies.run_folder import choose_seed, open_run
from trustnlp.uncertainty import bootstrap

REGIME, PRIVATE = "federated", "federated-private"
HELD_OUT = 5  # one text in so many of each device
_SHOWN = 20  # figures on the test split during the training


@dataclass(frozen=True)
class Request:
    """What a federated training is asked for.

    Args:
        data: corpus by name or path.
        model: as for `tasks.build`; empty for the small one of the task.
        partition: how texts are spread, such as `label:alpha=0.5`; see `partition_spec`.
        devices: how many; for `user` and `time` what the corpus says.
        select: who takes part, such as `activity:gamma=1`; see `selection.parse`. Private trainings draw by Poisson.
        algorithm: such as `fedprox:mu=0.1`; see `algorithms`.
        rounds, cohort: how many rounds, and devices in each.
        local: what a device does, fields of `LocalTraining`, such as `rate=0.5,epochs=2`.
        conditions: the world of devices, such as `dropout=0.3`; see `conditions.parse`.
        epsilon, delta: a budget for each device with all its texts; None trains without privacy, or for a delta that
            suits the number of devices.
        clip_norm: of a device's change, where it is private.
        evaluate_epsilon: a budget for telling how the model does on the devices' held-out texts, by one noised sum
            (`device_evaluation`) in place of exact figures of devices; None tells these.
        workers: processes; no result depends on it.
        limit, seed, quick, device, columns: as for `train`.
    """

    data: str = "synthetic"
    model: str = ""
    partition: str = "iid"
    devices: int | None = None
    select: str = "uniform"
    algorithm: str = "fedavg"
    rounds: int = 100
    cohort: int = 10
    local: str = "rate=1.0,clip_grad_norm=5"
    conditions: str = ""
    epsilon: float | None = None
    delta: float | None = None
    clip_norm: float = 0.3
    evaluate_epsilon: float | None = None
    workers: int = 1
    limit: int = 200_000
    seed: int | None = None
    quick: bool = False
    device: str = "cpu"
    columns: Mapping[str, str | int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checks.at_least("limit", self.limit, 1)
        if self.epsilon is not None:
            checks.positive("epsilon", self.epsilon, "give a budget such as 8")
        if self.evaluate_epsilon is not None:
            checks.positive("evaluate_epsilon", self.evaluate_epsilon, "give a budget such as 1")

    def delta_for(self, devices: int) -> float:
        """The delta asked for, or one that suits the number of devices."""
        return self.delta or min(1e-3, 1 / devices**1.1)

    @property
    def regime(self) -> str:
        """Which of the regimes."""
        return REGIME if self.epsilon is None else PRIVATE

    def parsed(self) -> Algorithm:
        """The algorithm with its local training.

        Raises:
            ArgumentError: `algorithm` or `local` breaks its grammar or its rules.
        """
        local = options.record("local", self.local, LocalTraining)
        return algorithms.parse(self.algorithm, rounds=self.rounds, cohort=self.cohort, local=local)


def run(
    request: Request, out: str | Path, *, progress: Progress = silent, overwrite: bool = False, command: str = ""
) -> Results:
    """Trains into `out`/federated or `out`/federated-private, beside the ledger; writes and returns the results.

    Interrupted, the same request goes on where it stopped.

    Raises:
        CorpusError, ArgumentError, GuaranteeError: the corpus or the request cannot be used; nothing was written.
        RunError: `out` holds another run.
    """
    request = replace(request, seed=choose_seed(out, request.seed))
    corpus = _load(request)
    streams = Streams(request.seed or 0).child(corpus.digest)
    prepared = prepare(request, corpus, streams)
    model = tasks.build(request.model or None, corpus, streams=streams).to(request.device)
    asked = {name: value for name, value in asdict(request).items() if name != "workers"}
    folder = open_run(out, {**asked, "corpus": corpus.digest}, overwrite=overwrite)
    stage = f"{request.regime} training"
    with folder.timed(request.regime):
        history = _train(request, prepared, model, streams, folder.path / request.regime, progress, stage)
        low_rank.merge(model)
        checkpoint.save(model, folder.path / request.regime)  # type: ignore[arg-type]
    with folder.timed("measuring"):
        findings = [*_findings(request, prepared, model, streams, folder.path / request.regime)]
    facts = {
        "corpus": corpora.about(corpus),
        "regimes": {request.regime: _facts(request, prepared, model, history)},
    }
    found = (finding.of(request.regime) for finding in findings)
    return folder.finish(found, command, secret_seed=request.epsilon is not None, facts=facts)


def _load(request: Request) -> Corpus:
    if request.data == SYNTHETIC:
        return corpora.load(request.data, limit=request.limit, quick=request.quick)
    return data.load(request.data, limit=request.limit, columns=request.columns)


@dataclass(frozen=True)
class Prepared:
    """A corpus on devices.

    Args:
        corpus: as it was read.
        partition: of its training split.
        kept: for each device the texts that it trains on.
        held_out: the texts that no device trains on, and the device of each.
        plan: of a private training.
    """

    corpus: Corpus
    partition: Partition
    kept: tuple[np.ndarray, ...]
    held_out: np.ndarray
    held_by: np.ndarray
    plan: UserPrivacy | None

    @property
    def sizes(self) -> np.ndarray:
        """(K,) texts that each device trains on."""
        return np.array([len(own) for own in self.kept], dtype=np.int64)


def prepare(request: Request, corpus: Corpus, streams: Streams) -> Prepared:
    """Spreads the training split and holds a fifth of each device's texts out.

    Raises:
        ArgumentError, GuaranteeError: see `partition.of_corpus` and `private_rounds.plan_for`.
    """
    generator = streams.numpy("partition")
    spread = partition.of_corpus(request.partition, corpus.train, request.devices, generator)
    kept, held = [], []
    for own in spread.devices:
        order = generator.permutation(own)
        cut = len(own) // HELD_OUT
        held.append(np.sort(order[:cut]))
        kept.append(np.sort(order[cut:]))
    by = np.repeat(np.arange(len(held)), [len(own) for own in held])
    found = Prepared(corpus, spread, tuple(kept), np.concatenate(held), by, None)
    algorithm = request.parsed()
    if request.epsilon is None:
        selection.parse(request.select)
        return found
    delta = request.delta_for(len(spread))
    plan = private_rounds.plan_for(
        request.epsilon, delta, algorithm, _poisson(request), found.sizes, clip_norm=request.clip_norm
    )
    return replace(found, plan=plan)


def _poisson(request: Request) -> PoissonActivity:
    chosen = PoissonActivity(gamma=0.0) if request.select == "uniform" else selection.parse(request.select)
    if not isinstance(chosen, PoissonActivity):
        raise ArgumentError("select", "uniform or poisson-activity, with a budget", request.select)
    return chosen


def _train(
    request: Request,
    prepared: Prepared,
    model: Any,
    streams: Streams,
    folder: Path,
    progress: Progress,
    stage: str,
) -> History:
    test = model.encode(prepared.corpus.test) if prepared.corpus.test else None
    return simulate(
        Partitioned(model.encode(prepared.corpus.train, for_training=True), prepared.kept),
        model,
        for_model(request.parsed(), model, streams),
        selection=_poisson(request) if prepared.plan else selection.parse(request.select),
        conditions=conditions.parse(request.conditions),
        privacy=prepared.plan,
        streams=streams,
        workers=request.workers,
        evaluate=None if test is None else lambda trained: models.evaluate(trained, test),  # type: ignore[arg-type]
        evaluate_every=max(1, request.rounds // _SHOWN),
        folder=folder,
        progress=progress,
        stage=stage,
    )


def _findings(request: Request, prepared: Prepared, model: Any, streams: Streams, folder: Path) -> Sequence[Finding]:
    corpus, findings = prepared.corpus, []
    labels = [partition.label_of(example) for example in corpus.train]
    private_figures = None if request.evaluate_epsilon is None else _evaluation(request, prepared, model)
    if private_figures is None and all(label is not None for label in labels):
        findings.append(partition_report.finding(prepared.partition, labels, streams.numpy("partition-report")))
    if prepared.plan is not None:
        ledger = private_rounds.read_ledger(folder / FILE_NAME)
        target = (request.epsilon or 0.0) + (request.evaluate_epsilon or 0.0)
        beside = () if private_figures is None else private_figures.summing.events()
        findings.append(epsilon_finding(ledger, target, beside))
    if corpus.test:
        findings += _utility(corpus, model, streams)
    if private_figures is None:
        return [*findings, *_served(prepared, model, streams)]
    encoded = model.encode([prepared.corpus.train[i] for i in prepared.held_out])
    own = streams.child(f"evaluation/{_digest(model)}")  # of another model's sums the noise must be another
    return [
        *findings,
        *device_evaluation.findings(private_figures, model, encoded, prepared.held_by, prepared.sizes, own),
    ]


def _evaluation(request: Request, prepared: Prepared, model: Any) -> PrivateEvaluation:
    if not len(prepared.held_out):
        rule = f"left out, as no device has the {HELD_OUT} texts of which one is held out"
        raise ArgumentError("evaluate_epsilon", rule, request.evaluate_epsilon)
    return device_evaluation.planned(model, request.evaluate_epsilon or 0.0, request.delta_for(len(prepared.sizes)))


def _digest(model: nn.Module) -> str:
    found = hashlib.sha256()
    for parameter in model.parameters():
        found.update(parameter.detach().cpu().numpy().tobytes())
    return found.hexdigest()


def _served(prepared: Prepared, model: Any, streams: Streams) -> Sequence[Finding]:
    """Whom the model serves, by what it answers to the texts that devices have held out."""
    if not len(prepared.held_out):
        return ()
    texts = [prepared.corpus.train[i] for i in prepared.held_out]
    groups: list[str | None] | None = [text.group for text in texts]
    common: dict[str, Any] = {"groups": groups if any(groups or ()) else None}
    encoded = model.encode(texts)
    if isinstance(model, models.LabelModel) and model.schema.labels:
        return served.accuracy(models.predict(model, encoded).correct, prepared.held_by, prepared.sizes, **common)
    losses = models.losses(model, encoded)
    known = np.isfinite(losses)
    if common["groups"] is not None:
        common["groups"] = [group for group, one in zip(common["groups"], known, strict=True) if one]
    return served.loss(
        losses[known], prepared.held_by[known], prepared.sizes, generator=streams.numpy("served"), **common
    )


def _utility(corpus: Corpus, model: Any, streams: Streams) -> Sequence[Finding]:
    """What the model can do on the test split: labels and slots, or, of other tasks, its loss beside its figures."""
    dataset, encoded = f"{corpus.name} test", model.encode(corpus.test)
    users = [example.user for example in corpus.test]
    if isinstance(model, models.LabelModel):
        return measures.utility(models.predict(model, encoded), dataset=dataset, users=users)
    losses = models.losses(model, encoded)
    losses = losses[np.isfinite(losses)]
    interval = bootstrap(lambda one: one.mean(axis=1), losses, generator=streams.numpy("test-loss"))
    return [
        Finding(
            "test-loss",
            "Loss on the test split",
            float(losses.mean()),
            low=interval.low,
            high=interval.high,
            level=interval.level,
            n=len(losses),
            unit="nats",
            direction=Direction.LOWER,
            ideal=0.0,
            source="mean over texts; BCa bootstrap of texts",
            details={"dataset": dataset, "figures": dict(models.evaluate(model, encoded))},
        )
    ]


def _facts(request: Request, prepared: Prepared, model: nn.Module, history: History) -> dict[str, Any]:
    sizes = prepared.sizes
    rounds = history.rounds
    facts: dict[str, Any] = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "algorithm": request.algorithm,
        "selection": request.select,
        "devices": {
            "count": len(sizes),
            "spread": str(prepared.partition),
            "texts": {"least": int(sizes.min()), "median": float(np.median(sizes)), "most": int(sizes.max())},
        },
        "history": {"rounds": [{"round": one.number + 1, **one.figures} for one in rounds if one.figures]},
    }
    if prepared.plan is not None:
        return facts | {"statement": prepared.plan.statement().as_dict()}
    problems: dict[str, int] = {}
    for one in rounds:
        for name, count in one.problems.items():
            problems[name] = problems.get(name, 0) + count
    return facts | {"texts_processed": sum(one.texts for one in rounds), "problems": problems}
