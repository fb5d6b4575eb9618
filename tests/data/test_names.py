import os
from pathlib import Path

import pytest

from trustnlp.data.names import FirstName, read_names
from trustnlp.errors import CorpusError

DATA = os.environ.get("TRUSTNLP_DATA")


def test_the_year_is_in_the_file_or_in_its_name(tmp_path):
    (tmp_path / "yob1960.txt").write_text("Mary,F,51477\nJan,M,5\n")
    mary, jan = FirstName("Mary", "female", 51477, 1960), FirstName("Jan", "male", 5, 1960)
    assert read_names(tmp_path / "yob1960.txt") == (mary, jan)
    (tmp_path / "max.txt").write_text("Linda,F,99693,1947\n")
    assert read_names(tmp_path / "max.txt") == (FirstName("Linda", "female", 99693, 1947),)
    (tmp_path / "plain.txt").write_text("Mary,F,51477\n")
    assert read_names(tmp_path / "plain.txt")[0].year is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("Bo,X,5", ":2: 1 is 'X'; it must be one of 'F', 'M'"),
        ("Bo,M,0", ":2: '0' is no whole number > 0"),
        ("Bo,M,2.5", ":2: '2.5' is no whole number > 0"),
        (",M,5", ":2: the row has no text 0"),
        ("Bo,M", ":2: 2 fields where the first row has 3"),
    ],
)
def test_malformed_rows_are_refused(tmp_path, row, message):
    (tmp_path / "a.txt").write_text(f"Mary,F,5\n{row}\n")
    with pytest.raises(CorpusError, match=message):
        read_names(tmp_path / "a.txt")


@pytest.mark.skipif(DATA is None, reason="needs $TRUSTNLP_DATA/names")
def test_the_original_files():
    files = sorted((Path(DATA) / "names").glob("yob*.txt"))
    assert len(files) == 8
    found = read_names(files[1])
    assert (len(found), found[0]) == (11_926, FirstName("Mary", "female", 51_477, 1960))
