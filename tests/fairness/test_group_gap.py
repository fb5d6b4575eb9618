import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import f1_score

from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.fairness.group_gap import label_error_gap, slot_f1_gap
from trustnlp.fairness.spans import span_counts
from trustnlp.results import Direction, Verdict
from trustnlp.uncertainty import bonferroni, bootstrap, difference, difference_of_proportions, ratio


def texts(**groups):
    """Correctness and groups from `name=(errors, n)`."""
    correct = [row >= errors for errors, n in groups.values() for row in range(n)]
    return np.array(correct), [name for name, (_, n) in groups.items() for _ in range(n)]


def gap(correct, groups, **options):
    return label_error_gap(correct, groups, dataset="planted", **options)


def test_two_groups_by_hand():
    finding = gap(*texts(north=(10, 100), south=(60, 200)), protected_group="region")
    assert finding.id == "label-error-gap"
    assert finding.value == pytest.approx(0.2)
    assert (finding.direction, finding.ideal, finding.n, finding.unit) == (Direction.LOWER, 0, 300, "fraction")
    assert finding.verdict is Verdict.DISPARITY
    north, south = finding.details["groups"]
    assert (north["group"], north["n"], north["error"]) == ("north", 100, pytest.approx(0.1))
    assert north["low"] < 0.1 < north["high"]
    assert (south["n"], south["error"]) == (200, pytest.approx(0.3))
    [pair] = finding.details["pairs"]
    assert (pair["first"], pair["second"], pair["difference"]) == ("north", "south", pytest.approx(-0.2))
    assert (finding.low, finding.high) == pytest.approx((-pair["high"], -pair["low"]))
    assert finding.details["protected_group"] == "region"
    assert finding.details["dataset"] == "planted"
    assert finding.details["notion"] == "group performance"
    assert 0 < finding.details["minimum_detectable_effect"] < 0.2


def test_the_interval_is_nearly_newcombes_where_texts_are_independent():
    finding = gap(*texts(a=(50, 1000), b=(120, 1000)))
    newcombe = difference_of_proportions(120, 1000, 50, 1000)
    assert (finding.low, finding.high) == pytest.approx((newcombe.low, newcombe.high), abs=2e-4)


def test_three_groups_share_the_risk_between_their_pairs():
    sizes = {"a": (10, 100), "b": (30, 150), "c": (45, 150)}
    finding = gap(*texts(**sizes))
    each = bonferroni(0.95, 3)
    known = {k: (e / n, ratio([1] * e + [0] * (n - e), [1] * n, each)) for k, (e, n) in sizes.items()}
    pairs = [difference(*known[x], *known[y]) for x, y in (("b", "a"), ("c", "a"), ("c", "b"))]
    assert finding.value == pytest.approx(0.2)
    assert finding.low == pytest.approx(max(pair.low for pair in pairs))
    assert finding.high == pytest.approx(max(pair.high for pair in pairs))
    assert len(finding.details["pairs"]) == 3


def test_equal_groups_are_fair_with_data_and_unclear_without():
    many, few = gap(*texts(a=(300, 6000), b=(300, 6000))), gap(*texts(a=(3, 60), b=(3, 60)))
    assert (many.value, many.low, many.verdict) == (0, 0, Verdict.FAIR_WITHIN_MARGIN)
    assert many.details["minimum_detectable_effect"] < 0.05
    assert few.verdict is Verdict.INSUFFICIENT_EVIDENCE
    assert few.details["minimum_detectable_effect"] > 0.05


def test_no_errors_in_few_texts_are_no_proof_of_fairness():
    finding = gap(*texts(a=(0, 40), b=(0, 40)))
    assert finding.value == 0
    assert finding.high > 0.05
    assert finding.verdict is Verdict.INSUFFICIENT_EVIDENCE


def test_small_groups_are_named_and_left_out():
    correct, groups = texts(east=(20, 200), north=(23, 23), west=(22, 200), tiny=(3, 3))
    groups[:7] = [None] * 7
    finding = gap(correct, groups, protected_group="region")
    assert [group["group"] for group in finding.details["groups"]] == ["east", "west"]
    assert finding.details["not_compared"] == [{"group": "north", "n": 23}, {"group": "tiny", "n": 3}]
    assert "gap by region: insufficient evidence for 'north' (n=23)" in finding.details["notes"]
    assert finding.details["group_unknown"] == 7
    assert finding.n == 393


@pytest.mark.parametrize("groups", [["a"] * 200, [None] * 200, ["a"] * 197 + ["b"] * 3])
def test_fewer_than_two_groups_are_insufficient_evidence(groups):
    finding = gap(np.ones(200, dtype=bool), groups)
    assert (finding.value, finding.low, finding.high) == (None, None, None)
    assert finding.verdict is Verdict.INSUFFICIENT_EVIDENCE
    assert "a gap needs two" in finding.details["reason"]


