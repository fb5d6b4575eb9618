import numpy as np
import pytest

from trustnlp.data.word_vectors import embedding_vectors, read_word_vectors
from trustnlp.errors import ArgumentError, CorpusNotFoundError, MalformedCorpusError


@pytest.fixture
def write(tmp_path):
    def to_file(text):
        path = tmp_path / "vectors.txt"
        path.write_text(text)
        return path

    return to_file


def test_word2vec_and_glove(write):
    rows = "he 1 -0.5\nshe 2e-1 3\n"
    for text in ("2 2\n" + rows, rows, rows + "\n"):
        found = read_word_vectors(write(text))
        assert list(found) == ["he", "she"]
        assert found["he"].tolist() == [1, -0.5]
        assert found["she"].tolist() == [0.2, 3]


def test_chosen_words_alone(write):
    path = write("he 1 2\nshe x y\nit 3 4\n")
    assert list(read_word_vectors(path, ["it", "he", "them"])) == ["he", "it"]


def test_a_word_may_hold_spaces(write):
    assert list(read_word_vectors(write("2 2\nhe 1 2\n. . . 3 4\n"))) == ["he", ". . ."]


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("he 1 2\nshe 1\n", 2, "1 numbers instead of 2"),
        ("3 2\nhe 1\n", 2, "1 numbers instead of 2"),
        ("he 1 2\nshe 1 two\n", 2, "no number"),
        ("he 1 nan\n", 1, "not finite"),
        ("he 1 2\nhe 1 2\n", 2, "comes twice"),
        ("he\n", 1, "0 numbers"),
        ("\n", None, "no word vectors"),
    ],
)
def test_malformed_files_are_refused(write, text, line, reason):
    with pytest.raises(MalformedCorpusError, match=reason) as caught:
        read_word_vectors(write(text))
    assert caught.value.line == line


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(CorpusNotFoundError):
        read_word_vectors(tmp_path / "none.txt")


def test_rows_of_a_matrix():
    found = embedding_vectors(np.arange(6).reshape(3, 2), {"he": 2, "she": 0})
    assert {word: row.tolist() for word, row in found.items()} == {"he": [4, 5], "she": [0, 1]}
    with pytest.raises(ArgumentError, match="from 0 to 2"):
        embedding_vectors(np.ones((3, 2)), {"he": 3})
    with pytest.raises(ArgumentError, match=r"\(V, d\)"):
        embedding_vectors([1.0], {})
