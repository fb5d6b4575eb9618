"""The benchmark runs and its figures hang together; toy rounds, so no figure means anything here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # three processes load their libraries, one of them two more
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "federated_round.py"


def test_figures_hang_together(tmp_path: Path) -> None:
    path = tmp_path / "rounds.json"
    command = [sys.executable, str(SCRIPT), "--tiny", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(path.read_text())
    names = [*found["contestants"], *found["missing"]]
    assert sorted(names) == ["pfl-research", "plain loop", "trustnlp, 1 worker", "trustnlp, 2 workers"]
    base = found["contestants"]["trustnlp, 1 worker"]
    assert base["ratio_to_ours"] == 1
    for row in found["contestants"].values():
        assert row["ratio_to_ours"] == pytest.approx(row["ms_per_device"] / base["ms_per_device"])
        assert row["ms_per_device"] == pytest.approx(1e3 * row["runs"][0]["round"] / found["setting"]["cohort"])
