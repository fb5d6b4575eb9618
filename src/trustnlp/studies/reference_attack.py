"""Study `reference-attack`: what gives away the texts that a language model was trained on, and what prevents it?

    paragraphs ─ hold_out ─┬─ members (+ canaries) ──> target: fitted | memorised | private ─┐
                           ├─ non-members                                                    ├─ token scores ─> attacks
                           └─ background ────────────> reference model ──────────────────────┘

Every target is a small GPT-2 from scratch over a public vocabulary: `fitted` has stopped where held-out texts got no
better, `memorised` has gone on without dropout, `private` was trained under a plan of epsilon 8.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustnlp import data
from trustnlp.attacks import blind, exposure, generation, language_scores, membership, neighbours
from trustnlp.attacks.language_scores import Array
from trustnlp.data import canaries
from trustnlp.data.canaries import Canary
from trustnlp.data.corpus import Corpus, Example
from trustnlp.data.membership_split import MembershipSplit, hold_out
from trustnlp.data.passages import passages
from trustnlp.models import LanguageModel, losses
from trustnlp.models.token_scores import TokenScores, token_scores
from trustnlp.progress import Progress
from trustnlp.randomness import Streams
from trustnlp.results import Direction, Finding, Verdict
from trustnlp.studies import language_training
from trustnlp.studies.language_training import EPSILON, FITTED, GPT2, MEMORISED, PRIVATE, REFERENCE
from trustnlp.studies.study import Cells, Request, Study, verdict
from trustnlp.uncertainty import Interval, bonferroni, bootstrap, difference

NONE, PLANTED = "none", "planted"
ALONE = ("perplexity", "zlib", "lowercase", "min-k", "min-k-plus-plus", "neighbourhood", "recall")
RATIO, SMOOTHED, PUBLISHED = "reference-ratio", "error-zone", "error-zone-as-published"
_FPR = 0.01
_VALID = 300  # texts that early stopping watches
_PREFIX_TOKENS = 16  # of a background text, before each text for the attack `recall`


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Args:
        texts: members, and as many non-members.
        background: texts of the reference model.
        tokens: of each text.
        cases: which targets: how they are trained, and with or without canaries.
        repetitions: copies of planted canaries; controls without any are always there.
        per_count: canaries for each of them.
        digits: of a secret.
        neighbours: of each text, for the attack `neighbourhood`.
    """

    texts: int
    background: int
    tokens: int
    cases: Sequence[tuple[str, str]]
    repetitions: tuple[int, ...]
    per_count: int
    digits: int
    neighbours: int


QUICK = Scale(
    texts=800,
    background=1200,
    tokens=24,
    cases=((FITTED, NONE), (MEMORISED, PLANTED), (PRIVATE, PLANTED)),
    repetitions=(1, 16),
    per_count=4,
    digits=3,
    neighbours=2,
)
FULL = Scale(
    texts=3000,
    background=6000,
    tokens=64,
    cases=tuple((training, planted) for training in (FITTED, MEMORISED, PRIVATE) for planted in (NONE, PLANTED)),
    repetitions=(1, 4, 16, 64),
    per_count=4,
    digits=4,
    neighbours=25,
)


@dataclass(frozen=True)
class _Setting:
    """What all cells share."""

    corpus: Corpus
    split: MembershipSplit
    secrets: tuple[Canary, ...]
    vocabulary: str
    scale: Scale
    streams: Streams
    device: str

    @cached_property
    def texts(self) -> list[str]:
        """Members, then as many non-members."""
        return [example.text for example in (*self.split.members, *self.split.nonmembers)]

    @cached_property
    def background(self) -> list[str]:
        return [example.text for example in self.split.background.train]

    @cached_property
    def neighbours(self) -> list[str]:
        """Of all texts; the same for every model."""
        return neighbours.exchange_words(
            self.texts,
            neighbours.WordStatistics(self.background),
            generator=self.streams.numpy("neighbours"),
            neighbours=self.scale.neighbours,
        )

    @property
    def prefix(self) -> str:
        """Never trained on by a target."""
        return " ".join(self.background[0].split()[:_PREFIX_TOKENS]) + "\n"

    def halves(self, scores: Array) -> tuple[Array, Array]:
        """Scores of members and of non-members."""
        return scores[: self.scale.texts], scores[self.scale.texts :]

    def model(self, training: str, planted: str, folder: Path, progress: Progress) -> language_training.Trained:
        """The model of a cell, trained in the folder that all cells share, or taken from there."""
        name = training if training == REFERENCE else f"{training}, canaries {planted}"
        members = Corpus(self.corpus.name, self.split.members)
        if training == REFERENCE:
            members = self.split.background
        elif planted == PLANTED:
            members = canaries.plant(members, self.secrets, self.streams.numpy("places"))
        return language_training.train(
            training,
            members.train,
            self.corpus.valid,
            vocabulary=self.vocabulary,
            streams=self.streams.child(name),
            folder=folder / re.sub(r"[^a-z0-9.]+", "-", f"{self.corpus.name} {self.vocabulary} {name}".lower()),
            device=self.device,
            progress=progress,
        )


