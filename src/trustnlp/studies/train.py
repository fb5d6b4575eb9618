"""Training alone: a model, plain or private, with what it can do on the test split and what it has spent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from trustnlp import checks
from trustnlp.progress import Progress, silent
from trustnlp.randomness import Streams
from trustnlp.results import Results
from trustnlp.studies import corpora, measures
from trustnlp.studies.recipes import MECHANISMS
from trustnlp.studies.regime import Setting
from trustnlp.studies.regimes import REGIMES
from trustnlp.studies.run_folder import choose_seed, open_run

PLAIN, PRIVATE = "plain", "private"


@dataclass(frozen=True)
class Request:
    """What a training is asked for.

    Args:
        data: corpus by name or path.
        model: `bilstm`, `transformer`, `minilm`, a local path or a hub name.
        private: whether to spend `epsilon` instead of training without privacy.
        epsilon, delta: the budget; None for the delta that suits the corpus.
        mechanism: how gradients are bounded, of `recipes.MECHANISMS`.
        limit: the most texts to use.
        seed: >= 0. None draws one, or takes that of the run in the folder.
        quick: fewer texts and epochs.
        device: where the model is trained.
        columns: column of the data by role, where names are unusual.
    """

    data: str = "synthetic"
    model: str = "bilstm"
    private: bool = False
    epsilon: float = 8.0
    delta: float | None = None
    mechanism: str = "exact"
    limit: int = 200_000
    seed: int | None = None
    quick: bool = False
    device: str = "cpu"
    columns: Mapping[str, str | int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checks.positive("epsilon", self.epsilon, "give a budget such as 8")
        checks.one_of("mechanism", self.mechanism, tuple(MECHANISMS))
        checks.at_least("limit", self.limit, 1)

    @property
    def regime(self) -> str:
        """Which of the regimes."""
        return PRIVATE if self.private else PLAIN


def run(
    request: Request, out: str | Path, *, progress: Progress = silent, overwrite: bool = False, command: str = ""
) -> Results:
    """Trains a model into `out`/plain or `out`/private, beside the ledger; writes results.json and returns the results.

    Interrupted, the same request goes on where it stopped.

    Raises:
        CorpusError, ArgumentError, GuaranteeError: the corpus or the request cannot be used; nothing was written.
        RunError: `out` holds another run.
    """
    seed = choose_seed(out, request.seed)
    request = replace(request, seed=seed)
    corpus = corpora.load(request.data, limit=request.limit, columns=request.columns, quick=request.quick)
    setting = Setting(
        model=request.model,
        schema=corpus,
        train=corpus.train,
        valid=corpus.valid,
        epsilon=request.epsilon,
        delta=request.delta or corpora.delta_for(len(corpus.train)),
        streams=Streams(seed).child(corpus.digest),
        quick=request.quick,
        device=request.device,
        mechanism=request.mechanism,
    )
    regime = request.regime
    REGIMES[regime].check(setting)
    folder = open_run(out, {**asdict(request), "corpus": corpus.digest}, overwrite=overwrite)
    with folder.timed(regime):
        trained = REGIMES[regime].train(setting, folder.path / regime, progress, f"{regime} training")
    found = measures.answers(trained.model, corpus.test)
    users = [example.user for example in corpus.test]
    utility = measures.utility(found, dataset=f"{corpus.name} test", users=users)
    facts: dict[str, Any] = {regime: {"model": request.model, **trained.facts}}
    findings = (finding.of(regime) for finding in [*utility, *trained.findings])
    about = {"corpus": corpora.about(corpus), "regimes": facts}
    return folder.finish(findings, command, secret_seed=request.private, facts=about)
