"""Killing a private run again and again: what was released is always in the ledger, and no noise is used twice."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from killed_run import ANY_MOMENT, BUGS, PLACES, PLAN

from trustnlp.dp import Ledger
from trustnlp.models.state import load_state

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills processes that it has forked")


def killed_runs(folder, *bugs):
    """For the real run, or for each bug: its folder, how its attempts ended, and what they noted."""
    run = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("killed_run.py")), str(folder), "0", *bugs],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    for bug, attempts in zip(bugs or ["real"], json.loads(run.stdout), strict=True):
        *killed, last = [attempt["signal"] for attempt in attempts]
        assert killed == [signal.SIGKILL] * len(killed), run.stderr
        assert last == (signal.SIGKILL if bugs else 0), run.stderr
        notes = [json.loads(line) for line in (folder / bug / "notes.jsonl").read_text().splitlines()]
        yield folder / bug, attempts, notes


def undercounted(notes):
    """Releases that the ledger's file did not know of."""
    blocks = [note for note in notes if "block" in note]
    return [note for note in blocks if note["ledger"] <= note["block"]]


def used_twice(notes):
    blocks = [note["block"] for note in notes if "block" in note]
    return sorted({block for block in blocks if blocks.count(block) > 1})


def test_a_run_killed_26_times_spends_exactly_its_plan(tmp_path):
    [(folder, attempts, notes)] = killed_runs(tmp_path)
    *killed, last = attempts
    assert len(killed) == 2 * len(PLACES) + ANY_MOMENT
    assert {attempt["place"] for attempt in killed} == {*PLACES, "any moment"}
    assert last["code"] == 0

    assert undercounted(notes) == []
    assert used_twice(notes) == []
    spent = [attempt["spent"] for attempt in attempts]
    assert spent == sorted(spent)
    states = [note["weights"] for note in notes if "weights" in note]
    assert len(states) == len(set(states))

    ledger = Ledger.read(folder / "ledger.jsonl")
    assert ledger.spent == PLAN.steps
    assert ledger.spent_epsilon() == PLAN.epsilon()
    assert load_state(folder / "checkpoint.safetensors")["position"]["step"] == PLAN.steps
    lost = PLAN.steps - len(states)
    assert 0 < lost <= len(killed)  # steps that were spent and whose result nobody saw: at most one a kill


def test_planted_bugs_are_noticed(tmp_path):
    late, again = killed_runs(tmp_path, *BUGS)
    assert undercounted(late[2])
    assert used_twice(again[2])
