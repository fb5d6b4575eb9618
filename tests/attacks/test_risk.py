"""Risk by group: planted leaks are found where they are, none is found where there is none, no text is kept."""

import hashlib
import json
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustnlp.attacks.risk import (
    FILE_NAME,
    KEY_NAME,
    by_activity,
    by_length,
    evaluate,
    fingerprint,
    look_up,
    named,
    save,
)
from trustnlp.data.corpus import Example
from trustnlp.errors import ArgumentError, GuaranteeError, RunError
from trustnlp.results import Finding, Verdict

TEXTS = 400
FPR = 0.05


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def texts(number: int = TEXTS, **fields: list) -> list[Example]:
    return [
        Example(f"text {i}", **{name: values[i % len(values)] for name, values in fields.items()})
        for i in range(number)
    ]


def halves(draw: np.random.Generator, models: int, number: int = TEXTS) -> np.ndarray:
    return draw.random((models, number)).argsort(axis=0) < models // 2


def of_kind(kind: str, findings: tuple[Finding, ...]) -> Finding:
    (found,) = [finding for finding in findings if finding.id == f"risk-by-{kind}"]
    return found


@given(st.integers(0, 10_000), st.floats(0.01, 0.9))
def test_texts_at_the_threshold_or_above_are_named(seed: int, fpr: float) -> None:
    draw = generator(seed)
    scores = draw.integers(0, 12, (3, 40)).astype(float)  # many ties
    inside = halves(draw, 2, 40)[[0, 1, 0]]
    found = named(scores, inside, fpr)
    for row, mine, hits in zip(scores, inside, found, strict=True):
        outside = row[~mine]
        reached = [score for score in outside if sum(outside >= score) <= int(fpr * len(outside))]
        np.testing.assert_array_equal(hits, [bool(reached) and score >= min(reached) for score in row])


def test_the_most_exposed_group_is_found() -> None:
    draw = generator()
    inside = halves(draw, 8)
    labels = np.array([i % 4 for i in range(TEXTS)])
    scores = draw.normal(size=inside.shape) + 2.0 * (inside & (labels == 2))
    found = of_kind("label", evaluate(scores, inside, texts(label=list("abcd")), attack="lira", fpr=FPR))
    assert found.verdict is Verdict.LEAKS
    most, *rest = found.details["groups"]
    assert most["group"] == "c"
    assert most["low"] > 0.3
    assert all(other["low"] < 0.02 for other in rest)
    # By hand, for the group and at the threshold: the share of members named, less that of non-members.
    hits, mine = named(scores, inside, FPR)[:, labels == 2], inside[:, labels == 2]
    assert found.value == pytest.approx(hits[mine].mean() - hits[~mine].mean())
    assert most["members_named"] == pytest.approx(hits[mine].mean())
    assert found.low <= found.value <= found.high


def test_what_merely_looks_like_a_member_is_no_risk() -> None:
    draw = generator(1)
    inside = halves(draw, 8)
    easy = np.array([i % 2 == 0 for i in range(TEXTS)])
    scores = draw.normal(size=inside.shape) + 3.0 * easy  # for members and non-members alike
    found = of_kind("label", evaluate(scores, inside, texts(label=["easy", "hard"]), attack="loss", fpr=FPR))
    shares = {group["group"]: group for group in found.details["groups"]}
    assert shares["easy"]["members_named"] > 0.08
    assert shares["hard"]["members_named"] < 0.01
    assert found.verdict is not Verdict.LEAKS


def simulated(seed: int, models: int, risk: float) -> Finding:
    """Three groups, in one of which `risk` of the members get the highest scores; FPR 5%."""
    draw = generator(seed)
    inside = halves(draw, models) if models > 1 else draw.random((1, TEXTS)) < 0.5
    exposed = np.arange(TEXTS) % 3 == 0
    scores = draw.normal(size=inside.shape)
    scores[(draw.random(inside.shape) < risk) & inside & exposed] = 10.0
    return of_kind("label", evaluate(scores, inside, texts(label=list("abc")), attack="loss", fpr=FPR))


