import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustnlp.errors import PolicyError
from trustnlp.report.gate import Policy, Rule, State, gate
from trustnlp.results import Finding, Results, Verdict

EXAMPLE = Path(__file__).parents[2] / "docs" / "policy.example.toml"
HEAD = '[[rule]]\nfinding = "gap"\n'


def finding(value: float | None, low: float | None = None, high: float | None = None, **fields: object) -> Finding:
    return Finding("gap", "Gap", value, low, high, **fields)


def state(rule: str, *findings: Finding) -> State:
    import tomllib

    policy = Policy.model_validate(tomllib.loads(HEAD + rule))
    (row,) = gate(Results({}, findings), policy).rows
    return row.state


def policy_file(folder: Path, text: str) -> Path:
    path = folder / "policy.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("rule", "low", "value", "high", "expected"),
    [
        ("ceiling = 0.1", 0.02, 0.05, 0.08, State.PASSED),
        ("ceiling = 0.1", 0.02, 0.05, 0.10, State.PASSED),
        ("ceiling = 0.1", 0.02, 0.05, 0.12, State.INSUFFICIENT),
        ("ceiling = 0.1", 0.08, 0.15, 0.20, State.INSUFFICIENT),
        ("ceiling = 0.1", 0.12, 0.15, 0.20, State.BROKEN),
        ("ceiling = 0.1", None, 0.05, None, State.PASSED),
        ("ceiling = 0.1", None, 0.15, None, State.BROKEN),
        ("ceiling = 0.1", 0.02, 0.05, None, State.INSUFFICIENT),
        ("ceiling = 0.1", None, 0.05, 0.08, State.PASSED),
        ("ceiling = 0.1", None, 0.15, 0.20, State.INSUFFICIENT),
        ("floor = 0.9", 0.91, 0.95, 0.97, State.PASSED),
        ("floor = 0.9", 0.85, 0.95, 0.97, State.INSUFFICIENT),
        ("floor = 0.9", 0.80, 0.85, 0.88, State.BROKEN),
        ("floor = 0.2\nceiling = 0.4", 0.25, 0.3, 0.35, State.PASSED),
        ("floor = 0.2\nceiling = 0.4", 0.25, 0.3, 0.45, State.INSUFFICIENT),
        ("floor = 0.2\nceiling = 0.4", 0.45, 0.5, 0.55, State.BROKEN),
        ('ceiling = 0.1\non = "value"', 0.02, 0.05, 0.12, State.PASSED),
        ('ceiling = 0.1\non = "value"', 0.08, 0.15, 0.20, State.INSUFFICIENT),
        ('ceiling = 0.1\non = "low"', 0.08, 0.15, 0.20, State.PASSED),
        ('floor = 0.9\non = "high"', 0.85, 0.88, 0.91, State.PASSED),
    ],
)
def test_a_limit_against_an_interval(
    rule: str, low: float | None, value: float, high: float | None, expected: State
) -> None:
    assert state(rule, finding(value, low, high)) is expected


def test_what_could_not_be_measured_is_never_passed() -> None:
    unmeasured = finding(None, verdict=Verdict.INSUFFICIENT_EVIDENCE)
    doubtful = finding(0.01, 0.0, 0.02, verdict=Verdict.INSUFFICIENT_EVIDENCE)
    assert state("ceiling = 0.5", unmeasured) is State.INSUFFICIENT
    assert state("ceiling = 0.5", doubtful) is State.INSUFFICIENT


def test_a_rule_without_finding_is_missing_and_closes_the_gate() -> None:
    assert state("ceiling = 0.5") is State.MISSING
    assert state('ceiling = 0.5\nregime = "private"', finding(0.1).of("plain")) is State.MISSING


def test_globs_hold_every_matching_finding() -> None:
    findings = tuple(
        Finding(f"membership-{a}-auc", a, 0.5, regime=r) for a in ("loss", "lira") for r in ("plain", "private")
    )
    policy = Policy(rule=[Rule(finding="membership-*-auc", regime="priv*", ceiling=0.6)])
    rows = gate(Results({}, (*findings, finding(0.9))), policy).rows
    assert [(row.finding.id, row.finding.regime) for row in rows if row.finding] == [
        ("membership-loss-auc", "private"),
        ("membership-lira-auc", "private"),
    ]


