"""Study `canary-extraction` (S3): which defences keep a secret that was planted in the texts from coming out again?

    2,000 texts + R copies of "my pin code is 4 8 1 7" ──> training under a defence ──> inversion: a guess
                                                                                  └──> every code scored: a rank
    once more with a fresh code, 20 times a cell          cells: defences x copies, under several conditions

Parikh et al. 2022 (arXiv 2203.13920) invert intent and slot models: who holds the weights and knows the words before
the secret and how the text was labelled searches for the tokens that the model itself finds likeliest there.

2,000 texts of at most 12 words: what protects must do so where there is little else to learn from, as in a new domain
of an assistant; and 700 trainings, which probabilities with intervals ask for, then take two cores an hour or two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np

from trustnlp.attacks import exposure, inversion
from trustnlp.data import canaries
from trustnlp.data.canaries import Canary
from trustnlp.data.corpus import Corpus, Example
from trustnlp.dp import PrivacyPlan
from trustnlp.errors import CorpusError
from trustnlp.models import LabelModel, evaluation, losses
from trustnlp.models.many import Job, run_jobs
from trustnlp.progress import Progress
from trustnlp.randomness import Streams
from trustnlp.results import Direction, Finding, Verdict
from trustnlp.studies import corpora, defences, extraction_measures
from trustnlp.studies.defences import Defence
from trustnlp.studies.extraction_measures import Attacked
from trustnlp.studies.study import Cells, Request, Study, verdict

COPIES = (1, 10, 100)
_CODES, _QUICK_CODES = 20, 8
_TEXTS, _VALID, _TEST = 2_000, 350, 700
_WORDS = 12  # of a training text at most; batches are padded to their longest text
_RANKED = 10_000  # candidates scored, and so all codes of four digits
_SEARCH = inversion.Search(restarts=10)
_EXTRACTED = 0.5  # above which the interval of exact guesses must lie for "comes out"

NONE, ALL = Defence(), Defence(dropout=True, early_stopping=True, characters=True)
ALONE = (Defence(dropout=True), Defence(early_stopping=True), Defence(characters=True))
PAIR = Defence(dropout=True, early_stopping=True)
PRIVATE = (Defence(epsilon=50.0), Defence(epsilon=8.0))
MATCHED = "none, epochs of all three"


@dataclass(frozen=True)
class Condition:
    """What the secret is, and what the corpus holds beside it.

    Args:
        name: of the panel.
        length, alphabet: see `canaries.design`.
        new_labels: the secret brings an intent and slot tags of its own; else an intent and tags of the corpus.
        background: texts of the same wording with random codes, so that "which words occur here" is no help.
    """

    name: str
    length: int = 4
    alphabet: str = "digits"
    new_labels: bool = True
    background: int = 0

    def canary(self, corpus: Corpus, copies: int, generator: np.random.Generator) -> Canary:
        """A fresh secret, to be planted `copies` times."""
        own = {"label": "GiveCode", "tags": "slot", "slot": "code"} if self.new_labels else {}
        (canary,) = canaries.design(
            corpus,
            generator=generator,
            repetitions=(copies,),
            per_count=1,
            length=self.length,
            alphabet=self.alphabet,
            **own,
        )
        return canary


OWN = Condition("four digits, an intent and tags of their own")
BORROWED = Condition("four digits, an intent and tags that other texts have", new_labels=False)
CROWD = Condition("four digits, among 500 texts with random codes", background=500)
LONG = Condition("six digits", length=6)
COLOURS = Condition("four colours", alphabet="colours")


@dataclass(frozen=True)
class Cell:
    """One kind of training: the unit of a verdict.

    Args:
        matched: no defence, but as many epochs as `ALL` has chosen, code by code.
    """

    condition: Condition
    defence: Defence
    copies: int
    matched: bool = False

    def named(self, corpus: str) -> dict[str, str]:
        """As the report names it."""
        row = MATCHED if self.matched else str(self.defence)
        return {"corpus": corpus, "secret": self.condition.name, "defence": row, "copies": str(self.copies)}


def grid(quick: bool) -> Iterator[Cell]:
    """The cells in the order of the report; `ALL` stands before what is matched to it."""
    if quick:
        yield from (Cell(OWN, defence, copies) for defence, copies in product((NONE, ALL, PRIVATE[-1]), COPIES[:2]))
        return
    yield Cell(OWN, NONE, 0)
    yield from (Cell(OWN, defence, copies) for defence, copies in product((NONE, *ALONE, PAIR, ALL), COPIES))
    yield from (Cell(OWN, NONE, copies, matched=True) for copies in COPIES)
    yield from (Cell(OWN, defence, copies) for defence, copies in product(PRIVATE, COPIES))
    yield from (Cell(CROWD, defence, copies) for defence, copies in product((NONE, ALL), COPIES[:2]))
    yield from (Cell(BORROWED, NONE, copies) for copies in COPIES[:2])
    yield from (Cell(condition, NONE, COPIES[1]) for condition in (LONG, COLOURS))


@dataclass(frozen=True)
class Trial:
    """All that one training with one secret, and the attack on it, are made from.

    Args:
        corpus: without the secret.
        background: further training texts.
        epochs: at most.
        plan: of a private training.
    """

    corpus: Corpus
    canary: Canary
    background: tuple[Example, ...]
    defence: Defence
    epochs: int
    streams: Streams
    plan: PrivacyPlan | None

    def extract(self, folder: Path) -> dict[str, np.ndarray]:
        """Trains, attacks and measures; the fields of `Attacked`."""
        del folder  # a training of seconds needs no checkpoint
        clean = self.corpus
        planted = canaries.plant(clean, [self.canary], self.streams.numpy("places"), self.background)
        # The model can give the secret's labels even where it was never shown them: the control.
        schema = replace(clean, train=(*clean.train, self.canary.example()))
        trained = defences.train(
            self.defence,
            schema,
            planted.train,
            clean.valid,
            epochs=self.epochs,
            streams=self.streams,
            plan=self.plan,
        )
        model = trained.model
        guess = inversion.invert(model, self.canary, search=_SEARCH, streams=self.streams.child("attack"))
        ranked = rank(model, self.canary, self.streams.numpy("rivals"))
        utility = evaluation.evaluate(model, model.encode(clean.test))
        return Attacked(
            length=len(self.canary.secret),
            alphabet=len(self.canary.alphabet),
            right=round((1 - guess.hamming) * len(self.canary.secret)),
            # The background's codes are others than the secret, so by chance it is one of the rest.
            rank=min(ranked.rank, ranked.candidates - len(self.background)),
            candidates=ranked.candidates - len(self.background),
            accuracy=utility["accuracy"],
            slot_f1=utility["slot_f1"],
            epochs=trained.epochs,
        ).arrays()


def rank(model: LabelModel, canary: Canary, generator: np.random.Generator, most: int = _RANKED) -> exposure.Exposure:
    """The secret's rank among all candidates, or, where there are more than `most`, among it and random others.

    Either way rank / candidates is an exact p-value of "not memorised".
    """

    if canary.space <= most:
        return exposure.of_canary(inversion.exhaustive(model, canary), canary)
    shape = (len(canary.alphabet),) * len(canary.secret)
    drawn = np.stack(np.unravel_index(generator.choice(canary.space, most, replace=False), shape), 1)
    rivals = [tuple(canary.alphabet[i] for i in places) for places in drawn.tolist()]
    others = [rival for rival in rivals if rival != canary.secret][: most - 1]
    examples = [canary.example(), *map(canary.example, others)]
    return exposure.exposure(losses(model, model.encode(examples), batch_size=1000), 0, canary.repetitions)


def _measure(request: Request, cells: Cells, progress: Progress) -> list[Finding]:
    found: list[Finding] = []
    for name in request.data or ("snips",):
        corpus = _sample(corpora.load(name, limit=200_000, quick=request.quick))
        for cell in grid(request.quick):
            found += _attacked(cell, corpus, request, found, cells, progress)
    return [_claim(found), *found]


def _sample(corpus: Corpus) -> Corpus:
    """A part of each split, the same for every seed.

    Raises:
        CorpusError: intents or slots are missing.
    """
    if not (corpus.labels and corpus.tags):
        raise CorpusError(f"corpus {corpus.name!r} has no intents or no slots", "give one with both, such as atis")

    def some(split: Sequence[Example], name: str, size: int) -> tuple[Example, ...]:
        kept = Streams(0).numpy(name).permutation(len(split))[:size]
        return tuple(split[i] for i in sorted(kept))

    return replace(
        corpus,
        train=some([e for e in corpus.train if len(e.tokens) <= _WORDS], "train", _TEXTS),
        valid=some(corpus.valid, "valid", _VALID),
        test=some(corpus.test, "test", _TEST),
    )


def _attacked(
    cell: Cell, corpus: Corpus, request: Request, before: Sequence[Finding], cells: Cells, progress: Progress
) -> tuple[Finding, ...]:
    named = cell.named(corpus.name)

    def attack(folder: Path) -> list[Finding]:
        codes = _QUICK_CODES if request.quick else _CODES
        epochs = _chosen_epochs(before, replace(cell, defence=ALL, matched=False).named(corpus.name))
        limits = epochs if cell.matched else [defences.EPOCHS] * codes
        size = len(corpus.train) + cell.condition.background + cell.copies
        plan = cell.defence.plan(size)
        streams = Streams(request.seed).child(f"{corpus.digest}/{cell.condition.name}")
        trials = [_trial(cell, corpus, limits[code], streams.child("code", code), plan) for code in range(codes)]
        jobs = [Job(f"code-{code}", trial.extract) for code, trial in enumerate(trials)]
        results = run_jobs(jobs, folder / "trainings", progress=progress, stage=", ".join(named.values()))
        details = {} if plan is None else {"epsilon": plan.epsilon(), "delta": plan.delta}
        return extraction_measures.findings([Attacked.of(result) for result in results], details)

    return cells.measure(named, attack)


def _chosen_epochs(findings: Sequence[Finding], cell: dict[str, str]) -> list[int]:
    return next((f.details["epochs"] for f in _exact_matches(findings) if _cell(f) == cell), [])


def _trial(cell: Cell, corpus: Corpus, epochs: int, streams: Streams, plan: PrivacyPlan | None) -> Trial:
    # Cells of one condition share their secrets, weights and shuffling, so they differ in what they are named for.
    canary = cell.condition.canary(corpus, cell.copies, streams.numpy("canary"))
    background: tuple[Example, ...] = ()
    if cell.condition.background:
        background = canaries.random_codes(canary, cell.condition.background, streams.numpy("background"))
    return Trial(corpus, canary, background, cell.defence, epochs, streams, plan)


def _claim(found: Sequence[Finding]) -> Finding:
    """By the rule in the study's claim; the figure is that of the corpus where undefended secrets come out least."""
    exact = [f for f in _exact_matches(found) if _cell(f)["secret"] == OWN.name]
    defended = [f for f in exact if _cell(f)["defence"] in (str(ALL), str(PRIVATE[-1]))]
    undefended = [f for f in exact if _cell(f)["defence"] == str(NONE)]
    names = dict.fromkeys(_cell(f)["corpus"] for f in undefended)
    best = [max((f for f in undefended if _cell(f)["corpus"] == name), key=_low) for name in names]
    decisive = min(best, key=_low)
    reproduced = _low(decisive) > _EXTRACTED and all(f.verdict is Verdict.NO_LEAK_FOUND for f in defended)
    refuted = (decisive.high or 0.0) < _EXTRACTED or any(f.verdict is Verdict.LEAKS for f in defended)
    return verdict(
        f"{_cell(decisive)['corpus']}, {_times(int(_cell(decisive)['copies']))}, no defence: secrets that come out",
        True if reproduced else (False if refuted else None),
        value=decisive.value,
        low=decisive.low,
        high=decisive.high,
        n=decisive.n,
        direction=Direction.LOWER,
        ideal=decisive.ideal,
        source="Parikh et al. 2022, arXiv 2203.13920",
        details={"cell": _cell(decisive), "says": _says(found)},
    )


