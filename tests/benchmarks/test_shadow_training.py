"""The benchmark runs and its figures hang together; toy trainings, so no figure means anything here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # eight processes load their libraries
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "shadow_training.py"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict:
    path = tmp_path_factory.mktemp("results") / "shadows.json"
    environment = {name: value for name, value in os.environ.items() if name != "TRUSTNLP_DATA"}
    command = [sys.executable, str(SCRIPT), "--tiny", "--json", str(path)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**environment, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert "target 0.65" in done.stdout
    return json.loads(path.read_text())


def test_every_ratio_is_to_one_after_another(found: dict) -> None:
    contestants = found["contestants"]
    assert list(contestants) == ["one after another", "one after another, one thread each", "processes", "auto"]
    assert contestants["one after another"]["ratio"] == 1.0
    base = contestants["one after another"]["median"]
    for row in contestants.values():
        assert row["ratio"] == pytest.approx(row["median"] / base)
    assert found["setting"] == {"corpus": "synthetic", "texts": 40, "shadows": 2, "epochs": 1}


def test_the_trainings_are_the_same(found: dict) -> None:
    assert found["same_bits"]
    # Here the first has one thread as well, so that it must agree, too.
    assert len({bits for row in found["contestants"].values() for bits in row["bits"]}) == 1