def test_bad_input_is_refused():
    correct, groups = texts(a=(5, 50), b=(5, 50))
    with pytest.raises(ArgumentError, match="not empty"):
        gap([], [])
    with pytest.raises(ArgumentError, match="one length"):
        gap(correct[:-1], groups)
    with pytest.raises(ArgumentError, match="clusters"):
        gap(correct, groups, clusters=["u"] * 99)
    with pytest.raises(GuaranteeError, match="NaN"):
        gap([float("nan"), *correct[1:]], groups)
    with pytest.raises(GuaranteeError, match="true and false"):
        gap(correct * 2.0, groups)
    with pytest.raises(ArgumentError, match="None where"):
        gap(correct, [float("nan"), *groups[1:]])
    with pytest.raises(ArgumentError, match="margin"):
        gap(correct, groups, margin=0)
    with pytest.raises(ArgumentError, match="level"):
        gap(correct, groups, level=95)


def test_users_who_wrote_much_widen_the_interval():
    correct, groups = texts(a=(30, 300), b=(30, 300))
    users = [f"{group}{row // 30}" for row, group in enumerate(groups)]  # all errors of a group are one user's
    alone, by_user = gap(correct, groups), gap(correct, groups, clusters=users)
    assert by_user.high > 2 * alone.high
    assert by_user.n == 20
    assert by_user.details["units"] == "users"


@settings(max_examples=25, deadline=None)
@given(
    st.permutations(["a", "b", "c"]),
    st.lists(st.tuples(st.integers(0, 40), st.integers(40, 90)), min_size=3, max_size=3),
)
def test_names_and_order_of_groups_do_not_matter(names, sizes):
    first = gap(*texts(**dict(zip("abc", sizes, strict=True))))
    correct, groups = texts(**dict(zip(names, sizes, strict=True)))
    second = gap(correct[::-1], groups[::-1])
    assert (first.value, first.low, first.high) == pytest.approx((second.value, second.low, second.high))
    assert first.verdict is second.verdict


def planted_errors(rng, n1, n2, p1, p2):
    correct = np.concatenate([rng.random(n1) >= p1, rng.random(n2) >= p2])
    return gap(correct, ["a"] * n1 + ["b"] * n2)


def signed(finding):
    [pair] = finding.details["pairs"]
    return pair["low"], pair["high"]


@pytest.mark.parametrize(
    ("n1", "n2", "p1", "p2", "runs"),
    [
        (200, 300, 0.1, 0.2, 500),
        *[
            pytest.param(*case, 4000, marks=pytest.mark.slow)
            for case in [(50, 200, 0.1, 0.2), (500, 500, 0.05, 0.1), (2000, 300, 0.02, 0.02), (100, 1000, 0.3, 0.5)]
        ],
    ],
)
def test_a_planted_error_gap_is_covered_as_often_as_stated(n1, n2, p1, p2, runs):
    rng = np.random.default_rng(11)
    ends = np.array([signed(planted_errors(rng, n1, n2, p1, p2)) for _ in range(runs)])
    assert 0.93 <= np.mean((ends[:, 0] <= p1 - p2) & (p1 - p2 <= ends[:, 1])) <= 0.97


@pytest.mark.parametrize(("groups", "runs"), [(2, 300), (5, 150), pytest.param(2, 4000, marks=pytest.mark.slow),
                                              pytest.param(5, 2000, marks=pytest.mark.slow)])  # fmt: skip
def test_an_unbiased_model_is_rarely_called_unfair(groups, runs):
    rng = np.random.default_rng(12)
    names = [f"g{row % groups}" for row in range(150 * groups)]
    verdicts = [gap(rng.random(len(names)) >= 0.1, names).verdict for _ in range(runs)]
    alarms = verdicts.count(Verdict.DISPARITY)
    assert alarms <= 0.05 * runs + 2 * np.sqrt(0.05 * 0.95 * runs)  # two standard errors of simulation


@pytest.mark.parametrize("runs", [1000, pytest.param(4000, marks=pytest.mark.slow)])
def test_a_gap_of_the_margin_is_rarely_called_fair(runs):
    rng = np.random.default_rng(13)
    verdicts = [planted_errors(rng, 1500, 1500, 0.05, 0.1).verdict for _ in range(runs)]
    assert verdicts.count(Verdict.FAIR_WITHIN_MARGIN) <= 0.025 * runs + 2 * np.sqrt(0.025 * 0.975 * runs)
    assert verdicts.count(Verdict.DISPARITY) > 0.9 * runs


# --- slot F1