@pytest.mark.parametrize(
    ("values", "insufficient", "status"),
    [
        ([(0.0, 0.1)], "fail", 0),
        ([(0.0, 0.1), (0.4, 0.6)], "fail", 3),
        ([(0.0, 0.1), (0.4, 0.6)], "pass", 0),
        ([(0.6, 0.7), (0.4, 0.6)], "pass", 1),
        ([], "pass", 1),
    ],
)
def test_status(values: list[tuple[float, float]], insufficient: str, status: int) -> None:
    findings = tuple(finding((low + high) / 2, low, high).of(str(i)) for i, (low, high) in enumerate(values))
    policy = Policy.model_validate({"insufficient": insufficient, "rule": [{"finding": "gap", "ceiling": 0.5}]})
    report = gate(Results({}, findings), policy)
    assert report.status == status
    assert report.conclusion().startswith("gate open" if status == 0 else "gate closed")


@given(
    limit=st.floats(0, 1),
    ends=st.lists(st.floats(0, 1), min_size=3, max_size=3).map(sorted),
    on=st.sampled_from([None, "low", "value", "high"]),
)
def test_a_ceiling_mirrored_is_a_floor(limit: float, ends: list[float], on: str | None) -> None:
    low, value, high = ends
    mirrored = {None: None, "low": "high", "high": "low", "value": "value"}[on]
    one = gate(Results({}, (finding(value, low, high),)), Policy(rule=[Rule(finding="gap", ceiling=limit, on=on)]))
    other = gate(
        Results({}, (finding(-value, -high, -low),)), Policy(rule=[Rule(finding="gap", floor=-limit, on=mirrored)])
    )
    assert one.rows[0].state is other.rows[0].state


@given(limit=st.floats(0, 1), ends=st.lists(st.floats(0, 1), min_size=3, max_size=3).map(sorted))
def test_a_wider_interval_never_decides_more(limit: float, ends: list[float]) -> None:
    low, value, high = ends
    policy = Policy(rule=[Rule(finding="gap", ceiling=limit)])
    narrow = gate(Results({}, (finding(value, low, high),)), policy).rows[0].state
    wide = gate(Results({}, (finding(value, low - 0.1, high + 0.1),)), policy).rows[0].state
    assert wide in {narrow, State.INSUFFICIENT}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (HEAD + "celing = 0.1\n", r"policy.toml:3: rule.0.celing: is no key"),
        ("insufficent = 'fail'\n" + HEAD + "ceiling = 1\n", r"policy.toml:1: insufficent: is no key"),
        (HEAD + "ceiling = 0.1\n" + HEAD + "floor = 'high'\n", r"policy.toml:6: rule.1.floor: .*got 'high'"),
        (HEAD, r"policy.toml:1: rule.0: a rule needs a ceiling"),
        (HEAD + "ceiling = nan\n", r"policy.toml:3: rule.0.ceiling: .*finite"),
        (HEAD + "ceiling = inf\n", r"policy.toml:3: rule.0.ceiling: .*finite"),
        (HEAD + "ceiling = true\n", r"policy.toml:3: rule.0.ceiling: .*got True"),
        (HEAD + "ceiling = 0.1\nfloor = 0.2\n", r"floor must not lie above"),
        (HEAD + "ceiling = 0.1\non = 'middle'\n", r"policy.toml:4: rule.0.on: .*got 'middle'"),
        ("rule = []\n", r"policy.toml:1: rule: "),
        ("", r"policy.toml: rule: Field required"),
        ("[[rule]\n", r"cannot read the policy .*line 1"),
    ],
)
def test_a_bad_policy_is_refused_with_its_place(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(PolicyError, match=complaint):
        Policy.load(policy_file(tmp_path, text))


def test_a_policy_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"cannot read the policy .*nowhere.toml"):
        Policy.load(tmp_path / "nowhere.toml")


def test_a_percentage_written_as_a_fraction_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"ceiling = 5 for 'gap', which is a fraction; write 0.05 for 5%"):
        state("ceiling = 5", finding(0.02))
    assert state("ceiling = 5", finding(2.0, unit="bits")) is State.PASSED


def test_the_example_policy_holds_the_figures_of_a_run(results: Results) -> None:
    rows = gate(results, Policy.load(EXAMPLE)).rows
    assert {row.state for row in rows} == {State.PASSED, State.INSUFFICIENT}
    assert len(rows) == 7


def test_a_row_is_json(results: Results) -> None:
    policy = Policy(rule=[Rule(finding="epsilon", ceiling=8.0), Rule(finding="nothing", floor=0.0)])
    kept, missing = json.loads(json.dumps([row.record() for row in gate(results, policy).rows]))
    assert (kept["finding"], kept["regime"], kept["value"], kept["state"]) == ("epsilon", "private", 7.98, "passed")
    assert (missing["finding"], missing["state"]) == (None, "missing")
