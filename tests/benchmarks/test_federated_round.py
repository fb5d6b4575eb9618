"""The benchmark runs, all do the same work and figures hang together; toy rounds, so no time means anything here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # three processes load their libraries, one of them two more
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "federated_round.py"


@pytest.fixture(scope="module", params=["words", "lr-mnist"])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict:
    path = tmp_path_factory.mktemp("results") / "rounds.json"
    command = [sys.executable, str(SCRIPT), "--shape", request.param, "--tiny", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(path.read_text())
    assert found["setting"]["shape"] == request.param
    assert all(f"trustnlp, 2 workers, to {name} (" in done.stdout for name in found["versions"])
    return found


def test_everybody_is_there_or_said_to_be_missing(found: dict) -> None:
    names = [*found["contestants"], *found["missing"]]
    assert sorted(names) == ["Flower", "pfl-research", "plain loop", "trustnlp, 1 worker", "trustnlp, 2 workers"]
    assert sorted([*found["versions"], *found["missing"]]) == ["Flower", "pfl-research"]


def test_all_do_the_same_work(found: dict) -> None:
    """Every device takes part in steps so small that the order of examples does not matter; one step less would."""
    moved = {name: row["moved"] for name, row in found["contestants"].items()}
    assert moved["plain loop"] > 0
    assert moved == pytest.approx(dict.fromkeys(moved, moved["plain loop"]), rel=0.02)


def test_figures_hang_together(found: dict) -> None:
    rows = found["contestants"]
    for row in rows.values():
        for ours in ("trustnlp, 1 worker", "trustnlp, 2 workers"):
            ratio = pytest.approx(row["ms_per_device"] / rows[ours]["ms_per_device"])
            assert row["ratios"][ours] == {"median": ratio, "lowest": ratio, "highest": ratio}
        assert row["ms_per_device"] == pytest.approx(1e3 * row["runs"][0]["round"] / found["setting"]["cohort"])