def tagged(rng, n, p):
    """n texts of 5 tokens with one or two spans, each missed, shortened or named wrongly with probability p."""
    gold, predicted = [], []
    for _ in range(n):
        right = ["B-x", "I-x", "O", "B-y", "O"] if rng.random() < 0.5 else ["O", "B-x", "O", "O", "O"]
        guess = list(right)
        for place, tag in enumerate(right):
            if tag.startswith("B") and rng.random() < p:
                guess[place] = str(rng.choice(["O", "B-z"]))
        gold.append(right)
        predicted.append(guess)
    return gold, predicted


def f1_gap(gold, predicted, groups, **options):
    return slot_f1_gap(gold, predicted, groups, dataset="planted", **options)


def test_slot_f1_by_group_is_seqevals():
    rng = np.random.default_rng(2)
    gold, predicted = tagged(rng, 300, 0.3)
    groups = [str(rng.choice(["a", "b"])) for _ in gold]
    finding = f1_gap(gold, predicted, groups)
    oracle = {
        name: f1_score(
            *([tags for tags, g in zip(side, groups, strict=True) if g == name] for side in (gold, predicted))
        )
        for name in "ab"
    }
    found = {group["group"]: group["f1"] for group in finding.details["groups"]}
    assert found == pytest.approx(oracle)
    assert finding.id == "slot-f1-gap"
    assert finding.value == pytest.approx(abs(oracle["a"] - oracle["b"]))


def test_the_f1_interval_is_near_the_bootstrap_by_user():
    """Oracle: BCa bootstrap over whole users."""
    rng = np.random.default_rng(4)
    easy, hard = tagged(rng, 900, 0.1), tagged(rng, 900, 0.3)
    gold, predicted = easy[0] + hard[0], easy[1] + hard[1]
    groups = ["easy"] * 900 + ["hard"] * 900
    users = [f"{group}{rng.integers(90)}" for group in groups]
    finding = f1_gap(gold, predicted, groups, clusters=users)

    counts = span_counts(gold, predicted)
    totals = {user: np.zeros(3) for user in users}
    for user, row in zip(users, counts, strict=True):
        totals[user] += row
    sides = [np.array([row for user, row in totals.items() if user.startswith(side)]) for side in ("easy", "hard")]

    def f1(sample):
        hits, invented, missed = np.moveaxis(sample.sum(axis=1), -1, 0)
        return 2 * hits / (2 * hits + invented + missed)

    slow = bootstrap(lambda a, b: f1(a) - f1(b), *sides, generator=rng, replicates=4000)
    assert (finding.low, finding.high) == pytest.approx((slow.low, slow.high), abs=0.01)
    assert finding.n == 180


def test_texts_without_spans_say_nothing_about_f1():
    rng = np.random.default_rng(6)
    gold, predicted = tagged(rng, 200, 0.2)
    groups = ["a", "b"] * 100
    alone = f1_gap(gold, predicted, groups)
    padded = f1_gap(gold + [["O"]] * 50, predicted + [["O"]] * 50, groups + ["a"] * 50)
    assert (alone.value, alone.low, alone.high, alone.n) == (padded.value, padded.low, padded.high, padded.n)
    nothing = f1_gap([["O"]] * 100, [["O"]] * 100, ["a", "b"] * 50)
    assert nothing.verdict is Verdict.INSUFFICIENT_EVIDENCE


def test_perfect_slots_in_few_texts_are_no_proof_of_fairness():
    gold, _ = tagged(np.random.default_rng(7), 80, 0)
    finding = f1_gap(gold, gold, ["a", "b"] * 40)
    assert finding.value == 0
    assert finding.verdict is Verdict.INSUFFICIENT_EVIDENCE
    with pytest.raises(ArgumentError, match="one tag per gold tag"):
        f1_gap(gold, [tags[:-1] for tags in gold], ["a", "b"] * 40)


@pytest.mark.parametrize(
    ("n", "p1", "p2", "runs"), [(150, 0.1, 0.25, 150), pytest.param(300, 0.05, 0.1, 1500, marks=pytest.mark.slow)]
)
def test_a_planted_f1_gap_is_covered_as_often_as_stated(n, p1, p2, runs):
    rng = np.random.default_rng(8)
    truth = f1_score(*tagged(rng, 20_000, p1)) - f1_score(*tagged(rng, 20_000, p2))
    hits = 0
    for _ in range(runs):
        (gold, predicted), (other_gold, other_predicted) = tagged(rng, n, p1), tagged(rng, n, p2)
        low, high = signed(f1_gap(gold + other_gold, predicted + other_predicted, ["a"] * n + ["b"] * n))
        hits += low <= truth <= high
    assert 0.93 <= hits / runs <= 0.975
