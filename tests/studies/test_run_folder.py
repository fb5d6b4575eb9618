import os
from pathlib import Path

import pytest

from trustnlp.errors import RunError
from trustnlp.results import Finding, Results
from trustnlp.studies.run_folder import choose_seed, open_run

REQUEST = {"data": "snips", "seed": 0, "regimes": ["plain"]}


def test_the_same_request_goes_on_in_its_folder(tmp_path: Path) -> None:
    (open_run(tmp_path / "run", REQUEST).path / "model.safetensors").touch()
    assert (open_run(tmp_path / "run", REQUEST).path / "model.safetensors").exists()


def test_another_request_is_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    open_run(tmp_path, REQUEST).log("trained")
    with pytest.raises(RunError, match=r"holds another run \(epsilon, seed differ\); .*--overwrite"):
        open_run(tmp_path, {**REQUEST, "seed": 1, "epsilon": 8})
    assert "trained" in (tmp_path / "log.txt").read_text()


def test_overwrite_starts_afresh_but_only_over_a_run(tmp_path: Path) -> None:
    open_run(tmp_path / "run", REQUEST).log("old")
    open_run(tmp_path / "run", {**REQUEST, "seed": 1}, overwrite=True)
    assert os.listdir(tmp_path / "run") == ["request.json"]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").touch()
    with pytest.raises(RunError, match="holds files of something else"):
        open_run(tmp_path / "photos", REQUEST, overwrite=True)
    assert (tmp_path / "photos/cat.jpg").exists()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(RunError, match="is a file"):
        open_run(tmp_path / "out", REQUEST)


@pytest.mark.parametrize(("text", "message"), [("{", "is damaged"), ("[]", "holds another run")])
def test_a_damaged_request_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "request.json").write_text(text)
    with pytest.raises(RunError, match=message):
        open_run(tmp_path, REQUEST)


def test_the_record_says_how_the_run_was_made(tmp_path: Path) -> None:
    run = open_run(tmp_path, REQUEST)
    with run.timed("training"):
        pass
    record = run.record("trustnlp assess")
    assert record["seed"] == 0
    assert record["seconds"]["training"] >= 0
    assert {"torch", "dp-accounting", "trustnlp"} <= set(record["versions"])
    assert record["hashes"] == open_run(tmp_path, REQUEST).record("again")["hashes"]


def test_a_seed_is_asked_for_or_held_or_drawn_so_that_nobody_guesses_it(tmp_path: Path) -> None:
    drawn = choose_seed(tmp_path / "new", None)
    assert drawn != choose_seed(tmp_path / "new", None)
    open_run(tmp_path / "run", {**REQUEST, "seed": drawn})
    assert choose_seed(tmp_path / "run", None) == drawn
    assert choose_seed(tmp_path / "run", 3) == 3


def test_a_secret_seed_stays_in_the_request(tmp_path: Path) -> None:
    run = open_run(tmp_path, {**REQUEST, "seed": 987654321})
    command = "trustnlp assess --seed 987654321 --out here"
    assert "987654321" not in str(run.record(command, secret_seed=True))
    assert run.record(command)["seed"] == 987654321
    other = open_run(tmp_path / "other", {**REQUEST, "seed": 1}).record(command, secret_seed=True)
    assert other["hashes"] == run.record(command, secret_seed=True)["hashes"]  # or the seed could be found by trying


def test_what_was_found_is_written_with_how_the_run_was_made(tmp_path: Path) -> None:
    run = open_run(tmp_path, {**REQUEST, "seed": 5})
    found = run.finish([Finding("label-accuracy", "Accuracy", 0.5)], "trustnlp train", secret_seed=True, facts={"a": 1})
    assert Results.load(tmp_path).findings == found.findings
    assert (found.run["a"], found.run["seed"], found.run["command"]) == (1, None, "trustnlp train")
