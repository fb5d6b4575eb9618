import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from trustnlp.cli.data import app
from trustnlp.data import registry


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv(registry.VARIABLE, raising=False)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_the_list_names_every_corpus_and_how_to_set_the_folder() -> None:
    done = run("list")
    assert done.exit_code == 0
    for name in (registry.SYNTHETIC, *registry.RECORDS):
        assert re.search(rf"^ ?{name} ", done.stdout, re.MULTILINE)
    assert "export TRUSTNLP_DATA=/path/to/corpora" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_the_list_says_what_is_here_and_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(registry.VARIABLE, str(tmp_path))
    (tmp_path / "amazon-instruments").mkdir()
    (tmp_path / "amazon-instruments/reviews.jsonl").write_text('{"text": "a", "label": "5"}\n')
    (tmp_path / "banking77").mkdir()
    lines = {line.split()[0]: line for line in run("list").stdout.splitlines() if line.strip()}
    assert lines["amazon-instruments"].rstrip().endswith("yes, 0.0 MB")
    assert lines["banking77"].rstrip().endswith("2 files missing")
    assert lines["atis"].rstrip().endswith("no")


def test_a_usable_file_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("said,topic,who,[sex],when\n" + "hello you,greet [x],ann,f,1\nbye,part,bob,m,2\n" * 20)
    columns = ("text=said", "label=topic", "user=who", "time=when")
    done = run("check", str(path), "--group", "[sex]", *(part for each in columns for part in ("--column", each)))
    assert done.exit_code == 0, done.output
    shown = " ".join(done.stdout.split())
    for part in (
        "mine is usable",
        "train 32 texts",
        "labels 2: greet [x], part",
        "groups 2: f, m",
        "users 2",
        "times 1 to 2",
    ):
        assert part in shown
    assert "hello" not in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["snisp"], "did you mean 'snips'"),
        (["snips"], "TRUSTNLP_DATA is not set; set TRUSTNLP_DATA to the folder"),
        (["FILE"], "mine.csv:3: no label, as other rows have one"),
        (["FILE", "--column", "text"], "'column' must be ROLE=NAME, such as text=utterance, got 'text'"),
        (["FILE", "--column", "text=7"], "no column 7 for the text"),
    ],
)
def test_what_is_not_usable_exits_with_one_and_the_reason(tmp_path: Path, arguments: list[str], message: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("text,label\na,x\nb,\n")
    done = run("check", *[str(path) if each == "FILE" else each for each in arguments])
    assert done.exit_code == 1
    assert message in done.stderr


def test_without_a_name_all_that_are_here_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("check")
    assert done.exit_code == 0
    assert re.search(r"usable +synthetic", done.stdout)
    assert "no public corpus was checked" in done.stdout
    monkeypatch.setenv(registry.VARIABLE, str(tmp_path))
    (tmp_path / "banking77").mkdir()
    done = run("check")
    assert done.exit_code == 1
    assert "missing banking77/train.csv, banking77/test.csv" in done.stderr
