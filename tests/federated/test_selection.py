from itertools import combinations, product
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustnlp.errors import ArgumentError
from trustnlp.federated.selection import (
    Activity,
    Log,
    Oort,
    PoissonActivity,
    PowerOfChoice,
    TopK,
    Uniform,
    parse,
)

WITH_REPLACEMENT = [
    Activity(),
    Activity(weighting="samples"),
    Activity(gamma=0.5),
    Activity(gamma=0.5, weighting="importance"),
    Activity(gamma=2, weighting="importance", mix=0.2),
    Activity(mix=0.3),
    Activity(mix=0.3, weighting="importance"),
    Log(),
    Log(weighting="importance"),
]
DISTINCT = [Uniform(), Uniform("equal"), Uniform("importance")]
OTHERS = [TopK(), TopK("samples"), PoissonActivity(), PowerOfChoice(8), Oort()]
ALL = [*WITH_REPLACEMENT, *DISTINCT, *OTHERS]
few_sizes = st.lists(st.integers(1, 9), min_size=2, max_size=4)


def probe(devices):
    return np.sin(devices)


def target(sizes, updates):
    return float((sizes * updates).sum() / sizes.sum())


def step(cohort, updates):
    return float(cohort.weights @ updates[cohort.devices])


def draws_of(rule, sizes, m):
    """Oracle: every sequence of draws with its probability, from the definition of the rule."""
    if isinstance(rule, Uniform):
        return [(draw, 1 / comb(len(sizes), m)) for draw in combinations(range(len(sizes)), m)]
    measure = np.log1p(sizes) if isinstance(rule, Log) else sizes**rule.gamma
    mix = getattr(rule, "mix", 0.0)
    p = (1 - mix) * measure / measure.sum() + mix / len(sizes)
    return [(draw, float(np.prod(p[list(draw)]))) for draw in product(range(len(sizes)), repeat=m)]


def expected_step(rule, sizes, updates, m):
    """The mean step over all draws: the selector's weights, the oracle's probabilities."""
    selector, total = rule.begin(sizes), 0.0
    for draw, chance in draws_of(rule, sizes, m):
        fixed = lambda *_, drawn=draw: np.array(drawn)  # noqa: E731
        selector._draws.draw = selector._draws.distinct = fixed
        total += chance * step(selector.select(0, m, np.random.default_rng(0)), updates)
    return total


# Exactly, on small populations


@settings(deadline=None, max_examples=25)
@given(sizes=few_sizes, seed=st.integers(0, 99), m=st.integers(1, 2))
@pytest.mark.parametrize("rule", [rule for rule in WITH_REPLACEMENT + DISTINCT if rule.unbiased], ids=str)
def test_the_mean_step_of_an_unbiased_rule_is_that_of_the_objective(rule, sizes, seed, m):
    sizes = np.array(sizes)
    updates = np.random.default_rng(seed).normal(size=len(sizes))
    assert expected_step(rule, sizes, updates, m) == pytest.approx(target(sizes, updates), abs=1e-12)


@pytest.mark.parametrize("rule", [rule for rule in WITH_REPLACEMENT + DISTINCT if not rule.unbiased], ids=str)
def test_the_mean_step_of_a_biased_rule_is_not(rule):
    sizes, updates = np.array([1, 2, 9]), np.array([1.0, 0.0, -1.0])
    assert abs(expected_step(rule, sizes, updates, 2) - target(sizes, updates)) > 0.01


def test_samples_on_top_of_activity_count_texts_twice():
    sizes, updates = np.array([1, 2, 9]), np.array([1.0, 0.0, -1.0])
    assert expected_step(Activity(weighting="samples"), sizes, updates, 1) == pytest.approx(target(sizes, updates))
    found = expected_step(Activity(weighting="samples"), sizes, updates, 3)
    assert target(sizes**2, updates) < found < target(sizes, updates)  # the heavy device pulls it down
    equal = np.array([5, 5, 5])
    assert expected_step(Activity(weighting="samples"), equal, updates, 2) == pytest.approx(target(equal, updates))


