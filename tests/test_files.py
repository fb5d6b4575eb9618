import json
import os
from pathlib import Path

import pytest

from trustnlp import files


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "note.txt"
    files.write_text(target, "grüße\n")
    assert target.read_text(encoding="utf-8") == "grüße\n"
    assert os.listdir(target.parent) == ["note.txt"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_error_while_writing_keeps_the_old_file_and_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "results.json"
    target.write_text("old")

    def write_and_fail() -> None:
        with files.whole(target) as part:
            part.write_text("half of the new")
            raise error

    with pytest.raises(type(error)):
        write_and_fail()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["results.json"]


def test_json_refuses_nan_and_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "results.json"
    files.write_json(target, {"value": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(target, {"value": float("nan")})
    assert json.loads(target.read_text()) == {"value": 1}


def test_appended_lines_are_in_order(tmp_path: Path) -> None:
    log = tmp_path / "ledger.jsonl"
    for line in ("one", "two"):
        files.append_line(log, line)
    assert log.read_text() == "one\ntwo\n"


def test_sha256_of_the_empty_file_is_the_published_one(tmp_path: Path) -> None:
    # FIPS 180-4 example value for the empty message.
    empty = tmp_path / "empty"
    empty.touch()
    assert files.sha256(empty) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
