import json
from pathlib import Path
from typing import Any

import pytest

from trustnlp.data.canaries import COLOURS, DIGITS, Canary
from trustnlp.errors import CorpusNotFoundError, MalformedCorpusError
from trustnlp.studies import canary_file

PIN = {"prefix": "my pin code is", "secret": "4 8 1 7", "label": "GiveCode", "repetitions": 10}


def written(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def test_a_file_of_canaries(tmp_path: Path) -> None:
    colours = {
        "prefix": ["the", "vault"],
        "secret": ["red", "blue"],
        "tags": "O O B-x I-x",
        "alphabet": "colours",
        "repetitions": 0,
    }
    own = {"prefix": "say", "secret": "b", "alphabet": ["a", "b"]}
    prefix = ("my", "pin", "code", "is")
    assert canary_file.read(written(tmp_path / "canaries.jsonl", PIN, "", colours, own)) == (
        Canary(prefix, ("4", "8", "1", "7"), "GiveCode", None, 10, DIGITS),
        Canary(("the", "vault"), ("red", "blue"), None, ("O", "O", "B-x", "I-x"), 0, COLOURS),
        Canary(("say",), ("b",), None, None, 1, ("a", "b")),
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**PIN, "secret": "4 8 x 7"}, "'secret' must be tokens of the alphabet"),
        ({**PIN, "secret": 4817}, "'secret' must be a text, or a list of tokens, got 'int'"),
        ({"secret": "4 8 1 7"}, "'prefix' must be a text"),
        ({**PIN, "repetitions": -1}, "'repetitions' must be a whole number >= 0, got -1"),
        ({**PIN, "repetitions": "ten"}, "'repetitions' must be a whole number"),
        ({**PIN, "tags": "O O"}, "'tags' must be one per token"),
        ({**PIN, "label": 3}, "'label' must be a text"),
        ({**PIN, "alphabet": "letters"}, "'alphabet' must be one of 'digits', 'colours', got 'letters'"),
        ({**PIN, "repetition": 3}, "'key' must be one of 'prefix'"),
        ('["4"]', "an array where one JSON object per line is needed"),
    ],
)
def test_a_bad_line_is_named_and_no_secret_is_shown(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(MalformedCorpusError, match=r"canaries.jsonl:2: ") as refused:
        canary_file.read(written(tmp_path / "canaries.jsonl", PIN, row))
    assert message in str(refused.value)
    assert not any(secret in str(refused.value) for secret in ("4 8 1 7", "4 8 x 7", "4817", "('4', '8'"))


def test_no_canaries_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(MalformedCorpusError, match="no canary in this file"):
        canary_file.read(written(tmp_path / "empty.jsonl"))
    with pytest.raises(CorpusNotFoundError, match="there is no file of canaries"):
        canary_file.read(tmp_path / "nowhere.jsonl")
