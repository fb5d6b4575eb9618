"""BOLD (Dhamala et al. 2021, FAccT, 862-872): beginnings of Wikipedia sentences by group, and how they went on there.

prompts/gender_prompt.json    {group: {subject: [beginning, …], …}, …}
wikipedia/gender_wiki.json    the same, with the whole sentences
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trustnlp.data import json_lines
from trustnlp.data.records import filled
from trustnlp.errors import MalformedCorpusError


@dataclass(frozen=True)
class Prompt:
    """A text about someone or something of a group.

    Args:
        domain: such as "gender".
        group: such as "American_actors".
        subject: the article's title.
        text: the beginning of a sentence, without the space after it, empty in a few of the original ones; or the whole
            sentence.
    """

    domain: str
    group: str
    subject: str
    text: str


def read_bold(path: str | Path) -> tuple[Prompt, ...]:
    """The prompts of one domain's file, or of all `*_prompt.json` in a folder.

    Raises:
        CorpusError: no such file, or another structure.
    """
    return _read(Path(path), "_prompt")


def read_bold_continuations(path: str | Path) -> tuple[Prompt, ...]:
    """The sentences as they stand in Wikipedia, in the order of the prompts that they begin with.

    Args:
        path: one domain's file, or a folder of `*_wiki.json`.

    Raises:
        CorpusError: as `read_bold`.
    """
    return _read(Path(path), "_wiki")


def _read(path: Path, ending: str) -> tuple[Prompt, ...]:
    files = sorted(path.glob(f"*{ending}.json")) if path.is_dir() else [path]
    return filled(path, (prompt for file in files for prompt in _prompts(file, ending)), "texts")


def _prompts(path: Path, ending: str) -> Iterator[Prompt]:
    for group, subjects in _mapping(path, json_lines.whole(path), "the file").items():
        for subject, texts in _mapping(path, subjects, f"group {group!r}").items():
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                raise MalformedCorpusError(path, None, f"subject {subject!r} has no list of texts", "mend or remove it")
            for text in texts:
                yield Prompt(path.stem.removesuffix(ending), group, subject, text.rstrip())


def _mapping(path: Path, value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MalformedCorpusError(path, None, f"{where} is no JSON object", "give a file of BOLD")
    return value
