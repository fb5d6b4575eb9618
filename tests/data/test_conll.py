from pathlib import Path

import pytest

from trustnlp.data import conll
from trustnlp.data.corpus import Example
from trustnlp.errors import MalformedCorpusError


def written(tmp_path: Path, content: str) -> Path:
    path = tmp_path / "corpus.conll"
    path.write_text(content, encoding="utf-8")
    return path


def word(place: str, form: str, part: str) -> str:
    return "\t".join([place, form, form, part, *"______"]) + "\n"


def test_tabs_blank_lines_of_tabs_and_tokens_that_look_like_comments(tmp_path: Path) -> None:
    path = written(tmp_path, "#\tO\nParis\tB-place\n\t\n\nhi\tO")
    assert list(conll.read_columns(path)) == [Example("# Paris", tags=("O", "B-place")), Example("hi", tags=("O",))]


def test_columns_by_spaces_with_comments_and_document_marks(tmp_path: Path) -> None:
    path = written(tmp_path, "-DOCSTART- -X- O\n\n# id 7\nU.N. NNP B-ORG\nofficial NN O\n")
    assert list(conll.read_columns(path)) == [Example("U.N. official", tags=("B-ORG", "O"))]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a O\nb X B-x\n", r":2: 3 column\(s\) where the lines before have 2"),
        ("just a sentence\n", r":1: 'sentence' is not a BIO tag"),
        ("word\n", r":1: 1 column\(s\); each line needs a token first"),
        ("a NOUN\n", r":1: 'NOUN' is not a BIO tag"),
        ("a b\tO\n", r":1: a token that is empty or holds a space"),
        ("\tO\n", r":1: a token that is empty or holds a space"),
    ],
)
def test_broken_columns_are_refused_with_their_place(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(MalformedCorpusError, match=message):
        list(conll.read_columns(written(tmp_path, content)))


def test_a_file_without_blank_lines_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = written(tmp_path, "a O\n" * (conll.LONGEST_SENTENCE + 1))
    with pytest.raises(MalformedCorpusError, match="no blank line in 10,000 lines"):
        next(conll.read_columns(path))


def test_universal_words_without_multiword_lines_and_empty_nodes(tmp_path: Path) -> None:
    first = "# newdoc id = email-1\n# text = I can't\n" + word("1", "I", "PRON") + word("2-3", "can't", "_")
    first += word("2", "ca", "AUX") + word("3", "n't", "PART") + word("3.1", "go", "VERB")
    path = written(
        tmp_path, first + "\n" + word("1", "Yes", "INTJ") + "\n# newdoc id = weblog-2\n" + word("1", "Hm", "X")
    )
    expected = [
        Example("I ca n't", tags=("PRON", "AUX", "PART"), user="email-1", group="email"),
        Example("Yes", tags=("INTJ",), user="email-1", group="email"),
        Example("Hm", tags=("X",), user="weblog-2", group="weblog"),
    ]
    assert list(conll.read_universal(path, genres=True)) == expected
    assert {each.group for each in conll.read_universal(path)} == {None}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\tO\n", r":1: 2 column\(s\), CoNLL-U has 10 parted by tabs"),
        (word("1", "a", "_"), r":1: no part of speech in column 4"),
    ],
)
def test_other_columns_are_no_conllu(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(MalformedCorpusError, match=message):
        list(conll.read_universal(written(tmp_path, content)))
