"""The registry against planted folders and, where TRUSTNLP_DATA is set, against the real corpora."""

import os
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest

from trustnlp.data import formats, load, registry
from trustnlp.data.corpus import Corpus
from trustnlp.data.registry import RECORDS, State
from trustnlp.errors import CorpusNotFoundError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(registry.VARIABLE, str(tmp_path))
    return tmp_path


def plant(root: Path, name: str) -> None:
    for missing in RECORDS[name].missing(root):
        path = root / missing.replace("*", "any")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x\n")


@pytest.mark.parametrize("name", RECORDS)
def test_a_corpus_is_absent_then_incomplete_then_present(here: Path, name: str) -> None:
    assert registry.status(name).state is State.ABSENT
    (here / name).mkdir()
    lacking = registry.status(name)
    assert lacking.state is State.INCOMPLETE
    assert lacking.missing
    plant(here, name)
    whole = registry.status(name)
    assert (whole.state, whole.missing) == (State.PRESENT, ())
    assert whole.bytes >= 2


@pytest.mark.parametrize("name", RECORDS)
def test_records_are_whole(name: str) -> None:
    record = RECORDS[name]
    assert record.name == name
    assert record.format in formats.READERS
    assert record.licence
    assert record.citation
    assert "https://" in record.obtain or "http://" in record.obtain
    assert set(record.sizes) == {split or "all" for split, _ in record.files}


def test_missing_files_are_named_with_their_origin(here: Path) -> None:
    plant(here, "snips")
    (here / "snips/valid/seq.out").unlink()
    with pytest.raises(CorpusNotFoundError, match=r"missing snips/valid/seq.out; the original is at https://github"):
        registry.present("snips")


def test_without_the_variable_it_is_said_how_to_set_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(registry.VARIABLE, raising=False)
    assert registry.root() is None
    assert registry.status("atis").state is State.ABSENT
    with pytest.raises(CorpusNotFoundError, match=r"TRUSTNLP_DATA is not set; set TRUSTNLP_DATA to the folder"):
        registry.present("atis")


def test_a_variable_that_is_no_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(registry.VARIABLE, str(tmp_path / "gone"))
    with pytest.raises(CorpusNotFoundError, match=r"gone', which is no folder"):
        registry.status("atis")


def test_a_misspelt_name_says_where_it_looked_and_what_is_near(here: Path) -> None:
    with pytest.raises(CorpusNotFoundError, match=rf"no corpus 'snisp'.*{here}.*did you mean 'snips'"):
        registry.status("snisp")
    assert "did you mean" not in str(registry.unknown("nothing-like-it"))


def test_the_synthetic_corpus_is_built_in() -> None:
    assert registry.status(registry.SYNTHETIC).state is State.BUILT_IN


# Published sizes: train, valid, test, labels of all splits, tags of all splits, users, groups.
# 15 posts of news20 are empty without headers and quotes; corpora that we split have a tenth in valid and in test.
PUBLISHED = {
    "snips": (13_084, 700, 700, 7, 72, 0, 0),
    "atis": (4_478, 500, 893, 26, 127, 0, 0),
    "hwu64": (9_960, 0, 1_076, 64, None, 0, 0),
    "banking77": (10_003, 0, 3_080, 77, 0, 0, 0),
    "news20": (11_315 - 15, 0, 7_532, 20, 0, None, 0),
    "amazon-instruments": (8_204, 1_025, 1_025, 5, 0, 1_429, 0),
    "sst2": (6_920, 872, 1_821, 2, 0, 0, 0),
    "hatexplain": (15_383, 1_922, 1_924, 3, 0, 0, 0),
    "davidson-hate": (24_783 - 2 * 2_478, 2_478, 2_478, 3, 0, 0, 0),
    "bios-sample": (800, 100, 100, 1, 0, 0, 2),
    "wnut17": (3_394, 1_009, 1_287, 0, 13, 0, 0),
    "ud-ewt": (12_544, 2_001, 2_077, 0, 17, 540 + 318 + 316, 5),
    "wikitext-2": (23_767, 2_461, 2_891, 0, 0, 0, 0),
    "novels": (183_433 - 2 * 18_343, 18_343, 18_343, 0, 0, 34, 0),
    "shakespeare-plays": (31_064 - 2 * 3_106, 3_106, 3_106, 0, 0, 1_513, 3),
    "squad": (87_599, 0, 10_570, 0, 0, 442 + 48, 0),
    "multi30k": (29_000, 1_014, 1_000, 0, 0, 0, 0),
}


