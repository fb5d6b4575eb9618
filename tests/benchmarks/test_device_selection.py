"""The benchmark runs and its figures hang together; toy populations, so no figure means anything here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "device_selection.py"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict:
    path = tmp_path_factory.mktemp("results") / "selection.json"
    command = [sys.executable, str(SCRIPT), "--populations", "200,2000", "--cohort", "30", "--rounds", "5"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, "--json", str(path)], capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    assert "| activity:gamma=1 |" in done.stdout
    return json.loads(path.read_text())


def test_every_population_has_every_rule(found: dict) -> None:
    assert [(case["population"], case["sizes"], case["cohort"]) for case in found["cases"]] == [
        (200, "power law", 20),
        (2000, "power law", 30),
        (2000, "distinct", 30),
    ]
    assert found["cases"][2]["distinct_sizes"] == 2000
    # Candidates of power of choice are three times the cohort, so its name differs with it.
    names = [{name.split(":d=")[0] for name in case["contestants"]} for case in found["cases"]]
    assert names[0] == names[1] == names[2]
    assert {"numpy choice", "activity:gamma=1", "poisson-activity", "oort", "power-of-choice"} <= names[0]


def test_figures_hang_together(found: dict) -> None:
    for case in found["cases"]:
        for name, row in case["contestants"].items():
            assert 0 < row["quartiles"][0] <= row["milliseconds"] <= row["quartiles"][1]
            assert (row["bytes"] > 0) == (row["begin_seconds"] > 0) == (name != "numpy choice")


def test_the_verdict_is_that_of_the_largest_population(found: dict) -> None:
    slowest = max(case["contestants"]["activity:gamma=1"]["milliseconds"] for case in found["cases"][1:])
    assert found["largest"] == 2000
    assert found["met"] == (slowest < found["target"])