@pytest.mark.parametrize("models", [1, 6])
def test_without_a_leak_an_alarm_is_rare(models: int) -> None:
    alarms = sum(simulated(seed, models, 0.0).verdict is Verdict.LEAKS for seed in range(200))
    assert alarms <= 11  # 2.5% are meant: 11 of 200 or fewer in 99% of cases


@pytest.mark.parametrize("models", [1, 6])
def test_intervals_cover_the_largest_risk(models: int) -> None:
    # A member of the exposed group is named if it is planted or, as any text, by chance.
    risk = 0.3
    truth = risk + (1 - risk) * FPR - FPR
    findings = [simulated(seed, models, risk) for seed in range(200)]
    covered = sum(found.low <= truth <= found.high for found in findings)
    assert covered >= 183  # 95% are meant: 183 of 200 or more in 98% of cases
    assert np.mean([found.value for found in findings]) == pytest.approx(truth, abs=0.03)


def test_no_leak_is_claimed_only_of_groups_that_are_all_large_enough() -> None:
    draw = generator(2)
    inside = halves(draw, 40, 2000)
    scores = draw.normal(size=inside.shape)
    large = evaluate(scores, inside, texts(2000, label=["a", "b"]), attack="lira", fpr=FPR)
    assert of_kind("label", large).verdict is Verdict.NO_LEAK_FOUND
    few = [*texts(1980, label=["a", "b"]), *texts(20, label=["rare"])]
    found = of_kind("label", evaluate(scores, inside, few, attack="lira", fpr=FPR))
    assert found.verdict is Verdict.INSUFFICIENT_EVIDENCE
    assert found.details["not_compared"] == [{"group": "rare", "n": 20}]
    assert "insufficient evidence for 'rare' (n=20)" in found.details["notes"][0]
    assert {group["group"] for group in found.details["groups"]} == {"a", "b"}


def test_too_few_users_or_texts_give_no_figure() -> None:
    draw = generator(3)
    inside, scores = halves(draw, 8), draw.normal(size=(8, TEXTS))
    one_user = of_kind("group", evaluate(scores, inside, texts(group=["x"], user=["u1"]), attack="lira", fpr=FPR))
    assert one_user.value is None
    assert one_user.verdict is Verdict.INSUFFICIENT_EVIDENCE
    assert "5 users" in one_user.details["reason"]
    unresolved = evaluate(scores, inside, texts(label=["a"]), attack="lira", fpr=0.001)
    assert of_kind("label", unresolved).verdict is Verdict.INSUFFICIENT_EVIDENCE
    assert "give at least 1000" in of_kind("label", unresolved).details["reason"]


def test_texts_of_one_user_are_one_unit() -> None:
    draw = generator(4)
    inside = halves(draw, 2)
    scores = draw.normal(size=inside.shape)
    alone = of_kind("group", evaluate(scores, inside, texts(group=["x"]), attack="loss", fpr=FPR))
    shared = texts(group=["x"], user=[f"u{i}" for i in range(20)])
    clustered = of_kind("group", evaluate(scores, inside, shared, attack="loss", fpr=FPR))
    assert alone.n == TEXTS
    assert clustered.n == 20
    assert clustered.value == alone.value


def test_only_kinds_of_groups_that_there_are() -> None:
    draw = generator(5)
    inside, scores = halves(draw, 2), draw.normal(size=(2, TEXTS))
    found = evaluate(scores, inside, texts(), attack="loss", fpr=FPR)
    assert [finding.id for finding in found] == ["risk-by-length"]
    some = texts(label=["a", None], user=["u1", "u2", None], group=["x"])
    found = evaluate(scores, inside, some, attack="loss", fpr=FPR)
    assert [f.id for f in found] == ["risk-by-label", "risk-by-length", "risk-by-activity", "risk-by-group"]
    assert of_kind("label", found).details["unknown"] == TEXTS // 2


