import json
import os

import numpy as np
import pytest
from fednlp_files import classification, lists, write_fields

import trustnlp.data
from trustnlp.data.corpus import Answer, Corpus, Example
from trustnlp.data.registry import Task
from trustnlp.errors import ArgumentError, MalformedCorpusError
from trustnlp.federated import partition_data_file as data_file

h5py = pytest.importorskip("h5py")

CORPORA = {
    Task.CLASSIFICATION: (Example("a b", "x"), Example("c", "y"), Example("d", "x")),
    Task.TAGGING: (Example("a b", tags=("O", "B-x")), Example("ß", tags=("O",)), Example("d", tags=("O",))),
    Task.SPAN_QA: tuple(Example(f"{n} it is", question="what?", answers=(Answer(2, "it"),)) for n in range(3)),
    Task.SEQ2SEQ: tuple(Example(f"source {n}", target=f"target {n}") for n in range(3)),
    Task.LANGUAGE: tuple(Example(f"line\n{n}") for n in range(3)),
}


def test_a_file_of_fednlp_is_read_by_its_lists(tmp_path):
    attributes = {"train_index_list": [2, 0], "test_index_list": [1], "task_type": "text_classification"}
    path = write_fields(tmp_path / "20news.h5", attributes, X=["a a", "b b", "c c"], Y=["x", "y", "x"])
    data = data_file.read(path)
    assert data.task is Task.CLASSIFICATION
    assert data.corpus.name == "20news"
    assert data.corpus.train == (Example("c c", "x"), Example("a a", "x"))
    assert data.corpus.test == (Example("b b", "y"),)
    assert data.train.tolist() == [2, 0]
    assert data.by_number[1] == Example("b b", "y")


@pytest.mark.parametrize(
    ("attributes", "fields", "task", "first"),
    [
        ({"label_vocab": {"x": 0}}, {"X": ["a"], "Y": ["x"]}, Task.CLASSIFICATION, Example("a", "x")),
        ({}, {"X": ["a"], "Y": ["b"]}, Task.SEQ2SEQ, Example("a", target="b")),
        ({}, {"X": [["a", "b"]], "Y": [["O", "B-x"]]}, Task.TAGGING, Example("a b", tags=("O", "B-x"))),
        ({}, {"X": ["a b"]}, Task.LANGUAGE, Example("a b")),
        ({}, {"X": [["a", "b"]]}, Task.LANGUAGE, Example("a b")),
        (
            {},
            {"context_X": ["so it is"], "question_X": ["what?"], "Y": [(3, 5)], "question_ids": ["q"]},
            Task.SPAN_QA,
            Example("so it is", question="what?", answers=(Answer(3, "it"),)),
        ),
    ],
)
def test_a_task_that_is_not_named_is_known_by_its_fields(tmp_path, attributes, fields, task, first):
    data = data_file.read(write_fields(tmp_path / "some.h5", attributes, **fields))
    assert (data.task, data.corpus.train, data.corpus.test) == (task, (first,), ())


def test_texts_without_words_are_left_out_and_numbers_stay(tmp_path):
    path = write_fields(tmp_path / "some.h5", lists(3, 1) | {"task_type": "lm"}, X=["a", " ", "c", "d"])
    data = data_file.read(path)
    assert data.left_out == {1}
    assert data.train.tolist() == [0, 2]
    assert data.corpus.notes == ("1 texts without words are left out",)


@pytest.mark.parametrize("task", CORPORA, ids=str)
def test_what_is_written_is_read_back(tmp_path, task):
    corpus = Corpus("some", CORPORA[task][:2], (), CORPORA[task][2:])
    written = data_file.write(tmp_path / "some.h5", corpus, task)
    data = data_file.read(tmp_path / "some.h5")
    assert data.task is written.task is task
    assert (data.corpus.train, data.corpus.test) == (corpus.train, corpus.test)
    assert np.array_equal(data.train, written.train)
    assert np.array_equal(data.test, written.test)


