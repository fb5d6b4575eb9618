import io
import re

import pytest
from rich.console import Console

from trustnlp.cli.live import LiveProgress


def shown(calls, *, terminal: bool, width: int = 120) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=width)
    with LiveProgress(console) as progress:
        for call in calls:
            progress(*call)
    return console.file.getvalue()


def steps(stage: str, total: int, last: int | None = None, **figures: float) -> list[tuple]:
    return [(stage, done, total, figures) for done in range(1, (last or total) + 1)]


def test_elsewhere_there_is_one_line_a_stage() -> None:
    calls = [*steps("plain training", 3, loss=0.25, accuracy=0.5), *steps("plain canaries", 2)]
    assert shown(calls, terminal=False).splitlines() == [
        "  plain training           3/3  loss 0.250  accuracy 0.500",
        "  plain canaries           2/2",
    ]


def test_a_stage_that_stops_early_has_its_line_too() -> None:
    calls = [*steps("plain training", 9, last=4), *steps("plain canaries", 2), *steps("private training", 9, last=5)]
    lines = shown(calls, terminal=False).splitlines()
    assert [line.split()[-1] for line in lines] == ["4/9", "2/2", "5/9"]


def test_an_interrupted_stage_says_how_far_it_came() -> None:
    console = Console(file=io.StringIO(), force_terminal=False)

    def interrupted() -> None:
        with LiveProgress(console) as progress:
            progress("plain training", 3, 9, {"loss": 0.5})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert console.file.getvalue().split() == ["plain", "training", "3/9", "loss", "0.500"]


def test_a_line_is_never_wrapped_or_read_as_markup() -> None:
    figures = {"loss": 0.1, "accuracy": 0.2, "slot_f1": 0.3, "tag_accuracy": 0.4}
    (line,) = shown(steps("[red]training", 100, **figures), terminal=False, width=40).splitlines()
    assert line == "  [red]training            100/100  loss 0.100  accuracy 0.200  slot_f1 0.300  tag_accuracy 0.400"


def test_figures_that_nobody_follows_are_left_out() -> None:
    assert "score" not in shown(steps("plain training", 1, score=0.5, loss=1.0), terminal=False)


def test_a_terminal_shows_the_stage_its_place_and_its_figures() -> None:
    calls = [*steps("plain training", 8, loss=0.25), *steps("plain canaries", 5, last=2)]
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown(calls, terminal=True))
    bars = [" ".join(line.split()) for line in plain.replace("\r", "\n").splitlines() if line.strip()]
    assert any("plain training" in bar and "8/8 loss 0.250" in bar for bar in bars)
    assert any("plain canaries" in bar and "2/5" in bar for bar in bars)
    assert "\x1b[" in shown(calls, terminal=True)


def test_nothing_is_said_of_nothing() -> None:
    assert shown([], terminal=False) == ""