def test_a_device_that_is_drawn_twice_has_both_shares():
    selector = Activity().begin(np.array([1, 5, 3]))
    selector._draws.draw = lambda *_: np.array([2, 1, 2, 2])
    cohort = selector.select(0, 4, np.random.default_rng(0))
    assert cohort.devices.tolist() == [1, 2]
    assert cohort.weights.tolist() == [0.25, 0.75]


def test_weights_by_hand():
    sizes = np.array([1, 3, 4])
    expected = {"equal": [0.5, 0.5], "samples": [0.25, 0.75], "importance": [3 / 16, 9 / 16]}
    for weighting, weights in expected.items():
        selector = Uniform(weighting).begin(sizes)
        selector._draws.distinct = lambda *_: np.array([1, 0])
        assert selector.select(0, 2, np.random.default_rng(0)).weights == pytest.approx(weights)


# By simulation, on a larger one

GENERATOR = np.random.default_rng(11)
MANY = np.minimum(GENERATOR.zipf(1.5, 150), 200)
UPDATES = np.log(MANY) + GENERATOR.normal(size=len(MANY))  # content depends on activity, or nothing could be biased


def deviation(rule, m=8, rounds=3000):
    """How many standard errors the mean step is away from the objective's."""
    selector, generator = rule.begin(MANY), np.random.default_rng(12)
    steps = []
    for round in range(rounds):
        cohort = selector.select(round, m, generator, probe=probe)
        steps.append(step(cohort, UPDATES))
    return (np.mean(steps) - target(MANY, UPDATES)) / (np.std(steps, ddof=1) / np.sqrt(rounds) + 1e-12)


@pytest.mark.parametrize("rule", [rule for rule in ALL if rule.unbiased], ids=str)
def test_unbiased_rules_meet_the_objective_within_their_standard_error(rule):
    assert abs(deviation(rule)) < 4


# Oort's first rounds are even, and Poisson sampling is biased only where a rate is capped: see their own tests.
BIASED = [rule for rule in ALL if not rule.unbiased and rule not in (Oort(), PoissonActivity())]


@pytest.mark.parametrize("rule", BIASED, ids=str)
def test_biased_rules_miss_it(rule):
    assert abs(deviation(rule)) > 6


# What holds for every rule


@settings(deadline=None, max_examples=30)
@given(
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=30).filter(any),
    m=st.integers(1, 8),
    seed=st.integers(0, 9),
    share=st.sampled_from([0.0, 0.3, 1.0]),
)
@pytest.mark.parametrize("rule", ALL, ids=str)
def test_cohorts_are_of_devices_that_are_there_and_have_texts(rule, sizes, m, seed, share):
    sizes, generator = np.array(sizes), np.random.default_rng(seed)
    mask = generator.random(len(sizes)) < share
    cohort = rule.begin(sizes).select(0, m, generator, available=mask, probe=probe)
    assert (np.diff(cohort.devices) > 0).all()
    assert mask[cohort.devices].all()
    assert (sizes[cohort.devices] > 0).all()
    if not isinstance(rule, PoissonActivity):
        assert len(cohort) <= m
        assert (len(cohort) > 0) == bool((mask & (sizes > 0)).any())
    if getattr(rule, "weighting", "equal") != "importance" and len(cohort) and not isinstance(rule, PoissonActivity):
        assert cohort.weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("rule", ALL, ids=str)
def test_a_mask_and_a_function_of_availability_are_one(rule):
    mask = np.random.default_rng(0).random(len(MANY)) < 0.4
    by_mask = rule.begin(MANY).select(0, 8, np.random.default_rng(1), available=mask, probe=probe)
    asked = rule.begin(MANY).select(0, 8, np.random.default_rng(1), available=lambda d: mask[d], probe=probe)
    assert by_mask.devices.tolist() == asked.devices.tolist()
    assert by_mask.weights.tolist() == asked.weights.tolist()


