import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from trustnlp.cli import gate
from trustnlp.errors import PolicyError
from trustnlp.results import Finding, Results, Verdict

app = typer.Typer()
app.command()(gate.gate)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    findings = (
        Finding("epsilon", "Budget", 7.98, unit="epsilon", regime="private"),
        Finding("gap", "Gap [red]", 0.2, 0.1, 0.3, regime="private"),
        Finding("unmeasured", "Unmeasured", None, verdict=Verdict.INSUFFICIENT_EVIDENCE),
    )
    Results({}, findings).save(tmp_path)
    return tmp_path


def hold(run: Path, rules: dict[str, str], *flags: str, head: str = "") -> tuple[int, str]:
    policy = run / "policy.toml"
    policy.write_text(head + "".join(f'[[rule]]\nfinding = "{id}"\n{limit}\n' for id, limit in rules.items()))
    outcome = CliRunner().invoke(app, [str(run), "--policy", str(policy), *flags], env={"COLUMNS": "160"})
    if outcome.exception and not isinstance(outcome.exception, SystemExit):
        raise outcome.exception
    return outcome.exit_code, outcome.output


def test_an_open_gate(run: Path) -> None:
    status, shown = hold(run, {"epsilon": "ceiling = 8.0"})
    assert status == 0
    assert "gate open: 1 passed" in shown
    assert "≤ 8" in shown


def test_a_broken_rule_closes_it_and_says_why(run: Path) -> None:
    status, shown = hold(run, {"epsilon": 'ceiling = 4.0\nwhy = "[bold]promised[/bold]"', "gap": "ceiling = 0.5"})
    assert status == 1
    assert "gate closed: 1 passed, 1 broken" in shown
    assert "[bold]promised[/bold]" in shown  # what a file says is never markup


def test_a_reason_stands_beside_the_first_figure_of_its_rule(run: Path) -> None:
    _, shown = hold(run, {"*p*": 'ceiling = 0.05\nwhy = "promised"'})
    assert shown.count("promised") == 1
    assert "gap" in shown
    assert "epsilon" in shown


def test_insufficient_evidence_is_a_state_of_its_own(run: Path) -> None:
    assert hold(run, {"gap": "ceiling = 0.25"})[0] == 3
    assert hold(run, {"unmeasured": "ceiling = 0.25"})[0] == 3
    assert hold(run, {"gap": "ceiling = 0.25"}, head='insufficient = "pass"\n')[0] == 0


def test_a_rule_that_nothing_answers_closes_it(run: Path) -> None:
    status, shown = hold(run, {"gapp": "ceiling = 0.25"})
    assert status == 1
    assert "1 missing" in shown


def test_json(run: Path) -> None:
    status, shown = hold(run, {"gap": "ceiling = 0.05"}, "--json")
    record = json.loads(shown)
    assert record["status"] == status == 1
    assert record["rows"][0]["state"] == "broken"
    assert record["rows"][0]["low"] == 0.1


def test_a_policy_is_asked_for(run: Path) -> None:
    assert CliRunner().invoke(app, [str(run)]).exit_code == 2
    with pytest.raises(PolicyError, match="is no key"):
        hold(run, {"gap": "roof = 0.05"})
