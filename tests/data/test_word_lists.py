import json
import os
from pathlib import Path

import pytest

from trustnlp.data.word_lists import Profession, read_professions, read_word_lists, read_word_pairs
from trustnlp.errors import CorpusError

DATA = os.environ.get("TRUSTNLP_DATA")


def write(path, value):
    path.write_text(json.dumps(value))
    return path


def test_words_pairs_and_occupations(tmp_path):
    (tmp_path / "female.txt").write_text("witches\n\ndiva\ndiva\n")
    assert read_word_lists(tmp_path / "female.txt") == ("witches", "diva", "diva")
    assert read_word_lists(write(tmp_path / "a.json", ["he", "his"])) == ("he", "his")
    assert read_word_pairs(write(tmp_path / "a.json", [["she", "he"]])) == (("she", "he"),)
    assert read_professions(write(tmp_path / "a.json", [["nurse", 0, -0.9]])) == (Profession("nurse", 0.0, -0.9),)


@pytest.mark.parametrize(
    ("read", "value", "message"),
    [
        (read_word_lists, {"a": 1}, "no JSON array"),
        (read_word_lists, ["he", 3], "element 2 is no word"),
        (read_word_lists, [], "no words in this file"),
        (read_word_pairs, [["she", "he"], ["she"]], "element 2 is no pair"),
        (read_word_pairs, [["she", " "]], "element 1 is no word"),
        (read_professions, [["nurse", 0]], "element 1 is no occupation"),
        (read_professions, [["nurse", 0, -1.5]], "element 1 is no occupation"),
        (read_professions, [[3, 0, -0.5]], "element 1 is no word"),
    ],
)
def test_malformed_files_are_refused(tmp_path, read, value, message):
    with pytest.raises(CorpusError, match=message) as caught:
        read(write(tmp_path / "a.json", value))
    assert caught.value.mend


@pytest.mark.skipif(DATA is None, reason="needs $TRUSTNLP_DATA/word-lists")
def test_the_original_files():
    folder = Path(DATA) / "word-lists"
    lists = [read_word_lists(folder / f"gn_glove/wordlist/{side}_word_file.txt") for side in ("female", "male")]
    assert [len(words) for words in lists] == [222, 222]
    assert len(read_word_lists(folder / "debiaswe/gender_specific_full.json")) == 1_441
    assert len(read_word_pairs(folder / "debiaswe/definitional_pairs.json")) == 10
    assert len(read_professions(folder / "debiaswe/professions.json")) == 320
