"""CEAT: the association of words in context, over many draws of contexts, combined by a random-effects model.

Each word is represented in sentences of a corpus that hold it. One draw takes one sentence for each word of the four
sets and gives an effect size d (see `association`); N draws are combined as meta-analysis combines studies:

    w = 1/V,   Q = sum w d^2 - (sum w d)^2 / sum w,   tau^2 = max(0, (Q - (N - 1)) / c),   c = sum w - sum w^2 / sum w
    combined effect size = sum w' d / sum w',   w' = 1 / (V + tau^2)

V is the sampling variance of d (`association.sampling_variance`), at the mean of d: taken at each d it is smaller
where d is larger, which draws the combination away from 0 (Doncaster and Spake 2018, Methods in Ecology and Evolution
9:634-644). All draws have the same numbers of words, so they weigh alike and the combination is their mean.

Draws are no independent studies: every one is of the same words. Test and interval therefore take words as the units,
each with all of its contexts: p-values by permutation of words, the interval by `association.effect_interval`. In
simulation it covers 93 to 97% without an association and with a moderate one, but only 92% where 8 words of 5 contexts
are associated strongly (d about 1.3).

The published variant (`published`, in the details) is another figure. It sets V to the variance of the association
scores, which has another unit than d and is no variance of d at all; its standard error, 1 / sqrt(sum w'), falls with
the number of draws, so that p goes to 0 for any words in the end; and it is one-sided.

Source: Guo and Caliskan 2021, AIES, 122-133.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from trustnlp import checks
from trustnlp.data.reservoir import Reservoir
from trustnlp.data.seat import AssociationTest
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.fairness.association import (
    Array,
    Measured,
    Scores,
    effect_sizes,
    judged,
    sampling_variance,
    unit_vectors,
)
from trustnlp.fairness.metric import Metric, Notion, Scope
from trustnlp.fairness.scorer import Asked, Scorer, Tokens
from trustnlp.fairness.weat import MARGIN
from trustnlp.results import Direction, Finding

CEAT = Metric(
    id="ceat",
    title="Association of words in context, combined effect size",
    notion=Notion.ASSOCIATION,
    ideal=0.0,
    direction=Direction.IDEAL,
    source="CEAT (Guo and Caliskan 2021), words as units",
    unit="",
)
WHY_NOT_PUBLISHED = (
    "V is the variance of association scores, not of the effect size; the draws are of the same words, so p falls with "
    "their number whatever the data; one-sided"
)

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_END = re.compile(r"(?<=[.!?])\s+|\n+")


class Pieces(StrEnum):
    """Which pieces stand for a word that the tokenizer splits."""

    MEAN = "mean"
    LAST = "last"


@dataclass(frozen=True)
class Context:
    """A sentence that holds a word, from character `start` up to `end`."""

    sentence: str
    start: int
    end: int


@dataclass(frozen=True)
class Combined:
    """What a random-effects model makes of N effect sizes.

    Args:
        effect: the combined effect size.
        error: its standard error, if draws were independent.
        q: Cochran's Q, about N - 1 where V explains how the draws differ.
        tau_squared: variance between draws beyond V.
    """

    effect: float
    error: float
    q: float
    tau_squared: float


def find_contexts(
    texts: Iterable[str],
    words: Iterable[str],
    generator: np.random.Generator,
    *,
    most: int = 100,
    longest: int = 40,
) -> dict[str, list[Context]]:
    """Sentences that hold each word, a uniform sample of all there are in the texts, read once.

    A word in lower case is found in any case, another only as it is written ("Bill", but not "bill").

    Args:
        texts: any corpus.
        words: single words; those that are not found have no contexts.
        generator: drawn from.
        most: contexts kept of each word, at least 1.
        longest: sentences of more words, as parted by spaces, are left out, as models read only so many tokens.
    """
    kept = {word: Reservoir[Context](most, generator) for word in sorted(set(words))}
    for sentence in _sentences(texts):
        if len(sentence.split()) > longest:
            continue
        seen: dict[str, re.Match[str]] = {}
        for match in _WORD.finditer(sentence):
            form = match.group()
            for each in (form, form.lower()):
                if each in kept:
                    seen.setdefault(each, match)
        for word, match in seen.items():
            kept[word].offer(Context(sentence, match.start(), match.end()))
    return {word: reservoir.items for word, reservoir in kept.items()}


def ceat(
    scorer: Scorer,
    tests: Sequence[AssociationTest],
    contexts: Mapping[str, Sequence[Context]],
    *,
    dataset: str,
    generator: np.random.Generator,
    draws: int = 1000,
    fewest: int = 5,
    pieces: Pieces = Pieces.MEAN,
    protected_group: str = "gender",
    margin: float = MARGIN,
    level: float = 0.95,
    samples: int = 9_999,
) -> tuple[Finding, ...]:
    """CEAT's combined effect sizes of a language model; ideal 0, above 0 where X is nearer to A and Y to B.

    Args:
        scorer: a masked or causal language model.
        tests: word sets.
        contexts: of their words, see `find_contexts`.
        dataset: where the contexts are from, for the record.
        generator: drawn from.
        draws: of contexts, at least 2; more of them make the figure steadier, not more certain.
        fewest: words with fewer contexts are left out and listed.
        pieces: what stands for a word that the tokenizer splits: the mean of its pieces, or the last, the only one at
            which a causal model has read the whole word.
        protected_group, margin, level, samples: as for `weat.weat`.

    Returns:
        A finding `ceat-<name>` for each test; its details have Q, tau^2, the words that are too rare, and the
        published variant. Fewer than 5 words in a set of targets, or none in a set of attributes, are insufficient
        evidence.

    Raises:
        ArgumentError: no tests, two of one name, or a figure out of range.
        GuaranteeError: a word without a token in its sentence, or a representation without direction.
    """
    checks.at_least("draws", draws, 2)
    checks.at_least("fewest", fewest, 1)
    scope = Scope(protected_group, dataset, margin)
    vectors: dict[str, Array] = {}
    measured = []
    for test in tests:
        sets = (test.targets_x, test.targets_y, test.attributes_a, test.attributes_b)
        known = [[word for word in words if len(contexts.get(word, ())) >= fewest] for words in sets]
        for word in (word for words in known for word in words if word not in vectors):
            vectors[word] = unit_vectors(_representations(scorer, contexts[word], pieces))
        details = {
            "model": scorer.name,
            "draws": draws,
            "pieces": pieces.value,
            "words": [len(words) for words in known],
            "too_rare": sorted({word for words in sets for word in words if len(contexts.get(word, ())) < fewest}),
            "contexts": {word: len(contexts[word]) for words in known for word in words},
        }
        measured.append(
            _measured(test.name, [[vectors[w] for w in words] for words in known], draws, generator, details)
        )
    return judged(CEAT, measured, scope, generator, level, samples)


def random_effects(effects: Array, variances: Array) -> Combined:
    """The random-effects combination of N effect sizes, (N,), of these variances, (N,), by the moments of Q.

    Source: DerSimonian and Laird 1986, Controlled Clinical Trials 7:177-188.

    Raises:
        ArgumentError: fewer than 2, or not one variance for each.
        GuaranteeError: a variance that is not above 0.
    """
    checks.same_length(effects=effects, variances=variances)
    if len(effects) < 2:
        raise ArgumentError("effects", "at least 2", len(effects))
    if not (np.isfinite(variances) & (variances > 0)).all():
        raise GuaranteeError("a variance is not above 0", "leave its effect size out")
    w = 1 / variances
    q = float((w * (effects - (w * effects).sum() / w.sum()) ** 2).sum())
    c = w.sum() - (w**2).sum() / w.sum()
    tau_squared = max(0.0, float((q - (len(effects) - 1)) / c))
    total = 1 / (variances + tau_squared)
    return Combined(float((total * effects).sum() / total.sum()), float(1 / np.sqrt(total.sum())), q, tau_squared)


def combined(scores: Scores) -> Combined:
    """The random-effects combination of the effect sizes of all draws, with their sampling variance."""
    effects = effect_sizes(scores)
    return random_effects(effects, np.full_like(effects, sampling_variance(effects.mean(), *scores.sizes)))


def published(scores: Scores) -> tuple[Combined, float]:
    """The published combination, and its one-sided p-value; see the head of this module for what is wrong."""
    found = random_effects(effect_sizes(scores), scores.variances)
    return found, float(stats.norm.sf(found.effect / found.error))


def draw_scores(sets: Sequence[Sequence[Array]], draws: int, generator: np.random.Generator) -> Scores:
    """Associations of the targets in each draw.

    Args:
        sets: X, Y, A and B, for each word its vectors of length 1, (contexts, d).
        draws: how many.
        generator: drawn from.
    """
    picks: list[list[NDArray[np.intp]]] = [
        [generator.integers(len(contexts), size=draws) for contexts in words] for words in sets
    ]
    a, b = (
        sum((contexts[pick] for contexts, pick in zip(sets[side], picks[side], strict=True)), np.zeros(1))
        / len(sets[side])
        for side in (2, 3)
    )
    x, y = (
        np.array(
            [((contexts[pick]) * (a - b)).sum(axis=1) for contexts, pick in zip(sets[side], picks[side], strict=True)]
        )
        for side in (0, 1)
    )
    return Scores(x, y)


def _measured(
    name: str, sets: list[list[Array]], draws: int, generator: np.random.Generator, details: dict[str, object]
) -> Measured:
    if not all(sets):
        return Measured(name, None, details)
    scores = draw_scores(sets, draws, generator)
    ours, (theirs, p) = combined(scores), published(scores)
    told = {
        "q": ours.q,
        "tau_squared": ours.tau_squared,
        "published": {"effect": theirs.effect, "p_one_sided": p, "tau_squared": theirs.tau_squared, "q": theirs.q},
        "why_not_published": WHY_NOT_PUBLISHED,
    }
    return Measured(name, scores, {**details, **told})


def _sentences(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield from (part.strip() for part in _END.split(text) if part.strip())


def _representations(scorer: Scorer, contexts: Sequence[Context], pieces: Pieces) -> Array:
    return scorer.representations([_asked(scorer.tokens(each.sentence), each, pieces) for each in contexts])


def _asked(tokens: Tokens, context: Context, pieces: Pieces) -> Asked:
    spans = enumerate(tokens.spans)
    at = [place for place, (start, end) in spans if start < context.end and end > context.start and end > start]
    if not at:
        raise GuaranteeError("the tokenizer gives a word no token of its sentence", "leave the word out")
    return Asked(tokens.ids, tuple(at if pieces is Pieces.MEAN else at[-1:]))