def _measure(request: Request, cells: Cells, progress: Progress) -> list[Finding]:
    scale = QUICK if request.quick else FULL
    findings: list[Finding] = []
    for name in request.data or ("wikitext-2",):
        for vocabulary in request.models or (GPT2,):
            findings += _measure_corpus(_setting(name, vocabulary, scale, request), cells, progress)
    return [_claim(findings), *findings]


def _setting(name: str, vocabulary: str, scale: Scale, request: Request) -> _Setting:
    corpus = passages(data.load(name), scale.tokens)
    streams = Streams(request.seed).child(f"{corpus.digest}/{vocabulary}")
    drawn = streams.numpy("texts").permutation(len(corpus.train))[: 2 * scale.texts + scale.background]
    corpus = replace(corpus, train=tuple(corpus.train[i] for i in drawn), valid=corpus.valid[:_VALID])
    split = hold_out(corpus, scale.texts, streams.numpy("split"))
    secrets = canaries.design(
        corpus,
        generator=streams.numpy("canaries"),
        repetitions=(0, *scale.repetitions),
        per_count=scale.per_count,
        length=scale.digits,
    )
    return _Setting(corpus, split, secrets, vocabulary, scale, streams, request.device)


def _measure_corpus(setting: _Setting, cells: Cells, progress: Progress) -> list[Finding]:
    half = setting.scale.texts
    checked = blind.check(setting.texts[:half], setting.texts[half:], generator=setting.streams.numpy("blind"))
    shared = {"corpus": setting.corpus.name, "vocabulary": setting.vocabulary}
    findings = [*cells.measure({**shared, "figure": "blind check"}, lambda _: [checked])]
    for training, planted in ((REFERENCE, NONE), *setting.scale.cases):
        cell = {**shared, "training": training, "canaries": planted}
        findings += cells.measure(cell, partial(_attack, setting, training, planted, progress))
        if planted == PLANTED:
            for count in setting.scale.repetitions:
                secrets = partial(_secrets, setting, training, count, progress)
                findings += cells.measure({**cell, "repetitions": str(count)}, secrets)
    return findings


# --- what is measured of a model -------------------------------------------------------------------------------


def _held_out(model: LanguageModel, setting: _Setting) -> Finding:
    """Nats per whitespace-separated token, so that vocabularies can be compared."""
    nats = {}
    for name, examples in (("held out", setting.split.nonmembers), ("members", setting.split.members)):
        scores = token_scores(model, model.encode(examples))
        nats[name] = scores.losses * scores.lengths / setting.scale.tokens
    interval = bootstrap(lambda rows: rows.mean(1), nats["held out"], generator=setting.streams.numpy("bootstrap"))
    return Finding(
        "held-out-loss",
        "Loss on texts never trained on, per word",
        float(nats["held out"].mean()),
        interval.low,
        interval.high,
        n=len(nats["held out"]),
        unit="nats",
        direction=Direction.LOWER,
        source="mean negative log-likelihood of a text over its words; bootstrap over texts",
        details={"on_members": float(nats["members"].mean())},
    )


