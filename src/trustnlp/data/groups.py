"""Groups for fairness gaps: those a corpus names, checked, or groups derived from the texts as a proxy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import median

from trustnlp import checks
from trustnlp.data.corpus import Corpus, Example
from trustnlp.errors import CorpusError


def check(corpus: Corpus) -> Corpus:
    """`corpus`, if its own groups can carry a fairness gap.

    Raises:
        CorpusError: no example has a group, there is only one, or some examples have none (leaving them out
            silently would make a gap wrong).
    """
    if not corpus.groups:
        raise CorpusError(f"corpus {corpus.name!r} names no groups", "name its column, or derive groups by 'length'")
    splits = (corpus.train, corpus.valid, corpus.test)
    without = sum(example.group is None for split in splits for example in split)
    if without:
        mend = "fill them in, for instance with 'unknown', or remove the rows"
        raise CorpusError(f"{without:,} examples of corpus {corpus.name!r} have no group", mend)
    if len(corpus.groups) < 2:
        reason = f"corpus {corpus.name!r} has one group only, {corpus.groups[0]!r}"
        raise CorpusError(reason, "a gap needs two: name another column, or derive groups by 'length'")
    return corpus


def by_length(corpus: Corpus) -> Corpus:
    """`corpus` with the groups 'short' and 'long': at most, or more than, the median number of tokens in training.

    Length is a proxy that shows whether errors fall evenly on texts of different kinds; it is no protected group.

    Raises:
        CorpusError: all training texts have about one length.
    """
    middle = median(len(example.tokens) for example in corpus.train)

    def grouped(split: tuple[Example, ...]) -> tuple[Example, ...]:
        return tuple(replace(each, group="long" if len(each.tokens) > middle else "short") for each in split)

    note = f"groups are 'short' (at most {middle:g} tokens) and 'long' texts: a proxy, not a protected group"
    derived = replace(
        corpus,
        train=grouped(corpus.train),
        valid=grouped(corpus.valid),
        test=grouped(corpus.test),
        notes=(*corpus.notes, note),
    )
    if len({example.group for example in derived.train}) < 2:
        reason = f"no training text of corpus {corpus.name!r} is longer than the median of {middle:g} tokens"
        raise CorpusError(reason, "name a column of groups instead")
    return derived


RULES: dict[str, Callable[[Corpus], Corpus]] = {"column": check, "length": by_length}


def derive(corpus: Corpus, rule: str) -> Corpus:
    """`corpus` with groups by `rule`: 'column' (its own, checked) or 'length' (derived, a proxy).

    Raises:
        ArgumentError: there is no such rule.
        CorpusError: the rule yields no two groups.
    """
    return RULES[checks.one_of("rule", rule, RULES)](corpus)