def test_quarters_of_the_pool() -> None:
    lengths = [Example("w " * n) for n in (1, 1, 2, 3, 4, 5, 9, 12)]
    assert by_length(lengths) == [
        "1 words",
        "1 words",
        "2 to 3 words",
        "2 to 3 words",
        "4 to 5 words",
        "4 to 5 words",
        "9 to 12 words",
        "9 to 12 words",
    ]
    users = [Example("a", user=user) for user in ("u", "v", "v", None, "w", "w", "w", "w")]
    activity = by_activity(users)
    assert activity[3] is None
    assert activity[4:] == ["4 texts a user"] * 4
    assert activity[:3] == ["1 to 2 texts a user"] * 3
    assert by_length([Example("a b"), Example("c d")]) == ["2 words"] * 2


def test_input_that_would_make_a_figure_wrong() -> None:
    inside = halves(generator(), 2)
    scores = np.zeros((2, TEXTS))
    with pytest.raises(GuaranteeError, match="1 of 800 scores"):
        evaluate(np.where(np.arange(TEXTS) + np.array([[0], [1]]) == 0, np.nan, 0.0), inside, texts(), attack="loss")
    with pytest.raises(ArgumentError, match="members and non-members of every model"):
        evaluate(scores, np.ones((2, TEXTS), bool), texts(), attack="loss")
    with pytest.raises(ArgumentError, match="true or false for each"):
        evaluate(scores, inside[:1], texts(), attack="loss")
    with pytest.raises(ArgumentError, match="true or false for each"):
        evaluate(scores, inside.astype(int), texts(), attack="loss")
    with pytest.raises(ArgumentError, match="examples"):
        evaluate(scores, inside, texts(3), attack="loss")


# --- single texts ----------------------------------------------------------------------------------------------

SECRETS = [Example("Call  my Mother"), Example("my pin code is 4817"), Example("play jazz")]


def written(folder: Path) -> dict:
    inside = np.array([[True, False, True], [False, False, True]])
    save(folder, [[1.0, 2.0, 3.0], [4.0, 6.0, 5.0]], inside, SECRETS)
    return json.loads((folder / FILE_NAME).read_text())


def test_the_keyed_hash_is_hmac_of_the_text_in_the_form_in_which_texts_are_compared() -> None:
    key, message = bytes(range(32)), b"call my mother"
    padded = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded) + message).digest()
    by_definition = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded) + inner).hexdigest()  # RFC 2104
    assert fingerprint("Call  my Mother", key) == by_definition
    assert fingerprint("Call  my Mother", bytes(32)) != by_definition
    with pytest.raises(ArgumentError, match="key"):
        fingerprint("text", b"short")


def test_a_guess_cannot_be_tried_without_the_key(tmp_path: Path) -> None:
    rows = written(tmp_path)["texts"]
    everything = (tmp_path / FILE_NAME).read_text()
    for example in SECRETS:
        for guess in (example.text, example.text.lower(), "call my mother"):
            assert guess not in everything
            for plain in (hashlib.sha256, hashlib.sha1, hashlib.md5):
                assert plain(guess.encode()).hexdigest() not in everything
    key = (tmp_path / KEY_NAME).read_text()
    assert key not in everything
    assert stat.S_IMODE((tmp_path / KEY_NAME).stat().st_mode) == 0o600
    assert [row["hash"] for row in rows] == sorted(row["hash"] for row in rows)
    other = written(tmp_path / "other")["texts"]
    assert {row["hash"] for row in rows}.isdisjoint(row["hash"] for row in other)


def test_who_holds_the_key_may_ask(tmp_path: Path) -> None:
    first = written(tmp_path)
    assert look_up(tmp_path, ["CALL my mother", "never written", "play jazz", "my pin code is 4817"]) == [
        ({"inside": 1.0, "outside": 4.0},),
        (),
        ({"inside": 4.0, "outside": None},),
        ({"inside": None, "outside": 4.0},),
    ]
    assert written(tmp_path) == first  # the same key again
    (tmp_path / KEY_NAME).write_text("abc")
    with pytest.raises(RunError, match="key"):
        look_up(tmp_path, ["play jazz"])
    (tmp_path / KEY_NAME).unlink()
    with pytest.raises(RunError, match="nobody can tell"):
        look_up(tmp_path, ["play jazz"])
