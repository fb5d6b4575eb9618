import os
from collections import Counter
from pathlib import Path

import pytest

from trustnlp.data.crows_pairs import StereotypePair, read_crows_pairs
from trustnlp.errors import CorpusError

DATA = os.environ.get("TRUSTNLP_DATA")
HEADER = ",sent_more,sent_less,stereo_antistereo,bias_type,annotations\n"


def write(path, *rows):
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows))
    return path


def test_pairs_keep_their_numbers_and_directions(tmp_path):
    path = write(
        tmp_path / "pairs.csv", '0,"Old men, it seems, nap.",Young men nap.,stereo,age,[]', "7,A,B,antistereo,age,x"
    )
    assert read_crows_pairs(path) == (
        StereotypePair("0", "Old men, it seems, nap.", "Young men nap.", "age", "stereo"),
        StereotypePair("7", "A", "B", "age", "antistereo"),
    )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("0,A,,stereo,age,",), ":2: the row has no text 'sent_less'"),
        (("0,A,B,stereo,age,", "1,A,B,neither,age,"), ":3: 'stereo_antistereo' is 'neither'"),
        (("0,A,B,stereo,age,", "0,A,C,stereo,age,"), "two items have the id '0'"),
        ((), "no pairs in this file"),
    ],
)
def test_malformed_files_are_refused(tmp_path, rows, message):
    with pytest.raises(CorpusError, match=message) as caught:
        read_crows_pairs(write(tmp_path / "pairs.csv", *rows))
    assert caught.value.mend


def test_a_missing_column_is_named(tmp_path):
    (tmp_path / "pairs.csv").write_text("sent_more,sent_less\nA,B\n")
    with pytest.raises(CorpusError, match="no column 'stereo_antistereo'; the columns are 'sent_more', 'sent_less'"):
        read_crows_pairs(tmp_path / "pairs.csv")


@pytest.mark.skipif(DATA is None, reason="needs $TRUSTNLP_DATA/crows-pairs")
def test_the_original_file():
    pairs = read_crows_pairs(Path(DATA) / "crows-pairs/crows_pairs_anonymized.csv")
    assert Counter(pair.direction for pair in pairs) == {"stereo": 1290, "antistereo": 218}
    assert len({pair.bias_type for pair in pairs}) == 9
