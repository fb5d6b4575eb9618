import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from trustnlp.data import load, registry
from trustnlp.data.corpus import Example
from trustnlp.errors import ArgumentError, CorpusError, CorpusNotFoundError, MalformedCorpusError


def written(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def table(path: Path, rows: int) -> Path:
    return written(path, "text,label\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(rows)))


def test_a_single_file_is_split_at_random_and_says_so(tmp_path: Path) -> None:
    corpus = load(table(tmp_path / "mine.csv", 100))
    assert (corpus.name, corpus.source, corpus.licence) == ("mine", "mine.csv", "not stated")
    assert (len(corpus.train), len(corpus.valid), len(corpus.test)) == (80, 10, 10)
    texts = {example.text for split in (corpus.train, corpus.valid, corpus.test) for example in split}
    assert texts == {f"text {i}" for i in range(100)}
    assert corpus.notes == ("it comes without splits: 80/10/10 at random by text (seed 0)",)
    places = [int(example.text.split()[1]) for example in corpus.train]
    assert places == sorted(places)


def test_same_seed_same_corpus(tmp_path: Path) -> None:
    path = table(tmp_path / "mine.csv", 100)
    assert load(path).digest == load(str(path)).digest
    assert load(path, limit=50, seed=3).digest == load(path, limit=50, seed=3).digest
    assert load(path, limit=50, seed=3).digest != load(path, limit=50, seed=4).digest


def test_files_named_by_split_are_the_splits(tmp_path: Path) -> None:
    for name, text in (("train", "a"), ("dev", "b"), ("test", "c")):
        written(tmp_path / f"{name}.jsonl", json.dumps({"text": text, "label": "x"}) + "\n")
    corpus = load(tmp_path)
    assert [split[0].text for split in (corpus.train, corpus.valid, corpus.test)] == ["a", "b", "c"]


def test_a_column_names_the_splits(tmp_path: Path) -> None:
    path = written(tmp_path / "mine.csv", "text,part\na,train\nb,TEST\nc,dev\nd,train\n")
    corpus = load(path, split_column="part")
    assert [[e.text for e in split] for split in (corpus.train, corpus.valid, corpus.test)] == [
        ["a", "d"],
        ["c"],
        ["b"],
    ]


def test_beyond_the_limit_a_sample_is_kept_and_noted(tmp_path: Path) -> None:
    for name in ("train", "test"):
        table(tmp_path / f"{name}.csv", 500)
    corpus = load(tmp_path, limit=100)
    assert len(corpus.train) + len(corpus.test) == 100
    assert len(corpus.test) > 30
    assert corpus.notes[0] == "a uniform sample of 100 of 1,000 texts (seed 0)"


def test_columns_by_name_and_by_position(tmp_path: Path) -> None:
    named = written(tmp_path / "named.csv", "said;topic;who\nhello;greet;ann\n")
    headless = written(tmp_path / "headless.tsv", "hello\tgreet\tann\n")
    by_name = load(named, columns={"text": "said", "label": "topic", "user": "who"})
    by_position = load(headless, columns={"text": 0, "label": 1, "user": 2})
    assert by_name.train == by_position.train == (Example("hello", "greet", user="ann"),)


def test_groups_by_column_or_derived(tmp_path: Path) -> None:
    path = written(tmp_path / "mine.csv", "text,dialect\n" + "a b c,x\nd e,y\nf,y\n" * 10)
    assert load(path).groups == ()
    assert load(path, group="dialect").groups == ("x", "y")
    assert load(path, group="length").groups == ("long", "short")
    with pytest.raises(
        MalformedCorpusError, match="no column 'accent' for the group; the columns are 'text', 'dialect'"
    ):
        load(path, group="accent")
    with pytest.raises(CorpusError, match="names no groups"):
        load(path, group="column")


def test_unseen_labels_and_tags_and_repeated_texts_are_noted(tmp_path: Path) -> None:
    written(tmp_path / "train.jsonl", '{"text": "a b", "label": "x", "tags": ["O", "B-p"]}\n')
    rows = '{"text": "a b", "label": "y", "tags": ["O", "B-q"]}\n{"text": "c", "label": "y", "tags": ["O"]}\n'
    written(tmp_path / "test.jsonl", rows)
    assert load(tmp_path).notes == (
        "labels of test that train lacks, so cannot be learned: 1, in 2 places",
        "tags of test that train lacks, so cannot be learned: 1, in 1 places",
        "texts of test that are in train, too: 1 of 2",
        "all texts have one label, so there is nothing to classify",
    )


def test_tags_that_are_no_spans_are_noted(tmp_path: Path) -> None:
    word = "\t".join(["1", "Hi", "hi", "INTJ", *"______"])
    assert "tags are one class per token, not BIO spans" in load(written(tmp_path / "tree.conllu", word)).notes


def test_rows_without_text_can_be_left_out(tmp_path: Path) -> None:
    path = written(tmp_path / "mine.csv", "text,label\na,x\n,y\nb,y\n")
    with pytest.raises(MalformedCorpusError, match=r"mine.csv:3: an empty text; remove the row, or .*skip_empty"):
        load(path)
    assert "1 rows without text are left out" in load(path, skip_empty=True).notes


@pytest.mark.parametrize("content", ["", "text,label\n", "\n\n"])
@pytest.mark.parametrize("name", ["mine.csv", "mine.jsonl", "mine.conll", "mine.txt", "mine.json"])
def test_files_without_text_are_refused(tmp_path: Path, name: str, content: str) -> None:
    if content.strip() and not name.endswith("csv"):
        content = ""
    with pytest.raises(MalformedCorpusError, match="no text in this file"):
        load(written(tmp_path / name, content))


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    table(tmp_path / "train.csv", 5)
    written(tmp_path / "valid.csv", "")
    with pytest.raises(MalformedCorpusError, match=r"valid.csv: no text in this file"):
        load(tmp_path)


def test_labels_in_one_split_only_are_refused(tmp_path: Path) -> None:
    table(tmp_path / "train.csv", 5)
    written(tmp_path / "test.csv", "text\na\n")
    with pytest.raises(CorpusError, match=r"has label for some texts and none for others \(in test\)"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mine.csv", '{"text": "a"}\n'),
        ("mine.jsonl", "text,label\na,x\n"),
        ("mine.jsonl", '[{"text": "a"}]\n'),
        ("mine.json", '{"text": "a"}\n{"text": "b"}\n'),
        ("mine.tsv", "text,label\na,x\n"),
        ("mine.conll", "text,label\na,x\n"),
        ("mine.conllu", "a\tO\n"),
        ("mine.txt", "a\tO\n" * 20),
        ("mine.txt", "\x80\x04\x95\0."),
    ],
)
def test_a_file_of_another_format_than_its_name_says_is_refused(tmp_path: Path, name: str, content: str) -> None:
    with pytest.raises(MalformedCorpusError, match=name):
        load(written(tmp_path / name, content))


def test_a_corpus_that_is_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(registry.VARIABLE, raising=False)
    with pytest.raises(
        CorpusNotFoundError, match=rf"'bank77'.*no {tmp_path}/bank77 \(TRUSTNLP_DATA is not set\).*'banking77'"
    ):
        load("bank77")
    with pytest.raises(CorpusNotFoundError, match="TRUSTNLP_DATA is not set"):
        load("snips")


def test_a_registered_corpus_of_another_size_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(registry.VARIABLE, str(tmp_path))
    for split in ("train", "valid", "test"):
        for name, content in (("seq.in", "play jazz\n"), ("seq.out", "O B-genre\n"), ("label", "Play\n")):
            written(tmp_path / "snips" / split / name, content)
    corpus = load("snips")
    expected = "sizes differ from those published: train 1, valid 1, test 1, not train 13,084, valid 700, test 700"
    assert expected in corpus.notes
    assert (corpus.name, corpus.licence) == ("snips", "CC0-1.0")
    assert str(tmp_path) not in corpus.source


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("mine.conll", {"columns": {"text": "a"}}, "'columns' must be left out for files of the format 'conll'"),
        ("mine.conll", {"group": "dialect"}, "'group' must be one of 'column', 'length' for a corpus without columns"),
        ("mine.conll", {"split_column": "part"}, "'columns' must be left out"),
        ("mine.conll", {"limit": 0}, "'limit' must be a whole number >= 1"),
        ("mine.conll", {"seed": -1}, "'seed' must be a whole number >= 0"),
        (".", {"split_column": "part"}, "'split_column' must be left out where each split has its own file"),
    ],
)
def test_arguments_that_do_not_go_with_the_corpus(
    tmp_path: Path, name: str, arguments: dict[str, object], message: str
) -> None:
    written(tmp_path / "mine.conll", "a O\n")
    table(tmp_path / "train.csv", 3)
    with pytest.raises(ArgumentError, match=message):
        load(tmp_path / name, **arguments)  # type: ignore[arg-type]


