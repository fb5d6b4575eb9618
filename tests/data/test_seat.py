import json
import os
from pathlib import Path

import pytest

from trustnlp.data.seat import AssociationTest, read_seat
from trustnlp.errors import CorpusError

DATA = os.environ.get("TRUSTNLP_DATA")


def sets(**changed):
    kinds = ("targ1", "targ2", "attr1", "attr2")
    return {kind: {"category": kind.upper(), "examples": [f"{kind}-0", f"{kind}-1"]} for kind in kinds} | changed


def test_a_file_is_a_test_and_a_folder_several(tmp_path):
    for name in ("weat2", "sent-weat2"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(sets(), indent=1))
    [found] = read_seat(tmp_path / "weat2.jsonl")
    assert found == AssociationTest(
        "weat2",
        ("targ1-0", "targ1-1"),
        ("targ2-0", "targ2-1"),
        ("attr1-0", "attr1-1"),
        ("attr2-0", "attr2-1"),
        ("TARG1", "TARG2", "ATTR1", "ATTR2"),
    )
    assert [test.name for test in read_seat(tmp_path)] == ["sent-weat2", "weat2"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "'targ1' has no list 'examples'"),
        (sets(attr2={"category": "x"}), "'attr2' has no list 'examples'"),
        (sets(attr2={"category": "x", "examples": []}), "'attr2' has an empty example, or none"),
        (sets(targ2={"category": "x", "examples": ["a", " "]}), "'targ2' has an empty example, or none"),
        (sets(targ2={"examples": ["a"]}), "'targ2' has no text 'category'"),
    ],
)
def test_malformed_files_are_refused(tmp_path, content, message):
    (tmp_path / "weat.jsonl").write_text(json.dumps(content))
    with pytest.raises(CorpusError, match=message) as caught:
        read_seat(tmp_path)
    assert caught.value.mend


def test_a_folder_without_tests_is_refused(tmp_path):
    with pytest.raises(CorpusError, match=r"no \*\.jsonl in this folder"):
        read_seat(tmp_path)


@pytest.mark.skipif(DATA is None, reason="needs $TRUSTNLP_DATA/seat")
def test_the_original_files():
    tests = read_seat(Path(DATA) / "seat")
    assert len(tests) == 50
    weat1 = next(test for test in tests if test.name == "weat1")
    assert [len(words) for words in (weat1.targets_x, weat1.targets_y, weat1.attributes_a)] == [25, 25, 25]
