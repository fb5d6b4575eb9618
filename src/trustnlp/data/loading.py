"""A corpus by name or path, whatever its format, in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from trustnlp import checks
from trustnlp.data import formats, groups, registry, reservoir
from trustnlp.data.corpus import Corpus, Example
from trustnlp.data.formats import Layout
from trustnlp.data.tabular import Column, Options, Placed
from trustnlp.errors import ArgumentError, CorpusError, MalformedCorpusError
from trustnlp.randomness import Streams

LIMIT = 200_000

_SPLITS = ("train", "valid", "test")

Splits = tuple[tuple[Example, ...], tuple[Example, ...], tuple[Example, ...]]


def load(
    what: str | Path,
    *,
    limit: int = LIMIT,
    seed: int = 0,
    group: str | None = None,
    columns: Mapping[str, Column] | None = None,
    split_column: str | None = None,
    skip_empty: bool = False,
) -> Corpus:
    """The corpus `what`; files are streamed, so memory is bounded by the `limit` texts that are kept.

    Args:
        what: a registered name (`trustnlp data list`), or the path of a file or folder in a public format.
        limit: the most texts kept over all splits; of more, a uniform sample is kept and a note says so.
        seed: of that sample, of the random split 80/10/10 of corpora that come without splits, and of the synthetic
            corpus.
        group: which groups fairness is measured over: a column, 'column' (those the corpus names, checked) or
            'length' (derived); None takes those the corpus names, unchecked.
        columns: for tables, JSON and `datasets` folders: column by role (text, label, user, group, time, tags,
            question, answers, target), or position from 0 in a file without header.
        split_column: the column that says train, valid or test.
        skip_empty: whether rows without text are left out (and counted in a note) instead of refused.

    Raises:
        CorpusNotFoundError: there is no such corpus, or files of it are missing.
        MalformedCorpusError: a file breaks its format; the message has path and line.
        ArgumentError: an argument does not go with this corpus.
        CorpusError: any other reason why the corpus cannot be used.
    """
    checks.at_least("limit", limit, 1)
    streams = Streams(seed)
    named = dict(columns or {})
    if split_column is not None:
        named["split"] = split_column
    rule = group if group in groups.RULES else None
    if group is not None and rule is None:
        named["group"], rule = group, "column"
    if what == registry.SYNTHETIC:
        corpus = _synthetic(limit, streams, named)
    else:
        corpus = _read(what, limit, streams, named, skip_empty)
    return groups.derive(corpus, rule) if rule else corpus


def _synthetic(limit: int, streams: Streams, named: Mapping[str, Column]) -> Corpus:
    if named:
        raise ArgumentError("columns", "left out for a corpus without columns", dict(named))
    from trustnlp.data import synthetic

    corpus = synthetic.corpus(seed=streams.seed)
    placed: Iterator[Placed] = ((name, example) for name in _SPLITS for example in getattr(corpus, name))
    kept, count = reservoir.sample(placed, limit, streams.numpy("reservoir"))
    if count <= limit:
        return corpus
    train, valid, test = _by_split(kept)
    notes = (*corpus.notes, _sampled(limit, count, streams))
    return replace(corpus, train=train, valid=valid, test=test, notes=notes)


@dataclass
class _Tally:
    """What went past while a corpus was streamed."""

    texts: Counter[str] = field(default_factory=Counter)
    empty: int = 0

    def count_empty(self, *_: object) -> None:
        self.empty += 1


def _read(what: str | Path, limit: int, streams: Streams, named: Mapping[str, Column], skip_empty: bool) -> Corpus:
    name, record, layout = _located(what)
    _check_columns(layout, named)
    tally = _Tally()
    given = record.options if record else Options()
    leave_out = skip_empty or (record is not None and record.skip_empty)
    on_empty = tally.count_empty if leave_out else given.on_empty
    options = replace(given, columns={**given.columns, **named}, on_empty=on_empty)
    kept, count = reservoir.sample(_placed(layout, options, tally), limit, streams.numpy("reservoir"))
    splits, notes = _split(kept, streams)
    if count > limit:
        notes.insert(0, _sampled(limit, count, streams))
    if tally.empty:
        notes.append(f"{tally.empty:,} rows without text are left out")
    corpus = Corpus(
        name,
        *splits,
        licence=record.licence if record else "not stated",
        source=f"{record.citation}; {record.obtain}" if record else Path(what).name,
        notes=(*(record.notes if record else ()), *layout.notes, *notes, *_against(record, tally)),
    )
    _check_labels(corpus)
    return replace(corpus, notes=(*corpus.notes, *_observations(corpus)))


def _located(what: str | Path) -> tuple[str, registry.Record | None, Layout]:
    if isinstance(what, str) and what in registry.RECORDS:
        record, layout = registry.present(what)
        return what, record, layout
    path = Path(what)
    if not path.exists():
        raise registry.unknown(str(what))
    return path.absolute().stem, None, formats.find(path)


def _check_columns(layout: Layout, named: Mapping[str, Column]) -> None:
    if named and layout.format not in formats.WITH_COLUMNS:
        if "group" in named:
            rules = ", ".join(map(repr, groups.RULES))
            raise ArgumentError("group", f"one of {rules} for a corpus without columns", named["group"])
        raise ArgumentError("columns", f"left out for files of the format {layout.format!r}", dict(named))
    if "split" in named and layout.files[0][0] is not None:
        raise ArgumentError("split_column", "left out where each split has its own file", named["split"])


def _placed(layout: Layout, options: Options, tally: _Tally) -> Iterator[Placed]:
    for split, path in layout.files:
        before = tally.texts.total()
        for own, example in formats.READERS[layout.format](path, options):
            place = split or own
            tally.texts[place or "all"] += 1
            yield place, example
        if tally.texts.total() == before:
            raise MalformedCorpusError(path, None, "no text in this file", "it is empty, or has a header only")


def _split(kept: list[Placed], streams: Streams) -> tuple[Splits, list[str]]:
    if any(split is not None for split, _ in kept):
        return _by_split(kept), []
    tenth = len(kept) // 10
    order = streams.numpy("split").permutation(len(kept))
    named = dict.fromkeys(order[:tenth], "test") | dict.fromkeys(order[tenth : 2 * tenth], "valid")
    placed = [(named.get(place, "train"), example) for place, (_, example) in enumerate(kept)]
    return _by_split(placed), [f"it comes without splits: 80/10/10 at random by text (seed {streams.seed})"]


def _by_split(placed: Sequence[Placed]) -> Splits:
    train, valid, test = (tuple(example for split, example in placed if split == name) for name in _SPLITS)
    return train, valid, test


def _sampled(limit: int, count: int, streams: Streams) -> str:
    return f"a uniform sample of {limit:,} of {count:,} texts (seed {streams.seed})"


def _against(record: registry.Record | None, tally: _Tally) -> list[str]:
    if record is None or tally.texts.total() + tally.empty == sum(record.sizes.values()):
        return []
    found = ", ".join(f"{split} {count:,}" for split, count in tally.texts.items())
    published = ", ".join(f"{split} {count:,}" for split, count in record.sizes.items())
    return [f"sizes differ from those published: {found}, not {published}"]


def _check_labels(corpus: Corpus) -> None:
    splits = {name: getattr(corpus, name) for name in _SPLITS}
    for what in ("label", "tags", "answers", "target"):
        lacking = [name for name, split in splits.items() if any(getattr(each, what) is None for each in split)]
        if lacking and any(getattr(each, what) is not None for split in splits.values() for each in split):
            reason = f"corpus {corpus.name!r} has {what} for some texts and none for others (in {', '.join(lacking)})"
            raise CorpusError(reason, "leave out the texts without, or give them one")


def _observations(corpus: Corpus) -> Iterator[str]:
    labels, tags, texts = set(corpus.labels), set(corpus.tags), {example.text for example in corpus.train}
    for name in ("valid", "test"):
        split: tuple[Example, ...] = getattr(corpus, name)
        for what, known, found in (
            ("labels", labels, Counter(example.label for example in split if example.label is not None)),
            ("tags", tags, Counter(tag for example in split for tag in example.tags or ())),
        ):
            unseen = {value: count for value, count in found.items() if value not in known}
            if unseen:
                total = sum(unseen.values())
                yield f"{what} of {name} that train lacks, so cannot be learned: {len(unseen)}, in {total:,} places"
        again = sum(example.text in texts for example in split)
        if again:
            yield f"texts of {name} that are in train, too: {again:,} of {len(split):,}"
    if tags and not any(tag.startswith("B-") for tag in tags):
        yield "tags are one class per token, not BIO spans"
    if len(labels) == 1:
        yield "all texts have one label, so there is nothing to classify"