@cache
def real(name: str) -> Corpus:
    if not os.environ.get(registry.VARIABLE):
        pytest.skip("TRUSTNLP_DATA is not set, so the real corpora are not tested")
    if registry.status(name).state is State.ABSENT:
        pytest.skip(f"{name} is not in TRUSTNLP_DATA")
    return load(name)


def test_every_record_has_its_published_figures() -> None:
    assert set(PUBLISHED) == set(RECORDS)


@pytest.mark.parametrize("name", RECORDS)
def test_real_corpora_have_their_published_sizes(name: str) -> None:
    corpus = real(name)
    if name == "squad" and len(corpus.train) < 87_599:
        pytest.skip(f"only {len(corpus.train):,} of 87,599 training questions of SQuAD are in TRUSTNLP_DATA")
    train, valid, test, labels, tags, users, groups = PUBLISHED[name]
    texts = (*corpus.train, *corpus.valid, *corpus.test)
    assert (len(corpus.train), len(corpus.valid), len(corpus.test)) == (train, valid, test)
    assert len({example.label for example in texts if example.label}) == labels
    assert tags is None or len({tag for example in texts for tag in example.tags or ()}) == tags
    assert users is None or len({example.user for example in texts if example.user}) == users
    assert len(corpus.groups) == groups
    assert not any("differ" in note for note in corpus.notes)


def test_real_wikitext_has_its_published_tokens() -> None:
    tokens = {
        name: sum(len(e.tokens) for e in getattr(real("wikitext-2"), name)) for name in ("train", "valid", "test")
    }
    line_ends = {"train": 36_718, "valid": 3_760, "test": 4_358}  # one <eos> per line, blank ones too
    with_ends = {name: count + line_ends[name] for name, count in tokens.items()}
    assert with_ends == {"train": 2_088_628, "valid": 217_646, "test": 245_569}


def test_real_news20_notes_its_empty_posts() -> None:
    assert "15 rows without text are left out" in real("news20").notes
    users = {e.user for split in (real("news20").train, real("news20").test) for e in split}
    assert len(users) > 8_000


def test_real_atis_notes_what_training_lacks() -> None:
    assert "labels of test that train lacks, so cannot be learned: 4, in 5 places" in real("atis").notes


def test_real_hwu64_texts_are_those_beside_their_annotation() -> None:
    from trustnlp.data import delimited

    corpus = real("hwu64")
    root = registry.root()
    assert root is not None
    paths = sorted((root / "hwu64/KFold_1/trainset").glob("*.csv"))
    plain = [" ".join(row["answer_from_anno"].split()) for path in paths for _, row in delimited.rows(path)]
    assert [" ".join(example.tokens) for example in corpus.train] == plain


def test_real_bios_groups_are_genders() -> None:
    bios = real("bios-sample")
    groups = [example.group for split in (bios.train, bios.valid, bios.test) for example in split]
    assert (groups.count("Male"), groups.count("Female")) == (634, 366)


def test_real_squad_answers_are_at_their_places() -> None:
    corpus = real("squad")
    assert (len(corpus.test), len({example.user for example in corpus.test})) == (10_570, 48)
    assert sum(len(example.answers or ()) for example in corpus.test) == 34_726
    assert all(len(example.answers or ()) >= 1 for example in corpus.train)
    missing = 87_599 - len(corpus.train)
    assert any("differ from those published" in note for note in corpus.notes) == (missing > 0)
    assert {example.user for example in corpus.train}.isdisjoint(example.user for example in corpus.test)


def test_real_multi30k_lines_belong_together() -> None:
    first = real("multi30k").train[0]
    assert first.text == "two young , white males are outside near many bushes ."
    assert first.target == "zwei junge weiße männer sind im freien in der nähe vieler büsche ."


def test_real_plays_are_spoken_by_their_people() -> None:
    corpus = real("shakespeare-plays")
    assert "2 rows without text are left out" in corpus.notes
    speeches = [example for split in (corpus.train, corpus.valid, corpus.test) for example in split]
    assert len({(example.user or "").split("/")[0] for example in speeches}) == 37
    mine = [example for example in speeches if example.user == "a-midsummer-nights-dream/Hippolyta_MND"]
    assert {(example.group, example.time) for example in mine} == {
        ("female", datetime(1595, 1, 1, tzinfo=UTC).timestamp())
    }
    assert "Who’s there?" in {example.text for example in speeches if example.user == "hamlet/Barnardo_Ham"}


def test_real_texts_without_splits_are_split_once_each() -> None:
    bios = real("bios-sample")
    texts = [example.text for split in (bios.train, bios.valid, bios.test) for example in split]
    assert len(texts) == 1_000
    assert load("bios-sample").digest == bios.digest
    assert load("bios-sample", seed=1).digest != bios.digest
