"""Many trainings at once: the same bits whatever the way, nothing lost, nothing left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from small_jobs import (
    Shared,
    count,
    die_without,
    environment,
    fail_without,
    give,
    nested,
    pick,
    times_done,
    train,
    wait_for,
)

from trustnlp.errors import ArgumentError, RunError
from trustnlp.models.many import RESULT, Job, run_jobs

HERE = Path(__file__).parent


def counting(number: int) -> list[Job]:
    return [Job(f"job-{n}", partial(count, n)) for n in range(number)]


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.05)


def alive(process: int) -> bool:
    """Whether a process runs; one that has ended and waits to be noticed does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_way_changes_no_bit(tmp_path: Path) -> None:
    jobs = [Job(f"model-{seed}", partial(train, seed)) for seed in range(3)]
    direct = [job.run(tmp_path / f"alone-{job.name}") for job in jobs]
    for way in ("serial", "processes"):
        found = run_jobs(jobs, tmp_path / way, way=way, workers=2)
        for mine, other in zip(found, direct, strict=True):
            assert mine.keys() == other.keys()
            for name in mine:
                assert mine[name].dtype == other[name].dtype
                np.testing.assert_array_equal(mine[name], other[name])
    assert not np.array_equal(direct[0]["losses"], direct[1]["losses"])


def test_what_jobs_share_is_sent_once_to_each_worker(tmp_path: Path) -> None:
    shared = Shared(tmp_path / "notes")
    jobs = [Job(f"pick-{n}", partial(pick, shared, n)) for n in range(8)]
    before = dict(os.environ)
    found = run_jobs(
        [*jobs, Job("environment", environment), Job("nested", nested)], tmp_path / "run", way="processes", workers=1
    )
    assert [int(each["number"]) for each in found[:8]] == list(range(8))
    assert (tmp_path / "notes").read_text() == "unpacked\n"
    assert found[8]["OMP_NUM_THREADS"] == "1"
    assert found[8]["OMP_WAIT_POLICY"] == "PASSIVE"
    assert dict(os.environ) == before
    assert found[9]["processes"] == 1  # jobs within a job stay in its process


def test_here_too_a_job_has_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    run_jobs(counting(1), tmp_path, way="serial")
    assert set_to == [1, 7]


def test_jobs_that_are_over_sooner_never_wait_for_workers(tmp_path: Path) -> None:
    found = run_jobs(counting(6), tmp_path, way="auto", workers=2)
    assert {int(each["process"]) for each in found} == {os.getpid()}


def test_workers_begin_while_this_process_is_busy(tmp_path: Path) -> None:
    permit = tmp_path / "permit"
    jobs = [Job("here", partial(wait_for, permit)), Job("there", partial(give, permit))]
    here, there = run_jobs(jobs, tmp_path / "run", way="auto", workers=2)
    assert int(here["process"]) == os.getpid() != int(there["process"])


def test_only_what_is_missing_is_done_again(tmp_path: Path) -> None:
    heard: list[tuple[str, int, int]] = []
    run_jobs(counting(2), tmp_path, way="serial")
    found = run_jobs(
        counting(4), tmp_path, way="serial", stage="shadows", progress=lambda *news: heard.append(news[:3])
    )
    assert [int(each["number"]) for each in found] == [0, 1, 2, 3]
    assert [times_done(tmp_path / f"job-{n}") for n in range(4)] == [1, 1, 1, 1]
    assert heard == [("shadows", 2, 4), ("shadows", 3, 4), ("shadows", 4, 4)]


@pytest.mark.parametrize("way", ["serial", "processes"])
def test_a_failing_job_is_named_and_the_others_are_kept(tmp_path: Path, way: str) -> None:
    permit = tmp_path / "permit"
    jobs = [Job("good", partial(count, 1)), Job("bad", partial(fail_without, permit)), Job("late", partial(count, 2))]
    with pytest.raises(RunError, match="job 'bad' failed: ValueError: planted failure"):
        run_jobs(jobs, tmp_path / "run", way=way, workers=1)
    assert (tmp_path / "run/good" / RESULT).exists()
    assert not (tmp_path / "run/late").exists()  # nothing is begun after a failure
    permit.touch()
    assert len(run_jobs(jobs, tmp_path / "run", way="serial")) == 3
    assert times_done(tmp_path / "run/good") == 1


