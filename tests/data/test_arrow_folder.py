"""Against folders that the real `datasets` library wrote, and against planted damage."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from trustnlp.data import arrow_folder, load
from trustnlp.data.corpus import Example
from trustnlp.errors import CorpusError, MalformedCorpusError

TAGS = ["O", "B-time", "I-time"]


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        library = pytest.importorskip("datasets", reason="the library `datasets` is not installed")
        library.disable_progress_bars()
        yield library


def dataset(datasets: Any, *rows: dict[str, Any]) -> Any:
    features = datasets.Features(
        {
            "tokens": datasets.Sequence(datasets.Value("string")),
            "intent": datasets.ClassLabel(names=["Play", "Wake"]),
            "ner_tags": datasets.Sequence(datasets.ClassLabel(names=TAGS)),
            "user": datasets.Value("string"),
        }
    )
    return datasets.Dataset.from_list(list(rows), features=features)


FIRST = {"tokens": ["wake", "at", "six"], "intent": 1, "ner_tags": [0, 0, 1], "user": "u1"}
SECOND = {"tokens": ["play"], "intent": 0, "ner_tags": [0], "user": None}
EXAMPLES = (Example("wake at six", "Wake", ("O", "O", "B-time"), "u1"), Example("play", "Play", ("O",)))


def test_a_dictionary_of_datasets_with_class_labels(datasets: Any, tmp_path: Path) -> None:
    splits = {"train": dataset(datasets, FIRST, SECOND), "validation": dataset(datasets, SECOND)}
    splits["unsupervised"] = dataset(datasets, FIRST)
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    corpus = load(tmp_path / "saved")
    assert (corpus.train, corpus.valid, corpus.test) == (EXAMPLES, EXAMPLES[1:], ())
    assert "splits left out: unsupervised" in corpus.notes


def test_one_dataset_in_shards_after_choosing_rows(datasets: Any, tmp_path: Path) -> None:
    chosen = dataset(datasets, *[FIRST, SECOND] * 40).select(range(1, 80, 2))
    chosen.save_to_disk(tmp_path / "saved", num_shards=3)
    assert [row["intent"] for _, row in arrow_folder.rows(tmp_path / "saved")] == ["Play"] * 40
    corpus = load(tmp_path / "saved")
    assert (len(corpus.train), len(corpus.valid), len(corpus.test)) == (32, 4, 4)


def test_hidden_labels_are_no_labels(datasets: Any, tmp_path: Path) -> None:
    dataset(datasets, FIRST, {**FIRST, "intent": -1}).save_to_disk(tmp_path / "saved")
    with pytest.raises(MalformedCorpusError, match=":2: no label"):
        load(tmp_path / "saved")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"text": ["a", "b"], "label": [0, 1]})
    with pa.OSFile(str(tmp_path / "data.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    label = {"names": ["no", "yes"], "_type": "ClassLabel"}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"features": {"label": label}}))
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    return tmp_path


def test_the_folder_without_the_library(saved: Path) -> None:
    assert load(saved).train == (Example("a", "no"), Example("b", "yes"))


@pytest.mark.parametrize("name", ["../data.arrow", "/etc/passwd", "..", "", None, 3])
def test_files_outside_of_the_folder_are_refused(saved: Path, name: object) -> None:
    (saved / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    with pytest.raises(MalformedCorpusError, match="is no name of a file in this folder"):
        list(arrow_folder.rows(saved))


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a file of the corpus was unpickled",))


@pytest.mark.parametrize("content", [b"", b"ARROW1\0\0", b"\xff\xff\xff\xff\x08\0\0\0garbage!", pickle.dumps(Trap())])
def test_what_is_no_arrow_stream_is_refused(saved: Path, content: bytes) -> None:
    (saved / "data.arrow").write_bytes(content)
    with pytest.raises(MalformedCorpusError, match=r"data.arrow: no Arrow stream"):
        list(arrow_folder.rows(saved))


def test_a_stream_that_was_cut_is_refused(saved: Path) -> None:
    whole = (saved / "data.arrow").read_bytes()
    for length in range(8, len(whole) - 8, 8):
        (saved / "data.arrow").write_bytes(whole[:length])
        with pytest.raises(MalformedCorpusError):
            load(saved)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("state.json", "{}", "no list of data files"),
        ("state.json", '{"_data_files": [{"filename": "b.arrow"}]}', "'b.arrow' is listed but missing"),
        ("state.json", '{"_data_files": [], "_indices_data_files": [{}]}', "flatten_indices"),
        ("state.json", "no json", "missing, or no JSON"),
        ("dataset_info.json", "[]", "no JSON object"),
        ("dataset_info.json", '{"features": {"label": {"_type": "ClassLabel"}}}', "class labels without names"),
        (
            "dataset_info.json",
            '{"features": {"label": {"_type": "ClassLabel", "names": ["no"]}}}',
            "class label 1 where there are 1",
        ),
        ("dataset_dict.json", "{}", "no list of splits"),
        ("dataset_dict.json", '{"splits": ["../x"]}', "is no name of a file in this folder"),
        ("dataset_dict.json", '{"splits": ["train"]}', "'train' is listed but missing"),
    ],
)
def test_damaged_descriptions_are_refused(saved: Path, name: str, content: str, message: str) -> None:
    (saved / name).write_text(content)
    with pytest.raises(CorpusError, match=message):
        load(saved)