def _attack(setting: _Setting, training: str, planted: str, progress: Progress, path: Path) -> list[Finding]:
    """Usefulness, membership by every score, and how far the better ones lead.

    The reference model saw neither side. What finds "members" there, finds a chance difference between the two sides,
    and does so in every model that is asked without a reference.
    """
    folder = path.parents[1] / "models"
    trained = setting.model(training, planted, folder, progress)
    own = _scored(trained.model, setting.texts)
    scores = _scores_alone(own, trained.model, setting)
    if training != REFERENCE:
        reference = setting.model(REFERENCE, NONE, folder, progress).model
        scores |= _scores_compared(own, _scored(reference, setting.texts))
    findings = [_held_out(trained.model, setting), *trained.findings]
    for place, (name, values) in enumerate(scores.items()):
        ties = setting.streams.numpy("ties", place)
        found = membership.evaluate(*setting.halves(values), attack=name, generator=ties)
        source = language_scores.SOURCES[name.removesuffix("-as-published")]
        findings += [replace(finding, source=source) for finding in found]
    if training == REFERENCE:
        return findings
    lead = partial(_lead, scores=scores, setting=setting)
    return [
        *findings,
        lead("reference-lead", "Lead of the reference ratio over the best score without a reference", RATIO, ALONE),
        lead("smoothing-lead", "Lead of the smoothed error zone over the published one", SMOOTHED, (PUBLISHED,)),
    ]


def _scores_alone(own: TokenScores, model: LanguageModel, setting: _Setting) -> dict[str, Array]:
    """The scores that need no other model, of members and non-members, (2n,) each; higher = more member-like."""
    texts = setting.texts
    return {
        "perplexity": language_scores.perplexity(own),
        "zlib": language_scores.zlib_ratio(own, texts),
        "lowercase": language_scores.lowercase_ratio(own, _scored(model, [text.lower() for text in texts])),
        "min-k": language_scores.min_k(own),
        "min-k-plus-plus": language_scores.min_k_plus_plus(own),
        "neighbourhood": language_scores.neighbourhood(own, _scored(model, setting.neighbours)),
        "recall": language_scores.recall(own, _scored(model, [setting.prefix + text for text in texts])),
    }


def _scores_compared(own: TokenScores, reference: TokenScores) -> dict[str, Array]:
    """The scores that compare with the reference model."""
    return {
        "reference-difference": language_scores.reference_difference(own, reference),
        RATIO: language_scores.reference_ratio(own, reference),
        SMOOTHED: language_scores.error_zone(own, reference),
        PUBLISHED: published_error_zone(own, reference),
    }


def _scored(model: LanguageModel, texts: Sequence[str]) -> TokenScores:
    return token_scores(model, model.encode([Example(text) for text in texts]))


def published_error_zone(scores: TokenScores, reference: TokenScores) -> NDArray[np.float64]:
    """The error-zone score as its public code has it, (N,): rises over falls, and 0 where there are no falls.

    Source: Ilić et al. 2026, arXiv:2601.12104, appendix E.6.
    """
    shifts = [
        (own - other)[~right]
        for own, other, right in zip(scores.log_probs, reference.log_probs, scores.top_is_right, strict=True)
    ]
    rises, falls = (np.array([part.clip(min=0).sum() for part in rows]) for rows in (shifts, [-row for row in shifts]))
    return np.divide(rises, falls, out=np.zeros_like(rises), where=falls > 0)


def _secrets(setting: _Setting, training: str, count: int, progress: Progress, path: Path) -> list[Finding]:
    """Exposure and extraction of the canaries that were planted `count` times, beside the controls."""
    model = setting.model(training, PLANTED, path.parents[1] / "models", progress).model
    chosen = [canary for canary in setting.secrets if canary.repetitions in (0, count)]
    exposures = []
    for canary in chosen:
        found = exposure.score_candidates(lambda examples: losses(model, model.encode(examples)), canary)
        exposures.append(exposure.of_canary(found, canary))
    decoder = generation.KeyValueDecoder(model.model)
    findings = [*exposure.evaluate(exposures)]

    def tokens_of(text: str) -> NDArray[np.int64]:
        return generation.token_ids(model.encoding, [text])[0]

    for strategy in (generation.greedy(), generation.Beam(10), generation.Sampled(10)):
        streams = setting.streams.child("generation")
        hits = generation.extract_canaries(decoder, chosen, tokens_of, strategy=strategy, streams=streams)
        findings.append(generation.evaluate_canaries(hits, chosen, strategy=strategy))
    return findings


# --- comparing attacks -----------------------------------------------------------------------------------------


