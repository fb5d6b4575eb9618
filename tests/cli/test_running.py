"""What is recorded of a command line; the commands that fill folders test the rest."""

import pytest

from trustnlp.cli.running import recorded_command


@pytest.mark.parametrize("out", [["--out", "runs/a"], ["--out=runs/b"], ["--out", "runs/c", "--overwrite"]])
def test_the_recorded_command_does_not_say_where_it_wrote(out: list[str]) -> None:
    recorded = recorded_command(["assess", *out, "--data", "my tickets.csv"])
    assert recorded == "trustnlp assess --data 'my tickets.csv'"
