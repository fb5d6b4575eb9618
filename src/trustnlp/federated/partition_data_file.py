"""FedNLP's data files: a corpus in HDF5, with the numbers by which partition files call its examples.

    attributes          JSON: train_index_list, test_index_list, label_vocab, task_type
    X/<i>  Y/<i>        text and label, or words and tags, or text and target; text alone for language models
    context_X, question_X, Y: text, question, and where the answer starts and ends

Files are data and nothing else: no pickle, JSON for the attributes, no link to another file, bounded sizes.
Source: Lin et al. 2022, FedNLP, arXiv:2104.08815, and its code, github.com/FedML-AI/FedNLP, data/raw_data_loader.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from trustnlp import files
from trustnlp.data import bio
from trustnlp.data.corpus import Answer, Corpus, Example
from trustnlp.data.registry import Task
from trustnlp.errors import ArgumentError
from trustnlp.federated.partition import Indices
from trustnlp.federated.partition_hdf5 import Hdf5, reading, writing

_TASKS = {
    "text_classification": Task.CLASSIFICATION,
    "seq_tagging": Task.TAGGING,
    "span_extraction": Task.SPAN_QA,
    "seq2seq": Task.SEQ2SEQ,
    "lm": Task.LANGUAGE,
}
_NAMES = {task: name for name, task in _TASKS.items()}


@dataclass(frozen=True, eq=False)
class DataFile:
    """A corpus and the numbers that partition files call its examples by.

    Args:
        task: what the corpus is for.
        corpus: its train and test split; where the file has no lists of them, all is in `train`.
        train, test: (N,) the number of each example of the split.
        left_out: numbers of texts that hold nothing but white space, which no split has.
    """

    task: Task
    corpus: Corpus
    train: Indices
    test: Indices
    left_out: frozenset[int]

    @cached_property
    def by_number(self) -> dict[int, Example]:
        """The examples of both splits by their number."""
        numbers = np.concatenate([self.train, self.test]).tolist()
        return dict(zip(numbers, (*self.corpus.train, *self.corpus.test), strict=True))


def read(path: str | Path) -> DataFile:
    """The corpus of a data file, whatever its task.

    Raises:
        MissingExtraError: the extra `fednlp` is not installed.
        CorpusNotFoundError: there is no such file.
        MalformedCorpusError: it is not HDF5, breaks the format, or names an example twice or one that is not there.
    """
    with reading(path) as file:
        attributes = file.json("attributes")
        task = _task(file, attributes)
        numbers = file.numbers("context_X" if task is Task.SPAN_QA else "X")
        found = {number: _example(file, task, number) for number in numbers}
        train, test = _splits(file, attributes, numbers)
    left_out = frozenset(number for number, example in found.items() if example is None)
    kept = [[number for number in split if number not in left_out] for split in (train, test)]
    splits = [tuple(example for number in split if (example := found[number])) for split in kept]
    notes = (f"{len(left_out):,} texts without words are left out",) if left_out else ()
    corpus = Corpus(Path(path).stem, splits[0], (), splits[1], source=Path(path).name, notes=notes)
    numbers_kept = [np.array(split, dtype=np.int64) for split in kept]
    return DataFile(task, corpus, numbers_kept[0], numbers_kept[1], left_out)


def write(path: str | Path, corpus: Corpus, task: Task) -> DataFile:
    """Writes the train and test split as FedNLP reads them, whole or not at all; the format has no validation split.

    Args:
        path: of the file.
        corpus: of examples that have what the task needs; of several answers to a question the first is kept.
        task: any but `intent + slots`, which the format cannot hold.

    Raises:
        MissingExtraError: the extra `fednlp` is not installed.
        ArgumentError: a task the format cannot hold, or an example that lacks what the task needs.
    """
    if task not in _NAMES:
        raise ArgumentError("task", "one of " + ", ".join(repr(str(task)) for task in _NAMES), str(task))
    examples = (*corpus.train, *corpus.test)
    train, test = np.arange(len(corpus.train)), np.arange(len(corpus.train), len(examples))
    attributes: dict[str, Any] = {
        "task_type": _NAMES[task],
        "train_index_list": train.tolist(),
        "test_index_list": test.tolist(),
        "index_list": list(range(len(examples))),
    }
    answers = [name for example in examples for name in _vocabulary(example, task)]
    if answers:
        vocabulary = {name: number for number, name in enumerate(sorted(set(answers)))}
        attributes |= {"label_vocab": vocabulary, "num_labels": len(vocabulary)}
    with files.whole(path) as part, writing(part) as file:
        file["attributes"] = json.dumps(attributes)
        for number, example in enumerate(examples):
            for field, value in _stored(example, task, number).items():
                file[f"{field}/{number}"] = value
    return DataFile(task, corpus, train, test, frozenset())


def _task(file: Hdf5, attributes: dict[str, Any]) -> Task:
    """The task by its name or, where FedNLP did not write one, by which fields there are."""
    named, fields = attributes.get("task_type"), file.names("")
    if isinstance(named, str) and named in _TASKS:
        return _TASKS[named]
    if "context_X" in fields:
        return Task.SPAN_QA
    if "X" not in fields:
        raise file.broken("it holds no texts ('X' or 'context_X')", "give a data file of FedNLP, not a partition file")
    if "Y" not in fields:
        return Task.LANGUAGE
    first = file.numbers("Y")[:1]
    if first and file.is_list(f"Y/{first[0]}"):
        return Task.TAGGING
    return Task.CLASSIFICATION if attributes.get("label_vocab") else Task.SEQ2SEQ


def _example(file: Hdf5, task: Task, number: int) -> Example | None:
    """The example of that number, or None where its text has no words."""
    if task is Task.TAGGING:
        return _tagged(file, number)
    place = f"context_X/{number}" if task is Task.SPAN_QA else f"X/{number}"
    text = " ".join(file.words(place)) if task is Task.LANGUAGE and file.is_list(place) else file.text(place)
    if not text.strip():
        return None
    try:
        match task:
            case Task.CLASSIFICATION:
                return Example(text, file.text(f"Y/{number}"))
            case Task.SEQ2SEQ:
                return Example(text, target=file.text(f"Y/{number}"))
            case Task.SPAN_QA:
                start, end = file.integers(f"Y/{number}").tolist()
                return Example(
                    text, question=file.text(f"question_X/{number}"), answers=(Answer(start, text[start:end]),)
                )
            case _:
                return Example(text)
    except ValueError as error:  # ArgumentError is one
        raise file.broken(f"example {number}: {error}") from None


def _tagged(file: Hdf5, number: int) -> Example | None:
    words, tags = file.words(f"X/{number}"), file.words(f"Y/{number}")
    if len(words) != len(tags) or any(word.split() != [word] for word in words) or not all(map(bio.is_tag, tags)):
        raise file.broken(f"example {number}: not one BIO tag for each word, or a word with white space in it")
    return Example(" ".join(words), tags=tuple(tags)) if words else None


def _splits(file: Hdf5, attributes: dict[str, Any], numbers: Sequence[int]) -> tuple[list[int], list[int]]:
    """The numbers of the train and of the test split; all are of the train split where the file has no lists."""
    if "train_index_list" not in attributes and "test_index_list" not in attributes:
        return list(numbers), []
    train, test = (attributes.get(f"{split}_index_list") for split in ("train", "test"))
    if not isinstance(train, list) or not isinstance(test, list):
        raise file.broken("its train_index_list and test_index_list are not two lists")
    if not all(type(number) is int for number in (*train, *test)) or sorted(train + test) != list(numbers):
        raise file.broken("its train_index_list and test_index_list do not hold every example exactly once")
    return train, test


def _stored(example: Example, task: Task, number: int) -> dict[str, Any]:
    """The fields of an example and their values, as h5py stores them."""
    start, answer = (example.answers or ((0, ""),))[0]
    question = {"context_X": example.text, "question_X": example.question, "question_ids": str(number)}
    stored: dict[Task, tuple[Any, dict[str, Any]]] = {
        Task.CLASSIFICATION: (example.label, {"X": example.text, "Y": example.label}),
        Task.TAGGING: (example.tags, {"X": example.tokens, "Y": example.tags}),
        Task.SEQ2SEQ: (example.target, {"X": example.text, "Y": example.target}),
        Task.LANGUAGE: (example.text, {"X": example.text}),
        Task.SPAN_QA: (answer, question | {"Y": (start, start + len(answer))}),
    }
    needed, fields = stored[task]
    if not needed:
        raise ArgumentError("corpus", f"of examples for the task {str(task)!r}", f"one without, number {number}")
    return fields


def _vocabulary(example: Example, task: Task) -> Iterable[str]:
    if task is Task.CLASSIFICATION and example.label is not None:
        return (example.label,)
    return (example.tags or ()) if task is Task.TAGGING else ()