def rounds_of(selector, rounds):
    """What is chosen, when every device comes back with a loss and a time of its own."""
    chosen = []
    for round in rounds:
        cohort = selector.select(round, 8, np.random.default_rng([5, round]), probe=probe)
        chosen.append((cohort.devices.tolist(), cohort.weights.tolist()))
        selector.observe(cohort.devices, 1 + np.cos(cohort.devices), 1 + cohort.devices % 7.0)
    return chosen


@pytest.mark.parametrize("rule", ALL, ids=str)
def test_the_same_seed_chooses_the_same_and_a_restored_selector_goes_on_alike(rule):
    whole = rounds_of(rule.begin(MANY), range(60))
    assert rounds_of(rule.begin(MANY), range(60)) == whole
    first, second = rule.begin(MANY), rule.begin(MANY)
    assert rounds_of(first, range(45)) == whole[:45]
    second.restore(first.state())
    assert rounds_of(second, range(45, 60)) == whole[45:]


# Single rules


def test_uniform_takes_everybody_where_the_cohort_is_larger():
    cohort = Uniform().begin(np.array([1, 0, 3])).select(0, 5, np.random.default_rng(0))
    assert cohort.devices.tolist() == [0, 2]
    assert cohort.weights.tolist() == [0.25, 0.75]


def test_top_k_takes_the_most_active_and_the_lower_number_of_equals():
    sizes = np.array([4, 9, 4, 0, 7, 4])
    selector = TopK("samples").begin(sizes)
    assert selector.select(0, 3, np.random.default_rng(0)).devices.tolist() == [0, 1, 4]
    assert selector.select(0, 3, np.random.default_rng(0)).weights == pytest.approx([0.2, 0.45, 0.35])
    away = np.array([True, False, True, True, True, True])
    assert selector.select(1, 3, np.random.default_rng(0), available=away).devices.tolist() == [0, 2, 4]
    assert selector.select(1, 9, np.random.default_rng(0)).devices.tolist() == [0, 1, 2, 4, 5]


def test_importance_weights_aim_at_those_available():
    mask = MANY < 20
    selector, generator = Activity(weighting="importance").begin(MANY), np.random.default_rng(0)
    steps = [step(selector.select(0, 8, generator, available=mask), UPDATES) for _ in range(2000)]
    error = np.std(steps) / np.sqrt(len(steps))
    assert np.mean(steps) == pytest.approx(target(MANY[mask], UPDATES[mask]), abs=4 * error)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("uniform", Uniform()),
        ("uniform:weighting=equal", Uniform("equal")),
        ("activity:gamma=1,weighting=equal", Activity()),
        ("activity: gamma=0.5, mix=0.1", Activity(0.5, mix=0.1)),
        ("log:weighting=importance", Log("importance")),
        ("top-k", TopK()),
        ("poisson-activity:gamma=0", PoissonActivity(0.0)),
        ("power-of-choice:d=100", PowerOfChoice(100)),
        ("oort:exploration=0.5,window=5", Oort(exploration=0.5, window=5)),
    ],
)
def test_rules_from_the_command_line(text, rule):
    assert parse(text) == rule


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("random", "one of 'uniform'"),
        ("activity:alpha=1", "one of 'gamma'"),
        ("activity:gamma=-1", "number >= 0"),
        ("activity:gamma=x", "a number"),
        ("activity:mix=2", "0 <= mix <= 1"),
        ("log:weighting=n", "one of 'equal'"),
        ("top-k:weighting=importance", "one of 'equal', 'samples'"),
        ("uniform:weighting=each", "one of"),
        ("power-of-choice", "with its options"),
        ("power-of-choice:d=1.5", "a whole number"),
    ],
)
def test_rules_that_are_wrong_are_refused(text, message):
    with pytest.raises(ArgumentError, match=message):
        parse(text)
