import os
from collections import Counter
from pathlib import Path

import pytest

from trustnlp.data.bios import PROFESSIONS, Biography, read_bios
from trustnlp.errors import CorpusError

DATA = os.environ.get("TRUSTNLP_DATA")


def write(path, *rows):
    path.write_text("hard_text,profession,gender\n" + "".join(f"{row}\n" for row in rows))
    return path


def test_codes_become_names(tmp_path):
    path = write(tmp_path / "bios.csv", '"She sings, too.",poet,F', "He paints.,0,0", "He heals.,surgeon,Male")
    assert read_bios(path) == (
        Biography("She sings, too.", "poet", "female"),
        Biography("He paints.", "accountant", "male"),
        Biography("He heals.", "surgeon", "male"),
    )
    assert len(PROFESSIONS) == 28
    lines = tmp_path / "bios.jsonl"
    lines.write_text('{"hard_text": "She sews.", "profession": 27, "gender": 1}\n')
    assert read_bios(lines) == (Biography("She sews.", "yoga_teacher", "female"),)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("x,poet,3", ":2: 'gender' is '3'"),
        ("x,28,M", ":2: 'profession' is 28"),
        (",poet,M", ":2: the row has no text 'hard_text'"),
        ("x,,M", ":2: the row has no text 'profession'"),
    ],
)
def test_malformed_rows_are_refused(tmp_path, row, message):
    with pytest.raises(CorpusError, match=message) as caught:
        read_bios(write(tmp_path / "bios.csv", row))
    assert caught.value.mend


@pytest.mark.skipif(DATA is None, reason="needs $TRUSTNLP_DATA/bios-sample")
def test_the_sample():
    found = read_bios(Path(DATA) / "bios-sample/accountant_complete.csv")
    assert Counter(one.gender for one in found) == {"male": 634, "female": 366}
    assert {one.profession for one in found} == {"accountant"}
