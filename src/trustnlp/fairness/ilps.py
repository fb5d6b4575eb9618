"""Increased log-probability score: how much an attribute raises a masked model's probability of a group's word.

    ILPS(g, a) = log p([MASK] = g | the sentence with a) - log p([MASK] = g | the sentence with a masked too)

    "[MASK] is a nurse."  against  "[MASK] is a [MASK]."

The second term takes away what the model expects of g without knowing a. For a pair of group words, f of the first
group and s of the second, the preference of an attribute is

    D(a) = mean over templates and pairs of ILPS(f, a) - ILPS(s, a)        in nats; above 0 where a speaks for f

and the figure of two lists of attributes is mean over A of D - mean over B of D. Attributes are a sample of those that
could have stood for their lists, so they are the units of the bootstrap; templates and pairs are few and chosen, they
define what is measured and are held fixed (`details` has the figure of each alone).

Source: Kurita, Vyas, Pareek, Black and Tsvetkov 2019, Workshop on Gender Bias in NLP, 166-172, section 3.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trustnlp import checks
from trustnlp.errors import ArgumentError, ModelError
from trustnlp.fairness.association import Array, Figure, Measured, Scores, effect_sizes, judged
from trustnlp.fairness.metric import Metric, Notion, Scope, minimum_detectable_effect
from trustnlp.fairness.scorer import Asked, Kind, Scorer, Tokens
from trustnlp.results import Direction, Finding
from trustnlp.uncertainty import bootstrap

ILPS = Metric(
    id="ilps",
    title="Increased log-probability of a group's words given attributes",
    notion=Notion.ASSOCIATION,
    ideal=0.0,
    direction=Direction.IDEAL,
    source="ILPS (Kurita et al. 2019, section 3), difference of two lists",
    unit="nats",
)

_FIELD = re.compile(r"\{(group|attribute)\}")
_RARE = "\U00013080"  # a hieroglyph: what a vocabulary makes of it, it makes of any word it does not know
_Span = tuple[int, int]


@dataclass(frozen=True)
class ProbabilityTest:
    """What one ILPS test asks.

    Args:
        name: what it is called.
        pairs: (first, second): words of the two groups that differ in the group alone.
        attributes_a: attributes that a positive figure puts with the first group.
        attributes_b: the other attributes.
        templates: sentences with one {group} and one {attribute}; "a {attribute}" becomes "an" before a vowel letter.

    Raises:
        ArgumentError: no pair, no template, or a template without its two fields.
    """

    name: str
    pairs: tuple[tuple[str, str], ...]
    attributes_a: tuple[str, ...]
    attributes_b: tuple[str, ...]
    templates: tuple[str, ...]

    def __post_init__(self) -> None:
        checks.not_empty("pairs", self.pairs)
        checks.not_empty("templates", self.templates)
        for template in self.templates:
            if sorted(_FIELD.findall(template)) != ["attribute", "group"]:
                raise ArgumentError("templates", "with one {group} and one {attribute}", template)


def ilps(
    scorer: Scorer,
    tests: Sequence[ProbabilityTest],
    *,
    generator: np.random.Generator,
    protected_group: str = "gender",
    margin: float = 0.1,
    level: float = 0.95,
    samples: int = 9_999,
) -> tuple[Finding, ...]:
    """How much more the attributes A than B speak for the first group, in nats; ideal 0, above 0 is the first's.

    Args:
        scorer: a masked language model.
        tests: what to ask.
        generator: drawn from.
        protected_group: whose treatment is compared, for the record.
        margin: nats that are of no consequence, > 0; 0.1 is a tenth of the odds.
        level: coverage; of all intervals at once where there are several tests.
        samples: partitions drawn where they are too many to enumerate.

    Returns:
        A finding `ilps-<name>` for each test, with the preference of each attribute, the figure of each pair and
        template alone, d (see `association`) and p-values by permutation of attributes between the lists. Fewer than
        5 attributes in a list are insufficient evidence.

    Raises:
        ArgumentError: no tests, two of one name, or margin or level out of range.
        ModelError: a causal model, or a tokenizer that splits or does not know a group word, or does not know an
            attribute.
    """
    checks.not_empty("tests", tests)
    scope = Scope(protected_group, "templates", margin)
    if scorer.kind is not Kind.MASKED:
        raise ModelError(
            f"ILPS fills gaps, which {scorer.name} as a causal model cannot", "use a masked language model"
        )
    unknown = {number for number, (start, end) in _pieces(scorer.tokens(_RARE)) if end > start}
    return judged(
        ILPS, [_measured(scorer, test, unknown) for test in tests], scope, generator, level, samples, _difference
    )


def preferences(scorer: Scorer, test: ProbabilityTest, attributes: Sequence[str]) -> Array:
    """ILPS(f, a) - ILPS(s, a) of each attribute, pair and template, (attributes, pairs, templates), in nats.

    Raises:
        ModelError: the tokenizer splits a group word.
    """
    asked = [
        each
        for attribute in attributes
        for pair in test.pairs
        for template in test.templates
        for word in pair
        for each in _asked(scorer, template, word, attribute)
    ]
    # The group word is the first position of both questions: with the attribute, and with it masked.
    found = np.array([answer[0] for answer in scorer.log_probabilities(asked)])
    shape = (len(attributes), len(test.pairs), len(test.templates), 2, 2)
    first, second = np.moveaxis(found.reshape(shape) @ np.array([1.0, -1.0]), -1, 0)
    return np.asarray(first - second)


def _measured(scorer: Scorer, test: ProbabilityTest, unknown: set[int]) -> Measured:
    words = [*(word for pair in test.pairs for word in pair), *test.attributes_a, *test.attributes_b]
    strange = [word for word in words if unknown & {number for number, _ in _pieces(scorer.tokens(word))}]
    if strange:
        raise ModelError(f"the tokenizer of {scorer.name} does not know {strange[0]!r}", "leave it out of the test")
    details = {"model": scorer.name, "words": [len(test.attributes_a), len(test.attributes_b)]}
    if not (test.attributes_a and test.attributes_b):
        return Measured(test.name, None, details)
    a, b = (preferences(scorer, test, attributes) for attributes in (test.attributes_a, test.attributes_b))
    x, y = (side.mean(axis=(1, 2)) for side in (a, b))
    by_pair, by_template = (a.mean(axis=(0, other)) - b.mean(axis=(0, other)) for other in (2, 1))
    told = {
        "attributes_a": dict(zip(test.attributes_a, x.tolist(), strict=True)),
        "attributes_b": dict(zip(test.attributes_b, y.tolist(), strict=True)),
        "pairs": {" / ".join(pair): float(value) for pair, value in zip(test.pairs, by_pair, strict=True)},
        "templates": dict(zip(test.templates, by_template.tolist(), strict=True)),
    }
    return Measured(test.name, Scores(x[:, None], y[:, None]), {**details, **told})


def _difference(scores: Scores, level: float, generator: np.random.Generator) -> Figure:
    x, y = scores.x[:, 0], scores.y[:, 0]
    interval = bootstrap(lambda a, b: a.mean(axis=1) - b.mean(axis=1), x, y, generator=generator, level=level)
    d = float(effect_sizes(scores)[0])
    return Figure(float(x.mean() - y.mean()), interval, minimum_detectable_effect(interval), {"effect_size": d})


def _asked(scorer: Scorer, template: str, word: str, attribute: str) -> tuple[Asked, Asked]:
    """The gap of the group word, with the attribute and with it masked."""
    text, group_span, attribute_span = _filled(template, word, attribute)
    tokens = scorer.tokens(text)
    group = _positions(tokens, group_span)
    if len(group) != 1:
        reason = f"the tokenizer of {scorer.name} splits the group word {word!r} into {len(group)} pieces"
        raise ModelError(reason, "use pairs that are single words of its vocabulary")
    hidden = Asked(tokens.ids, (*group, *_positions(tokens, attribute_span)), together=True)
    return Asked(tokens.ids, tuple(group)), hidden


def _filled(template: str, word: str, attribute: str) -> tuple[str, _Span, _Span]:
    """The sentence, and where in it the group word and the attribute stand."""
    text, spans = "", {}
    for number, part in enumerate(_FIELD.split(template)):
        if number % 2 == 0:
            text += part
            continue
        if part == "attribute" and attribute[:1].lower() in "aeiou" and re.search(r"\ba $", text, re.IGNORECASE):
            text = text[:-1] + "n "
        filled = {"group": word, "attribute": attribute}[part]
        spans[part] = (len(text), len(text) + len(filled))
        text += filled
    return text[:1].upper() + text[1:], spans["group"], spans["attribute"]


def _positions(tokens: Tokens, span: _Span) -> list[int]:
    return [at for at, (start, end) in enumerate(tokens.spans) if end > start and start < span[1] and end > span[0]]


def _pieces(tokens: Tokens) -> list[tuple[int, _Span]]:
    return list(zip(tokens.ids, tokens.spans, strict=True))
