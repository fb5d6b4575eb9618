"""HateXplain (Mathew et al. 2021, AAAI, 14867-14875): posts labelled by three annotators, each naming whom they target.

dataset.json           {post id: {"annotators": [{"label": "normal", "annotator_id": 1, "target": [...]}, …],
                        "post_tokens": [...]}}
df_val_processed.csv   id, annotators as {'label': [1, 2, 1], 'annotator_id': [...], 'target': [[...], …]}, post_tokens
train.json             [[text, label], …], without annotators
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trustnlp.data import delimited, json_lines
from trustnlp.data.records import choice, filled, listed, need_columns, unique, words
from trustnlp.errors import MalformedCorpusError

LABELS = ("hatespeech", "normal", "offensive")
"""In the order of their codes."""

NOBODY = ("None", "Other")


@dataclass(frozen=True)
class Annotation:
    """One annotator's view of a post: label, and the groups that it targets (none if it targets nobody)."""

    annotator: str
    label: str
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Post:
    """A post; annotations are empty where only a gold label is known.

    Args:
        id: of the post; its place in the file where posts have none.
        text: tokens joined by spaces.
        label: of most annotators; None where all differ, which the source leaves out.
        annotations: of each annotator.
    """

    id: str
    text: str
    label: str | None
    annotations: tuple[Annotation, ...]

    def targets(self, votes: int = 2) -> tuple[str, ...]:
        """The groups that at least `votes` annotators say are targeted, sorted."""
        counts = Counter(group for each in self.annotations for group in set(each.targets))
        return tuple(sorted(group for group, number in counts.items() if number >= votes))


def read_hatexplain(path: str | Path) -> tuple[Post, ...]:
    """The posts of a file in one of the three forms above, in its order.

    Raises:
        CorpusError: another structure, an unknown label, or two posts of one id.
    """
    path = Path(path)
    if path.suffix.lower() == ".csv":
        posts = filled(path, _table(path), "posts")
    else:
        whole = json_lines.whole(path)
        posts = filled(path, _whole(path, whole) if isinstance(whole, dict) else _labelled(path), "posts")
    unique(path, (post.id for post in posts))
    return posts


def _whole(path: Path, posts: dict[str, Any]) -> Iterator[Post]:
    for name, post in posts.items():
        where = f"post {name!r}"
        notes = tuple(
            Annotation(
                str(each.get("annotator_id")) if isinstance(each, dict) else "",
                choice(path, None, each, "label", LABELS, where),
                _targets(listed(path, None, each, "target", where)),
            )
            for each in listed(path, None, post, "annotators", where)
        )
        yield _post(path, None, name, listed(path, None, post, "post_tokens", where), notes)


def _table(path: Path) -> Iterator[Post]:
    for line, row in delimited.rows(path):
        need_columns(path, line, row, ("id", "annotators", "post_tokens"))
        said = _literal(path, line, words(path, line, row, "annotators"))
        columns = [listed(path, line, said, name, "'annotators'") for name in ("annotator_id", "label", "target")]
        if len({len(column) for column in columns}) != 1:
            raise MalformedCorpusError(
                path, line, "lists of several lengths in 'annotators'", "one entry per annotator"
            )
        notes = tuple(
            Annotation(str(who), _coded(path, line, code), _targets(targets))
            for who, code, targets in zip(*columns, strict=True)
        )
        tokens = _literal(path, line, words(path, line, row, "post_tokens"))
        yield _post(path, line, words(path, line, row, "id"), tokens, notes)


def _labelled(path: Path) -> Iterator[Post]:
    for place, row in json_lines.array_rows(path):
        where = f"element {place}"
        text, label = words(path, None, row, 0, where), choice(path, None, row, 1, LABELS, where)
        yield Post(str(place), text, label, ())


def _post(path: Path, line: int | None, name: str, tokens: Any, notes: tuple[Annotation, ...]) -> Post:
    if not isinstance(tokens, list) or not tokens or not all(isinstance(token, str) for token in tokens):
        raise MalformedCorpusError(path, line, f"post {name!r} has no list of tokens", "mend or remove it")
    votes = Counter(each.label for each in notes).most_common(1)
    label = votes[0][0] if votes and 2 * votes[0][1] > len(notes) else None
    return Post(name, " ".join(tokens), label, notes)


def _targets(groups: list[str]) -> tuple[str, ...]:
    return tuple(group for group in groups if group not in NOBODY)


def _coded(path: Path, line: int, code: Any) -> str:
    if isinstance(code, int) and 0 <= code < len(LABELS):
        return LABELS[code]
    return choice(path, line, {"label": code}, "label", LABELS)


def _literal(path: Path, line: int, text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        raise MalformedCorpusError(path, line, "a list or mapping that cannot be read", "write it as JSON") from None
