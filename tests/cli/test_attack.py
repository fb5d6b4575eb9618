"""The reviewer's walk: attack a model that somebody else has trained, then hold the results against a policy."""

import json
import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from small_checkpoints import classifier, rows
from trustnlp.cli.app import app
from trustnlp.errors import ArgumentError
from trustnlp.results import Finding, Results, Verdict
from trustnlp.studies import attack_canaries, attack_membership, engine_audit

STRICT = Path(__file__).parents[2] / "docs" / "strict.toml"
MEMBERS, NONMEMBERS, OTHERS = rows(2000, 3)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    monkeypatch.setattr(sys, "argv", ["trustnlp", *arguments])
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "140"})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    root = tmp_path_factory.mktemp("files")
    for name, given in (("A", MEMBERS), ("B", NONMEMBERS)):
        lines = [json.dumps({"text": text, "label": label}) for text, label in given]
        (root / f"{name}.jsonl").write_text("\n".join(lines))
    return ("--members", str(root / "A.jsonl"), "--nonmembers", str(root / "B.jsonl"))


class TestTheReviewersWalk:
    def test_a_leaky_model_fails_with_a_clear_table(
        self, files: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = classifier(MEMBERS, tmp_path / "leaky", steps=60)
        out = str(tmp_path / "review")
        attacked = call(monkeypatch, "attack", "membership", "--model", str(model), *files, "--out", out, "--seed", "1")
        assert attacked.exit_code == 0, attacked.output
        assert re.fullmatch(rf"report +{re.escape(out)}/report.html", attacked.stderr.splitlines()[-1])
        assert "leaks" in attacked.stderr
        page = (tmp_path / "review/report.html").read_text(encoding="utf-8")
        assert "<h1>Attack on leaky</h1>" in page
        assert "explanation for" not in page  # every figure is explained

        gated = call(monkeypatch, "gate", out, "--policy", str(STRICT))
        assert gated.exit_code == 1
        assert "gate closed" in gated.output
        broken = [line for line in gated.output.splitlines() if "broken" in line]
        assert any("membership-loss-auc" in line and "≤ 60.0%" in line for line in broken)
        assert "no attack may tell a" in gated.output

    def test_a_model_that_never_saw_the_texts_passes(
        self, files: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = classifier(OTHERS, tmp_path / "private", steps=30)
        out = str(tmp_path / "review")
        attacked = call(monkeypatch, "attack", "membership", "--model", str(model), *files, "--out", out, "--seed", "1")
        assert attacked.exit_code == 0, attacked.output
        assert "warning" not in attacked.stderr
        gated = call(monkeypatch, "gate", out, "--policy", str(STRICT))
        assert gated.exit_code == 0, gated.output
        assert "gate open" in gated.output


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list:
    """What the studies are asked for, instead of doing it."""
    found: list = []
    blind = Finding("blind-classifier-auc", "Blind", 0.9, 0.8, 1.0, verdict=Verdict.BIASED_SPLIT)

    def hear(request: object, out: Path, **more: object) -> Results:
        found.append((request, out, more))
        return Results({"corpus": {"name": "c"}}, (blind,))

    for module in (attack_membership, attack_canaries, engine_audit):
        monkeypatch.setattr(module, "run", hear)
    return found


def test_options_become_the_request(asked: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {
        "--model": "m",
        "--members": "a.csv",
        "--nonmembers": "b.csv",
        "--shadows": "16",
        "--shadow-model": "bilstm",
        "--population": "c.csv",
        "--epsilon": "8",
        "--delta": "1e-6",
        "--fpr": "0.01",
        "--column": "text=said",
        "--group": "region",
        "--limit": "99",
        "--seed": "3",
        "--device": "cuda:1",
        "--out": str(tmp_path),
    }
    flat = [part for pair in options.items() for part in pair]
    outcome = call(monkeypatch, "attack", "membership", *flat, "--reference", "r", "--reference", "s", "--overwrite")
    assert outcome.exit_code == 0, outcome.output
    ((request, out, more),) = asked
    assert request == attack_membership.Request(
        model="m",
        members=Path("a.csv"),
        nonmembers=Path("b.csv"),
        references=("r", "s"),
        shadows=16,
        shadow_model="bilstm",
        population=Path("c.csv"),
        epsilon=8.0,
        delta=1e-6,
        fpr=0.01,
        group="region",
        limit=99,
        seed=3,
        device="cuda:1",
        columns={"text": "said"},
    )
    assert (out, more["overwrite"]) == (tmp_path, True)
    assert more["command"].startswith("trustnlp attack membership --model m")
    assert str(tmp_path) not in more["command"]


def test_a_run_in_place_of_files(asked: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_run = ("--run", "runs/a", "--regime", "private", "--out", str(tmp_path))
    assert call(monkeypatch, "attack", "membership", *of_run).exit_code == 0
    assert call(monkeypatch, "attack", "canaries", *of_run, "--no-invert").exit_code == 0
    assert [request for request, *_ in asked] == [
        attack_membership.Request(run=Path("runs/a"), regime="private"),
        attack_canaries.Request(run=Path("runs/a"), regime="private", invert=False),
    ]


def test_canaries_of_a_file(asked: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ("--model", "m", "--canaries", "planted.jsonl", "--seed", "2", "--device", "cuda", "--out", str(tmp_path))
    assert call(monkeypatch, "attack", "canaries", *given).exit_code == 0
    assert asked[0][0] == attack_canaries.Request("m", Path("planted.jsonl"), seed=2, device="cuda")


def test_an_audit_of_the_engine(asked: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "mechanism": "layerwise",
        "epsilon": 1.0,
        "delta": 1e-6,
        "canaries": 799,
        "steps": 4,
        "noise": "secure",
        "seed": 5,
    }
    flat = [part for name, value in given.items() for part in (f"--{name}", str(value))]
    assert call(monkeypatch, "attack", "audit", "--out", str(tmp_path), *flat).exit_code == 0
    assert call(monkeypatch, "attack", "audit", "--out", str(tmp_path)).exit_code == 0
    assert [request for request, *_ in asked] == [engine_audit.Request(**given), engine_audit.Request()]


def test_a_biased_split_is_warned_of(asked: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = call(monkeypatch, "attack", "membership", "--run", "runs/a", "--out", str(tmp_path))
    assert "biased split" in outcome.stderr
    assert "warning   members and non-members are told apart without the model" in outcome.stderr


def test_without_a_model_nothing_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = call(monkeypatch, "attack", "membership", "--out", str(tmp_path / "run"))
    assert isinstance(outcome.exception, ArgumentError)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", [[], ["membership"], ["canaries"], ["audit"]])
def test_every_command_has_help(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = call(monkeypatch, "attack", *command, "--help")
    assert outcome.exit_code == 0
    assert "Usage:" in outcome.output
