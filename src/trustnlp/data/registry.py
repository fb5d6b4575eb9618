"""The public corpora that can be named: where their original files lie below `$TRUSTNLP_DATA`, sizes and terms.

Nothing is downloaded and nothing of them is part of this package; `obtain` says where the originals are.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path

from trustnlp.data import parallel, slot_files
from trustnlp.data.formats import Layout
from trustnlp.data.tabular import Options
from trustnlp.errors import CorpusNotFoundError

VARIABLE = "TRUSTNLP_DATA"
SYNTHETIC = "synthetic"
HOW_TO_SET = f"set {VARIABLE} to the folder that holds the corpora: export {VARIABLE}=/path/to/corpora"


class Task(StrEnum):
    """What a model is trained to do on a corpus."""

    SLOTS = "intent + slots"
    CLASSIFICATION = "classification"
    TAGGING = "tagging"
    LANGUAGE = "language model"
    SPAN_QA = "span question answering"
    SEQ2SEQ = "sequence to sequence"


@dataclass(frozen=True)
class Record:
    """One public corpus.

    Args:
        name: what it is asked for by.
        task: what it is for.
        format: a key of `formats.READERS`.
        files: split (None where we split it) and path or pattern below `$TRUSTNLP_DATA/name`.
        sizes: texts by split as published, or under 'all' where we split it.
        licence: the terms of the original.
        citation: the paper to cite.
        obtain: where the original files come from, and what to do with them.
        options: how its rows are read.
        skip_empty: whether the original is known to hold rows without text, which are left out.
        notes: what a reader of a report should know.
    """

    name: str
    task: Task
    format: str
    files: tuple[tuple[str | None, str], ...]
    sizes: Mapping[str, int]
    licence: str
    citation: str
    obtain: str
    options: Options = field(default_factory=Options)
    skip_empty: bool = False
    notes: tuple[str, ...] = ()

    def layout(self, root: Path) -> Layout:
        """Its files below `root`, patterns spelled out."""
        folder = root / self.name
        files = [(split, path) for split, pattern in self.files for path in sorted(folder.glob(pattern))]
        return Layout(self.format, tuple(files))

    @property
    def needed(self) -> tuple[str, ...]:
        """The files, or patterns of files, that it needs below its own folder."""
        names = [name for _, name in self.files]
        if self.format == "seq":
            return tuple(f"{name}/{part}" for name in names for part in slot_files.FILES)
        if self.format == _EN_DE:
            return tuple(file for name in names for file in (name, str(parallel.partner(Path(name), "de"))))
        return tuple(names)

    def missing(self, root: Path) -> tuple[str, ...]:
        """The files, or patterns that match no file, that it needs and lacks below `root`."""
        return tuple(f"{self.name}/{name}" for name in self.needed if not any((root / self.name).glob(name)))

    def bytes(self, root: Path) -> int:
        """How large those of its files are that are there."""
        return sum(path.stat().st_size for name in self.needed for path in (root / self.name).glob(name))


def _splits(train: str, valid: str | None, test: str) -> tuple[tuple[str | None, str], ...]:
    pairs = (("train", train), ("valid", valid), ("test", test))
    return tuple((split, name) for split, name in pairs if name is not None)


def _sizes(train: int, valid: int | None, test: int) -> dict[str, int]:
    sizes = {"train": train, "valid": valid, "test": test}
    return {split: size for split, size in sizes.items() if size is not None}


_SEQ = _splits("train", "valid", "test")
_EN_DE = "parallel en-de"
_SLOT_GATED = "https://github.com/MiuLab/SlotGated-SLU, folder data/"

RECORDS: Mapping[str, Record] = {
    record.name: record
    for record in (
        Record(
            "snips",
            Task.SLOTS,
            "seq",
            _SEQ,
            _sizes(13_084, 700, 700),
            "CC0-1.0",
            "Coucke et al. 2018, Snips Voice Platform, arXiv:1805.10190; split of Goo et al. 2018",
            _SLOT_GATED + "snips",
        ),
        Record(
            "atis",
            Task.SLOTS,
            "seq",
            _SEQ,
            _sizes(4_478, 500, 893),
            "third-party terms (LDC)",
            "Hemphill et al. 1990, The ATIS spoken language systems pilot corpus; split of Goo et al. 2018",
            _SLOT_GATED + "atis",
        ),
        Record(
            "hwu64",
            Task.SLOTS,
            "slot annotations",
            _splits("KFold_1/trainset/*.csv", None, "KFold_1/testset/csv/*.csv"),
            _sizes(9_960, None, 1_076),
            "CC BY 4.0",
            "Liu et al. 2019, Benchmarking natural language understanding services, arXiv:1903.05566",
            "https://github.com/xliuhw/NLU-Evaluation-Data, the folder KFold_1 of the cross-validation",
        ),
        Record(
            "banking77",
            Task.CLASSIFICATION,
            "csv",
            _splits("train.csv", None, "test.csv"),
            _sizes(10_003, None, 3_080),
            "CC BY 4.0",
            "Casanueva et al. 2020, Efficient intent detection with dual sentence encoders, arXiv:2003.04807",
            "https://github.com/PolyAI-LDN/task-specific-datasets, folder banking_data",
            Options({"text": "text", "label": "category"}),
        ),
        Record(
            "news20",
            Task.CLASSIFICATION,
            "jsonl",
            _splits("train.jsonl", None, "test.jsonl"),
            _sizes(11_315, None, 7_532),
            "CC BY 4.0 (UCI)",
            "Lang 1995, NewsWeeder; the split by date of Rennie",
            "http://qwone.com/~jason/20Newsgroups (20news-bydate), as JSON lines of text, label and hashed user "
            "without headers, quotes and signatures",
            skip_empty=True,
        ),
        Record(
            "amazon-instruments",
            Task.CLASSIFICATION,
            "jsonl",
            ((None, "reviews.jsonl"),),
            {"all": 10_254},
            "none (research use)",
            "McAuley et al. 2015, Image-based recommendations on styles and substitutes, arXiv:1506.04757",
            "https://jmcauley.ucsd.edu/data/amazon (5-core Musical Instruments), as JSON lines of text, label (stars), "
            "hashed user and time",
        ),
        Record(
            "sst2",
            Task.CLASSIFICATION,
            "csv",
            _splits("train.tsv", "dev.tsv", "test.tsv"),
            _sizes(6_920, 872, 1_821),
            "none (research use)",
            "Socher et al. 2013, Recursive deep models for semantic compositionality over a sentiment treebank",
            "https://github.com/clairett/pytorch-sentiment-classification, folder data/SST2",
            Options({"text": 0, "label": 1}, {"0": "negative", "1": "positive"}),
        ),
        Record(
            "hatexplain",
            Task.CLASSIFICATION,
            "json",
            _splits("labels/train.json", "labels/val.json", "labels/test.json"),
            _sizes(15_383, 1_922, 1_924),
            "MIT",
            "Mathew et al. 2021, HateXplain, arXiv:2012.10289",
            "https://github.com/ChrisIsKing/Rule-By-Example, folder data/hatexplain (text and majority label)",
            Options({"text": 0, "label": 1}),
        ),
        Record(
            "davidson-hate",
            Task.CLASSIFICATION,
            "csv",
            ((None, "labeled_data.csv"),),
            {"all": 24_783},
            "MIT",
            "Davidson et al. 2017, Automated hate speech detection and the problem of offensive language, "
            "arXiv:1703.04009",
            "https://github.com/t-davidson/hate-speech-and-offensive-language, folder data",
            Options({"text": "tweet", "label": "class"}, {"0": "hate speech", "1": "offensive", "2": "neither"}),
        ),
        Record(
            "bios-sample",
            Task.CLASSIFICATION,
            "csv",
            ((None, "accountant_complete.csv"),),
            {"all": 1_000},
            "none stated",
            "De-Arteaga et al. 2019, Bias in Bios, arXiv:1901.09451",
            "https://github.com/Shilpi261985/P2_BiasMitigation_SyntheticData, folder csvs/Bios_samples",
            Options({"text": "hard_text", "label": "profession", "group": "gender"}),
            notes=("a sample of one profession; groups are gender",),
        ),
        Record(
            "wnut17",
            Task.TAGGING,
            "conll",
            _splits("wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated"),
            _sizes(3_394, 1_009, 1_287),
            "CC BY 4.0",
            "Derczynski et al. 2017, Results of the WNUT2017 shared task on novel and emerging entity recognition",
            "https://github.com/leondz/emerging_entities_17",
        ),
        Record(
            "ud-ewt",
            Task.TAGGING,
            "conllu by genre",
            _splits("en_ewt-ud-train.conllu", "en_ewt-ud-dev.conllu", "en_ewt-ud-test.conllu"),
            _sizes(12_544, 2_001, 2_077),
            "CC BY-SA 4.0",
            "Silveira et al. 2014, A gold standard dependency corpus for English",
            "https://github.com/UniversalDependencies/UD_English-EWT",
            notes=("users are documents, groups are their genres",),
        ),
        Record(
            "wikitext-2",
            Task.LANGUAGE,
            "text",
            _splits("train.txt", "valid.txt", "test.txt"),
            _sizes(23_767, 2_461, 2_891),
            "CC BY-SA 3.0",
            "Merity et al. 2016, Pointer sentinel mixture models, arXiv:1609.07843",
            "https://github.com/pytorch/examples, folder word_language_model/data/wikitext-2",
        ),
        Record(
            "novels",
            Task.LANGUAGE,
            "text by writer",
            ((None, "*.txt"),),
            {"all": 183_433},
            "mostly out of copyright",
            "100 English novels, Computational Stylistics Group",
            "https://github.com/computationalstylistics/100_english_novels, folder corpus",
            notes=("users are authors, times are years of publication, a line is a paragraph or a part of one",),
        ),
        Record(
            "shakespeare-plays",
            Task.LANGUAGE,
            "tei",
            ((None, "tei/*.xml"),),
            {"all": 31_066},
            "CC BY-NC 3.0",
            "Folger Digital Texts, as marked up by Fischer et al. 2019, Programmable corpora: introducing DraCor",
            "https://github.com/dracor-org/shakedracor, folder tei",
            skip_empty=True,
            notes=(
                "a text is a speech, users are the speakers of a play, times are the years it was written in",
                "groups are the speakers' gender; 'unknown' where it is not told, misspelt or mixed",
            ),
        ),
        Record(
            "squad",
            Task.SPAN_QA,
            "squad",
            _splits("train-v1.1.json", None, "dev-v1.1.json"),
            _sizes(87_599, None, 10_570),
            "CC BY-SA 4.0",
            "Rajpurkar et al. 2016, SQuAD: 100,000+ questions for machine comprehension of text, arXiv:1606.05250",
            "https://rajpurkar.github.io/SQuAD-explorer, SQuAD 1.1",
            notes=("users are articles; the published development set, which has several answers each, is test",),
        ),
        Record(
            "multi30k",
            Task.SEQ2SEQ,
            _EN_DE,
            _splits("train.lc.norm.tok.en", "val.lc.norm.tok.en", "test_2016_flickr.lc.norm.tok.en"),
            _sizes(29_000, 1_014, 1_000),
            "CC BY-NC-SA 4.0",
            "Elliott et al. 2016, Multi30K: multilingual English-German image descriptions, arXiv:1605.00459",
            "https://github.com/multi30k/dataset, folder data/task1/tok",
            notes=("English to German, lower-cased and tokenised as published",),
        ),
    )
}


class State(StrEnum):
    """Whether a corpus can be read."""

    BUILT_IN = "built in"
    PRESENT = "present"
    INCOMPLETE = "incomplete"
    ABSENT = "absent"


@dataclass(frozen=True)
class Status:
    """What is there of a corpus: its state, the files that are missing and the bytes of those that are there."""

    state: State
    missing: tuple[str, ...] = ()
    bytes: int = 0


def root() -> Path | None:
    """The folder of corpora, or None where `TRUSTNLP_DATA` is not set.

    Raises:
        CorpusNotFoundError: the variable names something that is no folder.
    """
    value = os.environ.get(VARIABLE, "")
    if value and not Path(value).is_dir():
        raise CorpusNotFoundError(f"{VARIABLE} is {value!r}, which is no folder", HOW_TO_SET)
    return Path(value) if value else None


def status(name: str) -> Status:
    """What is there of the registered corpus `name`.

    Raises:
        CorpusNotFoundError: no corpus is registered by that name.
    """
    if name == SYNTHETIC:
        return Status(State.BUILT_IN)
    folder, record = root(), _record(name)
    if folder is None or not (folder / name).is_dir():
        return Status(State.ABSENT, record.missing(folder or Path()))
    missing = record.missing(folder)
    return Status(State.INCOMPLETE if missing else State.PRESENT, missing, record.bytes(folder))


def present(name: str) -> tuple[Record, Layout]:
    """The record of `name` and its files.

    Raises:
        CorpusNotFoundError: it is not registered, or files are missing; the message says which, where they were
            looked for and where the original is.
    """
    record, folder = _record(name), root()
    if folder is None:
        raise CorpusNotFoundError(f"corpus {name!r} cannot be looked for: {VARIABLE} is not set", HOW_TO_SET)
    missing = record.missing(folder)
    if missing:
        listed = ", ".join(missing[:6]) + (f" and {len(missing) - 6} more" if len(missing) > 6 else "")
        reason = f"corpus {name!r} is not complete in {folder} ({VARIABLE}): missing {listed}"
        raise CorpusNotFoundError(reason, f"the original is at {record.obtain}")
    return record, record.layout(folder)


def unknown(what: str) -> CorpusNotFoundError:
    """The error for `what`, which is neither a registered name nor a path."""
    near = get_close_matches(what.lower(), (*RECORDS, SYNTHETIC), n=2, cutoff=0.6)
    where = os.environ.get(VARIABLE)
    place = f"{VARIABLE} is {where}" if where else f"{VARIABLE} is not set"
    reason = f"no corpus {what!r}: it is no registered name, and there is no {Path(what).absolute()} ({place})"
    meant = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    return CorpusNotFoundError(reason, f"{meant}`trustnlp data list` shows the names")


def _record(name: str) -> Record:
    if name not in RECORDS:
        raise unknown(name)
    return RECORDS[name]
