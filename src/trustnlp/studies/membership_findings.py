"""What membership scores reveal: of each attack its success, of one a bound on epsilon, and which texts are at risk.

    found = membership_scores.by_loss(own, references)        # attack -> scores (N,), members first
    findings = of_scores(found, sides, streams, promise)

`trustnlp assess` and `trustnlp attack membership` judge every model by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from trustnlp import checks
from trustnlp.attacks import ladder, language_scores, membership, one_run, risk
from trustnlp.randomness import Streams
from trustnlp.results import Finding
from trustnlp.studies import corpora
from trustnlp.studies.sides import Sides

Scores = Mapping[str, NDArray[Any]]

_STRONGEST_FIRST = ("lira", "reference", "loss")  # fixed before looking: a best one chosen afterwards must be paid for
_ASSUMES = "that a fair coin decided of each text whether it was trained on"


@dataclass(frozen=True)
class Promise:
    """What an accountant says that training may have let out.

    Args:
        epsilon: spent, >= 0.
        delta: in (0, 1).
        source: who says so.
    """

    epsilon: float
    delta: float
    source: str = "the request"

    def __post_init__(self) -> None:
        checks.non_negative("epsilon", self.epsilon)
        checks.inside("delta", self.delta, 0, 1)


def of_scores(
    found: Scores, sides: Sides, streams: Streams, promise: Promise | None = None, *, folder: Path | None = None
) -> list[Finding]:
    """The findings in the order of a report: what of epsilon is refuted, each attack, the risk by kinds of texts.

    Args:
        found: by attack, scores (N,) of all texts of `sides`, higher = more member-like; `loss` among them.
        sides: members and non-members.
        streams: breaks ties, and tosses coins.
        promise: of whoever trained the model, if any.
        folder: where the scores of single texts are kept by keyed hashes (`risk.save`), if anywhere.

    Raises:
        GuaranteeError: a score is NaN or infinite.
    """
    strongest = _strongest(found)
    at_risk = risk.evaluate(found[strongest], sides.inside, sides.every, attack=strongest)
    if folder is not None:
        risk.save(folder, found[strongest], sides.inside, sides.every)
    return [*_epsilon(found, sides, streams, promise), *judged(found, sides, streams), *at_risk]


def judged(found: Scores, sides: Sides, streams: Streams) -> list[Finding]:
    """The success of each attack, in their order."""
    findings: list[Finding] = []
    for attack, scores in found.items():
        generator = streams.numpy("ties", len(findings))
        findings += membership.evaluate(*sides.halves(scores), attack=attack, generator=generator)
    return [_with_source(finding) for finding in findings]


def _epsilon(found: Scores, sides: Sides, streams: Streams, promise: Promise | None) -> tuple[Finding, Finding]:
    """The ladder, and the lower bound on epsilon that it rests on, by one attack.

    All texts come from one training, so their scores depend on each other: a bound for one run allows that, one for
    independent scores (`two_sample`) does not.
    """
    name = _strongest(found)
    places, included = sides.by_coins(streams.numpy("coins"))
    bound = one_run.from_scores(
        found[name][places],
        included,
        delta=promise.delta if promise else corpora.delta_for(len(sides.members)),
        analysis="approximate",
        generator=streams.numpy("bound"),
    )
    bound = replace(bound, details={**bound.details, "attack": name}, assumes=_ASSUMES)
    rungs = ladder.finding(promise.epsilon if promise else None, [bound])
    by = {"promised_by": promise.source} if promise else {}
    return replace(rungs, details={**rungs.details, "attack": name, **by}), bound.finding()


def _strongest(found: Scores) -> str:
    return next(name for name in _STRONGEST_FIRST if name in found)


def _with_source(finding: Finding) -> Finding:
    """With the paper in place of the attack's name, where only the room of language models knows it."""
    return replace(finding, source=language_scores.SOURCES.get(finding.source, finding.source))