def _exact_matches(findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.id == "inversion-exact-match"]


def _cell(finding: Finding) -> dict[str, str]:
    cell: dict[str, str] = finding.details["cell"]
    return cell


def _low(finding: Finding) -> float:
    return finding.low or 0.0


def _says(found: Sequence[Finding]) -> list[str]:
    """A sentence a defence: what each number of copies gives away, and what the model is worth."""
    rows: dict[tuple[str, str], list[Finding]] = {}
    for finding in found:
        if finding.details["cell"]["secret"] == OWN.name:
            rows.setdefault((_cell(finding)["corpus"], _cell(finding)["defence"]), []).append(finding)
    return [f"{corpus}, {defence}: {_said(own)}." for (corpus, defence), own in rows.items()]


def _said(own: Sequence[Finding]) -> str:
    parts = []
    for finding in _exact_matches(own):
        copies, rank = int(_cell(finding)["copies"]), np.median(finding.details["ranks"])
        evidence = f"{finding.value:.0%} come out, median rank {rank:,.0f} of {finding.details['candidates']:,}"
        parts.append(f"{finding.verdict.value} with {_times(copies)} ({evidence})")
    f1 = [finding.value for finding in own if finding.id == "slot-f1" and finding.value is not None]
    return "; ".join([*parts, f"slot F1 {min(f1):.0%} to {max(f1):.0%}"] if f1 else parts)


def _times(copies: int) -> str:
    return f"{copies} {'copy' if copies == 1 else 'copies'}"


STUDY = Study(
    name="canary-extraction",
    system="S3",
    claim=(
        "A secret that was planted in the training texts of an intent and slot model can be read out of its weights by "
        "inversion, and dropout, early stopping and character embeddings together, or private training, bring that "
        f"down to chance. Counted as reproduced where, on every corpus, some undefended cell's interval of exact "
        f"guesses lies above {_EXTRACTED:g}, and with all three together, and with privacy at epsilon 8, no leak is "
        "found at any number of copies. “No leak found” asks that neither exact guesses nor right tokens nor ranks "
        "contradict chance, and that a leak, were there one, would be small."
    ),
    axes={"panel": ("corpus", "secret"), "rows": ("defence",), "columns": ("copies",)},
    measure=_measure,
)
