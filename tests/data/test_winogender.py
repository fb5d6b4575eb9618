import os
from pathlib import Path

import pytest

from trustnlp.data.winogender import Occupation, Schema, read_occupation_statistics, read_winogender
from trustnlp.errors import CorpusError

DATA = os.environ.get("TRUSTNLP_DATA")


def write(path, *rows):
    path.write_text("sentid\tsentence\n" + "".join(f"{row}\n" for row in rows))
    return path


def test_a_sentences_name_tells_what_it_is(tmp_path):
    path = write(tmp_path / "all.tsv", "cook.guest.1.male.txt\tHe ate.", "cook.someone.0.neutral.txt\tThey cooked.")
    assert read_winogender(path) == (
        Schema("cook.guest.1.male.txt", "cook", "guest", False, "male", "He ate."),
        Schema("cook.someone.0.neutral.txt", "cook", "someone", True, "neutral", "They cooked."),
    )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("cook.1.male.txt\tHe ate.",), ":2: 'cook.1.male.txt' does not name a sentence"),
        (("cook.guest.2.male.txt\tHe ate.",), "does not name a sentence"),
        (("cook.guest.1.man.txt\tHe ate.",), "does not name a sentence"),
        (("cook.guest.1.male.txt\tHe ate.",) * 2, "two items have the id"),
        (("cook.guest.1.male.txt\t",), ":2: the row has no text 'sentence'"),
        ((), "no sentences in this file"),
    ],
)
def test_malformed_files_are_refused(tmp_path, rows, message):
    with pytest.raises(CorpusError, match=message) as caught:
        read_winogender(write(tmp_path / "all.tsv", *rows))
    assert caught.value.mend


def test_shares_of_women_are_percentages(tmp_path):
    path = tmp_path / "stats.tsv"
    header = "occupation\tbergsma_pct_female\tbls_pct_female\tbls_year\n"
    path.write_text(header + "cook\t1.5\t40\t2015\n")
    assert read_occupation_statistics(path) == (Occupation("cook", 1.5, 40.0),)
    for wrong in ("101", "nan", "x"):
        path.write_text(header + f"cook\t1.5\t{wrong}\t2015\n")
        with pytest.raises(CorpusError, match=r":2: 'bls_pct_female' is .*; give a number from 0 to 100"):
            read_occupation_statistics(path)


@pytest.mark.skipif(DATA is None, reason="needs $TRUSTNLP_DATA/winogender")
def test_the_original_files():
    folder = Path(DATA) / "winogender"
    assert len(read_winogender(folder / "all_sentences.tsv")) == 720
    assert len(read_occupation_statistics(folder / "occupations-stats.tsv")) == 60