def test_what_is_written_has_the_fields_that_fednlp_reads(tmp_path):
    """The reads of its data managers, line by line."""
    for task, examples in CORPORA.items():
        data_file.write(tmp_path / f"{task.name}.h5", Corpus("some", examples), task)
    with h5py.File(tmp_path / "CLASSIFICATION.h5", "r", swmr=True) as file:
        attributes = json.loads(file["attributes"][()])
        assert attributes["label_vocab"] == {"x": 0, "y": 1}
        assert attributes["num_labels"] == 2
        assert attributes["index_list"] == [0, 1, 2]
        assert [file["Y"][str(idx)][()].decode("utf-8") for idx in attributes["train_index_list"]] == ["x", "y", "x"]
    with h5py.File(tmp_path / "TAGGING.h5", "r", swmr=True) as file:
        assert [word.decode("UTF-8") for word in file["X"]["1"][()]] == ["ß"]
    with h5py.File(tmp_path / "SPAN_QA.h5", "r", swmr=True) as file:
        start, end = file["Y"]["0"][()]
        assert file["context_X"]["0"][()].decode("utf-8")[start:end] == "it"
        assert file["question_ids"]["0"][()].decode("utf-8") == "0"


def test_what_the_format_cannot_hold(tmp_path):
    with pytest.raises(ArgumentError, match="'task' must be one of"):
        data_file.write(tmp_path / "some.h5", Corpus("some", CORPORA[Task.CLASSIFICATION]), Task.SLOTS)
    with pytest.raises(ArgumentError, match="of examples for the task 'tagging', got 'one without, number 0'"):
        data_file.write(tmp_path / "some.h5", Corpus("some", CORPORA[Task.CLASSIFICATION]), Task.TAGGING)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("attributes", "fields", "reason"),
    [
        ("{", {"X": ["a"]}, "'attributes' is not JSON"),
        ("__import__('os')", {"X": ["a"]}, "'attributes' is not JSON"),
        ({}, {"Z": ["a"]}, "it holds no texts"),
        ({"train_index_list": [0], "test_index_list": [0]}, {"X": ["a", "b"]}, "every example exactly once"),
        ({"train_index_list": [0], "test_index_list": [2]}, {"X": ["a", "b"]}, "every example exactly once"),
        ({"train_index_list": [0], "test_index_list": []}, {"X": ["a", "b"]}, "every example exactly once"),
        ({"train_index_list": [0, True], "test_index_list": []}, {"X": ["a", "b"]}, "every example exactly once"),
        ({"train_index_list": [0, 1]}, {"X": ["a", "b"]}, "are not two lists"),
        ({"task_type": "text_classification"}, {"X": ["a", "b"], "Y": ["x"]}, "there is no 'Y/1'"),
        ({}, {"X": [["a", "b"]], "Y": [["O"]]}, "example 0: not one BIO tag for each word"),
        ({}, {"X": [["a b"]], "Y": [["O"]]}, "example 0: not one BIO tag for each word"),
        ({}, {"X": [["a"]], "Y": [["Z-x"]]}, "example 0: not one BIO tag for each word"),
        ({}, {"context_X": ["a"], "question_X": ["q"], "Y": [(0, 0)]}, "example 0: 'answers' must be pieces"),
        ({}, {"context_X": ["a"], "question_X": ["q"], "Y": [(0, 1, 2)]}, "example 0"),
        ({}, {"X": ["a"], "Y": [" "]}, "example 0: 'target' must be not empty"),
    ],
)
def test_broken_files(tmp_path, attributes, fields, reason):
    path = write_fields(tmp_path / "some.h5", attributes, **fields)
    with pytest.raises(MalformedCorpusError, match=reason):
        data_file.read(path)


def test_no_text_is_in_what_an_error_says(tmp_path):
    path = write_fields(tmp_path / "some.h5", {}, context_X=["my secret"], question_X=["why?"], Y=[(9, 12)])
    with pytest.raises(MalformedCorpusError) as caught:
        data_file.read(path)
    assert "secret" not in str(caught.value)


@pytest.mark.skipif("TRUSTNLP_DATA" not in os.environ, reason="TRUSTNLP_DATA is not set")
def test_a_real_tagged_corpus_goes_there_and_back(tmp_path):
    whole = trustnlp.data.load("wnut17")
    corpus = Corpus("wnut17", whole.train[:300], (), whole.test[:100])
    data_file.write(tmp_path / "wnut17.h5", corpus, Task.TAGGING)
    again = data_file.read(tmp_path / "wnut17.h5")
    assert (again.corpus.train, again.corpus.test) == (corpus.train, corpus.test)


def test_the_fixture_is_a_corpus(tmp_path):
    data = data_file.read(classification(tmp_path / "some.h5"))
    assert (len(data.corpus.train), len(data.corpus.test)) == (60, 30)
    assert data.corpus.labels == ("cars", "food", "law")
