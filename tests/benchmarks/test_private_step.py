"""The benchmark runs and its figures hang together; toy models, so no figure means anything here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "private_step.py"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    threads = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, env=threads, timeout=120
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run leaves: a case of its own, with memory and exactness, and a point of a sweep."""
    folder = tmp_path_factory.mktemp("results")
    done = run("--tiny", "--case", "minilm", "--case", "minilm-32", "--rounds", 2, "--threads", 1, "--results", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> dict:
    (path,) = folder.glob("*.json")
    return json.loads(path.read_text())


def rows(found: dict, case: str) -> dict[str, dict]:
    (chosen,) = [each for each in found["cases"] if each["case"] == case]
    return {row["name"]: row for row in chosen["contestants"]}


def test_plain_is_the_measure_of_all(found: dict) -> None:
    for case in ("minilm", "minilm-32"):
        plain = rows(found, case)["plain"]
        assert plain["ratio"] == 1.0
        assert plain["quartiles"] == [1.0, 1.0]


def test_every_way_of_clipping_is_timed(found: dict) -> None:
    ours = [row for row in rows(found, "minilm").values() if row["ours"]]
    assert {row["kind"] for row in ours} == {"flat", "layer-wise", "micro-batch"}
    for row in ours:
        assert row.get("error") is None
        assert 0 < row["quartiles"][0] <= row["ratio"] <= row["quartiles"][1]
        assert row["target"] > 1
        assert row["memory_error"] == ""


def test_flat_clipping_is_exact_and_everything_trained_gets_a_gradient(found: dict) -> None:
    for row in rows(found, "minilm").values():
        if row["ours"]:
            assert row["without_gradient"] == 0
        if row["ours"] and row["kind"] == "flat":
            assert row["distance"] < 1e-5


def test_who_is_not_there_or_fails_is_said_to(found: dict) -> None:
    others = [row for row in rows(found, "minilm").values() if not row["ours"] and row["kind"] != "plain"]
    assert others
    assert all("ratio" in row or row["error"] for row in others)


def test_a_table_and_a_plot_are_named_by_date_and_hardware(folder: Path, found: dict) -> None:
    name = found["hardware"]["name"]
    assert name.startswith(found["hardware"]["date"])
    table = (folder / f"{name}.md").read_text()
    assert "| plain |" in table
    assert "**trustnlp, exact flat**" in table
    assert (folder / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_unknown_cases_are_refused() -> None:
    done = run("--case", "maxilm")
    assert done.returncode == 2
    assert "must be one of minilm, minilm-256, bilstm" in done.stderr