def test_the_synthetic_corpus_and_a_sample_of_it() -> None:
    whole, part = load("synthetic", seed=1), load("synthetic", seed=1, limit=500)
    assert len(part.train) + len(part.valid) + len(part.test) == 500
    assert set(part.train) <= set(whole.train)
    assert any("a uniform sample of 500 of" in note for note in part.notes)
    with pytest.raises(ArgumentError, match="'columns' must be left out for a corpus without columns"):
        load("synthetic", columns={"text": "a"})


def test_memory_is_that_of_the_texts_kept(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    row = "an utterance of some length that fills the file " * 4
    with path.open("w") as target:
        target.write("text,label\n")
        target.writelines(f"{row}{i},x\n" for i in range(40_000))
    size = path.stat().st_size
    assert size > 7_000_000
    tracemalloc.start()
    corpus = load(path, limit=200)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(corpus.train) == 160
    assert peak < size / 5


# VmHWM, not getrusage: that one also counts what the test process held when it started the child.
PROBE = """
import re, sys
from trustnlp.data import load
corpus = load(sys.argv[1])
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
print(len(corpus.train), peak // 1024, *corpus.notes, sep="|")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
@pytest.mark.parametrize("ending", ["csv", "txt"])
def test_a_gigabyte_is_read_in_bounded_memory(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"big.{ending}"
    text = "an utterance of some length " * 8
    line = {"csv": f"{text},x\n", "txt": f"{text}\n"}[ending]
    with path.open("w") as target:
        target.write("text,label\n" if ending == "csv" else "")
        for _ in range(1 + 2**30 // (len(line) * 1000)):
            target.write(line * 1000)
    assert path.stat().st_size >= 2**30
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(path)], capture_output=True, text=True, timeout=300, check=True
    )
    path.unlink()
    kept, megabytes, note, *_ = done.stdout.split("|")
    assert int(kept) == 160_000
    assert 50 < int(megabytes) < 512
    assert note.startswith("a uniform sample of 200,000 of")
