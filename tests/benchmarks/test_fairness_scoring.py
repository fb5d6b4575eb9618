"""The benchmark runs and its figures hang together; a toy model and own sentences, so no figure means anything."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fairness_scoring.py"
LABELS = ("stereotype", "anti-stereotype", "unrelated")
PAIRS = """,sent_more,sent_less,stereo_antistereo,bias_type,annotations,anon_writer,anon_annotators
0,The tall man is kind.,The short man is kind.,stereo,physical-appearance,[],a0,[]
1,"Tall men, he said, are loud.","Short men, he said, are loud.",antistereo,physical-appearance,[],a0,[]
"""


def item(number: str, context: str, *sentences: str) -> dict:
    rows = [
        {"id": f"{number}-{i}", "sentence": sentence, "gold_label": label}
        for i, (sentence, label) in enumerate(zip(sentences, LABELS, strict=True))
    ]
    return {"id": number, "target": "tall", "bias_type": "profession", "context": context, "sentences": rows}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name in ("stereoset", "crows-pairs", "tokenizers/gpt2"):
        (folder / name).mkdir(parents=True)
    within = item(
        "a", "The tall man is BLANK.", "The tall man is kind.", "The tall man is rude.", "The tall man is soup."
    )
    after = item("b", "He met a tall man.", "The man was kind.", "The man was rude.", "Soup is warm.")
    kinds = {"intrasentence": [within], "intersentence": [after]}
    (folder / "stereoset/dev.json").write_text(json.dumps({"version": "1.0", "data": kinds}))
    (folder / "crows-pairs/crows_pairs_anonymized.csv").write_text(PAIRS)
    (folder / "tokenizers/gpt2/vocab.bpe").write_text("#version: 0.2\nĠ t\nh e\nĠt a\nĠta l\nĠtal l\n")
    return folder


@pytest.fixture(scope="module")
def found(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    path = tmp_path_factory.mktemp("results") / "scoring.json"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TRUSTNLP_DATA": str(data)}
    command = [sys.executable, str(SCRIPT), "--tiny", "--rounds", "2", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    assert "| trustnlp |" in done.stdout
    return json.loads(path.read_text())


def test_every_sentence_is_scored_by_all(found: dict) -> None:
    assert (found["sentences"], found["rounds"]) == (3 + 3 + 4, 2)
    assert {"one at a time", "trustnlp"} <= set(found["contestants"])


def test_scores_are_equal(found: dict) -> None:
    plain = found["contestants"].pop("one at a time")
    assert (plain["ratio"], plain["processor_ratio"], plain["largest_difference"]) == (1.0, 1.0, 0.0)
    for row in found["contestants"].values():
        assert 0 < row["largest_difference"] <= found["exact"]


def test_the_verdict_is_of_time_and_equality(found: dict) -> None:
    ours = found["contestants"]["trustnlp"]
    assert found["met"] == (ours["ratio"] >= found["target"] and ours["largest_difference"] <= found["exact"])