def test_a_worker_that_dies_is_noticed(tmp_path: Path) -> None:
    permit = tmp_path / "permit"
    jobs = [Job("good", partial(count, 1)), Job("bad", partial(die_without, permit)), *counting(2)]
    with pytest.raises(RunError, match=r"a worker died \(exit code -9\); if memory ran out, give fewer workers"):
        run_jobs(jobs, tmp_path / "run", way="processes", workers=1)
    assert (tmp_path / "run/good" / RESULT).exists()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
@pytest.mark.parametrize("ended", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_an_ended_run_leaves_its_results_and_no_worker(tmp_path: Path, ended: signal.Signals) -> None:
    code = f"""
import pathlib, small_jobs
from functools import partial
from trustnlp.models.many import Job, run_jobs
here = pathlib.Path({str(tmp_path)!r})
jobs = [Job("quick", partial(small_jobs.count, 1)), Job("slow", partial(small_jobs.wait_for, here / "permit"))]
run_jobs(jobs, here / "run", way="processes", workers=1)
"""
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    run = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    note = tmp_path / "run/slow/process"
    until(lambda: note.exists() and note.read_text() != "")
    worker = int(note.read_text())
    assert alive(worker)
    os.kill(run.pid, ended) if ended is signal.SIGKILL else os.killpg(
        run.pid, ended
    )  # Ctrl-C reaches all of a terminal
    errors = run.communicate(timeout=30)[1]
    assert errors.count("KeyboardInterrupt") == (ended is signal.SIGINT)  # said by the run, by no worker
    until(lambda: not alive(worker))
    (tmp_path / "permit").touch()
    jobs = [Job("quick", partial(count, 1)), Job("slow", partial(wait_for, tmp_path / "permit"))]
    run_jobs(jobs, tmp_path / "run", way="serial")
    assert times_done(tmp_path / "run/quick") == 1


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"""
import pathlib, time
from functools import partial
from trustnlp.models.many import Job, run_jobs
from small_jobs import nap
run_jobs([Job(f"nap-{{n}}", nap) for n in range(300)], pathlib.Path({str(tmp_path)!r}) / "run", workers=2)
""")
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.endswith("must guard its own calls by: if __name__ == '__main__'\n")


def test_what_cannot_be_sent_or_stored_is_refused(tmp_path: Path) -> None:
    local = [Job(f"local-{n}", lambda folder: {"a": np.zeros(1)}) for n in range(2)]
    with pytest.raises(ArgumentError, match=r"picklable where workers do them.*without other processes"):
        run_jobs(local, tmp_path, way="processes")
    assert len(run_jobs(local, tmp_path, way="serial")) == 2
    with pytest.raises(RunError, match="arrays of numbers"):
        run_jobs([Job("objects", lambda folder: {"a": np.array([{}])})], tmp_path, way="serial")
    assert not (tmp_path / "objects" / RESULT).exists()


def test_a_damaged_result_is_refused(tmp_path: Path) -> None:
    run_jobs(counting(1), tmp_path, way="serial")
    (tmp_path / "job-0" / RESULT).write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(RunError, match="delete it"):
        run_jobs(counting(1), tmp_path, way="serial")


def test_arguments_that_break_their_rules(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="distinct names"):
        run_jobs([*counting(1), *counting(1)], tmp_path)
    with pytest.raises(ArgumentError, match="one of 'auto', 'serial', 'processes'"):
        run_jobs(counting(1), tmp_path, way="threads")
    with pytest.raises(ArgumentError, match="workers"):
        run_jobs(counting(1), tmp_path, workers=0)
    for name in ("", "a/b", ".", "../up"):
        with pytest.raises(ArgumentError, match="letters, digits"):
            Job(name, partial(count, 0))
    assert run_jobs([], tmp_path) == []


def test_a_job_shows_nothing_of_its_data() -> None:
    assert "my pin is" not in repr(Job("secret", partial(count, "my pin is 1234")))
