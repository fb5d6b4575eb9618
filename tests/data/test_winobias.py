import os
from pathlib import Path

import pytest

from trustnlp.data.winobias import OccupationSentence, read_occupations, read_winobias
from trustnlp.errors import CorpusError

DATA = os.environ.get("TRUSTNLP_DATA")


def test_brackets_become_occupation_and_pronouns(tmp_path):
    path = tmp_path / "pro.txt.dev"
    path.write_text("1 The cook met [the old clerk] and hugged [her].\n\n2 [A guard] left as [he] broke [his] leg.\n")
    assert read_winobias(path) == (
        OccupationSentence("1", "The cook met the old clerk and hugged her.", "old clerk", ("her",), "female"),
        OccupationSentence("2", "A guard left as he broke his leg.", "guard", ("he", "his"), "male"),
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[The cook] left as [he] sang.", ":2: the line does not begin with its number"),
        ("2 The cook left as [he] sang.", ":2: 0 occupations and pronouns of 1 genders"),
        ("2 [The cook] left as they sang.", ":2: 1 occupations and pronouns of 0 genders"),
        ("2 [The cook] left as [he] saw [her].", ":2: 1 occupations and pronouns of 2 genders"),
    ],
)
def test_malformed_lines_are_refused(tmp_path, line, message):
    (tmp_path / "pro.txt").write_text(f"1 [The cook] left as [he] sang.\n{line}\n")
    with pytest.raises(CorpusError, match=message) as caught:
        read_winobias(tmp_path / "pro.txt")
    assert caught.value.mend


def test_occupations_are_one_a_line(tmp_path):
    (tmp_path / "male.txt").write_text("driver\nconstruction worker\n")
    assert read_occupations(tmp_path / "male.txt") == ("driver", "construction worker")


@pytest.mark.skipif(DATA is None, reason="needs $TRUSTNLP_DATA/winobias")
def test_the_original_files():
    files = sorted((Path(DATA) / "winobias/data").glob("*stereotyped*"))
    assert [len(read_winobias(file)) for file in files] == [396] * 8
    sides = [read_occupations(Path(DATA) / f"winobias/data/{side}_occupations.txt") for side in ("male", "female")]
    assert [len(side) for side in sides] == [20, 20]