def _lead(
    id: str, title: str, better: str, others: Sequence[str], *, scores: Mapping[str, Array], setting: _Setting
) -> Finding:
    """The least lead in TPR at 1% FPR over any of `others`; higher speaks for the better score.

    Both scores are of the same texts, so their TPRs hardly ever vary against each other, and the interval of a
    difference of independent TPRs (MOVER) covers more than it says. Over several others, each has its Bonferroni level,
    so that the least of their ends enclose the least lead.
    """
    level = bonferroni(0.95, len(others))

    def tpr(name: str) -> tuple[float, Interval] | None:
        ties = setting.streams.numpy("lead", list(scores).index(name))
        found = membership.evaluate(*setting.halves(scores[name]), attack=name, generator=ties, level=level)[0]
        if found.value is None or found.low is None or found.high is None:
            return None
        return found.value, Interval(found.low, found.high, level)

    own, rivals = tpr(better), {name: tpr(name) for name in others}
    entry: dict[str, Any] = {
        "id": id,
        "title": title,
        "n": len(setting.texts),
        "direction": Direction.NONE,
        "source": "difference of TPR at 1% FPR (Zou and Donner 2008), least over rivals at Bonferroni's level",
    }
    known = {name: rival for name, rival in rivals.items() if rival}
    if own is None or len(known) < len(rivals):
        return Finding(value=None, verdict=Verdict.INSUFFICIENT_EVIDENCE, details={"fpr": _FPR}, **entry)
    leads = {name: own[0] - value for name, (value, _) in known.items()}
    ends = [difference(*own, *rival) for rival in known.values()]
    return Finding(
        value=min(leads.values()),
        low=min(end.low for end in ends),
        high=min(end.high for end in ends),
        details={"fpr": _FPR, "tpr": own[0], "leads": leads},
        **entry,
    )


def _claim(findings: Sequence[Finding]) -> Finding:
    """Reproduced where every part is; not reproduced where any is contradicted; nothing is shown by a biased split."""
    parts = {
        "reference": [_leads(f) for f in _of(findings, "reference-lead", FITTED)],
        "smoothing": [_leads(f) for f in _of(findings, "smoothing-lead", MEMORISED)],
        "privacy": [_held(f) for f in _of(findings, f"membership-{RATIO}-tpr-at-1pct-fpr", PRIVATE)],
    }
    answers = [answer for part in parts.values() for answer in part]
    if any(finding.verdict is Verdict.BIASED_SPLIT for finding in findings):
        answers.append(None)
    reproduced = False if False in answers else None if None in answers else True
    least = min(_of(findings, "reference-lead", FITTED), key=lambda f: np.inf if f.low is None else f.low)
    if least.value is None:
        reproduced = None
    return verdict(
        "Lead of the reference ratio in members found at 1% false alarms",
        reproduced,
        value=least.value,
        low=least.low,
        high=least.high,
        n=least.n,
        source=language_scores.SOURCES[RATIO],
        details={"cell": least.details["cell"], "parts": parts},
    )


def _of(findings: Sequence[Finding], id: str, training: str) -> list[Finding]:
    return [f for f in findings if f.id == id and f.details["cell"]["training"] == training]


def _leads(finding: Finding) -> bool | None:
    """Whether a lead is above 0, or below, with its whole interval."""
    if finding.low is None or finding.high is None or finding.low <= 0 <= finding.high:
        return None
    return finding.low > 0


def _held(finding: Finding) -> bool | None:
    return {Verdict.NO_LEAK_FOUND: True, Verdict.LEAKS: False}.get(finding.verdict)


STUDY = Study(
    name="reference-attack",
    system="S2",
    claim=(
        "An attacker with a reference model finds more of a language model's training texts than one without, and "
        "differential privacy stops both. Counted as reproduced where, at 1% false alarms and with whole intervals, "
        "(1) on every model that has fitted its texts, the reference ratio finds more members than each score without "
        "a reference (perplexity, zlib, lower case, Min-K%, Min-K%++, neighbourhood, ReCaLL); (2) on every model that "
        "has memorised its texts, the smoothed error-zone score finds more than the published one; (3) on every model "
        f"trained with epsilon {EPSILON:g}, the reference ratio finds members no more often than 3 times the false "
        "alarms. A split that can be told apart without any model shows nothing."
    ),
    axes={"panel": ("corpus", "vocabulary", "canaries"), "rows": ("training",), "columns": ("repetitions",)},
    measure=_measure,
)
