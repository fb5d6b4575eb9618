import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted_losses import plant

from trustnlp.attacks import population
from trustnlp.attacks.membership import auc, loss_score, tpr_at_fpr
from trustnlp.errors import ArgumentError, GuaranteeError

LOSSES = st.lists(st.integers(0, 5), min_size=1, max_size=20)


@given(LOSSES, LOSSES)
def test_attack_p_counts_lower_losses(losses, others):
    expected = [1 - (1 + sum(z <= loss for z in others)) / (1 + len(others)) for loss in losses]
    assert population.score(losses, others) == pytest.approx(expected)


def test_attack_r_counts_models_that_did_not_see_the_text():
    shadows = np.array([[0.1, 0.5], [0.6, 0.2], [0.2, 0.9], [0.9, 0.1]])
    inside = np.array([[True, False], [False, True], [False, False], [True, True]])
    # text 0: 0.3 among 0.6, 0.2; text 1: 0.3 among 0.5, 0.9
    assert population.per_example_score([0.3, 0.3], shadows, inside) == pytest.approx([1 / 3, 2 / 3])


def test_attack_r_is_that_of_its_definition():
    planted = plant(texts=50, shadows=8)
    expected = [
        1
        - (1 + sum(row[n] <= loss for row, saw in zip(planted.shadows, planted.inside, strict=True) if not saw[n])) / 5
        for n, loss in enumerate(planted.losses)
    ]
    assert population.per_example_score(planted.losses, planted.shadows, planted.inside) == pytest.approx(expected)


def test_attack_p_is_the_loss_attack_in_known_false_alarms():
    planted = plant(texts=4000, population=4000)
    scores = population.score(planted.losses, planted.population)
    assert auc(*planted.sides(scores))[0] == pytest.approx(auc(*planted.sides(loss_score(planted.losses)))[0], abs=1e-3)
    assert (scores[~planted.truth] > 0.95).mean() == pytest.approx(0.05, abs=0.02)


def test_attack_r_accuses_no_more_nonmembers_than_it_says_and_finds_what_the_loss_cannot():
    planted = plant(texts=20_000, shadows=128, population=10)
    scores = population.per_example_score(planted.losses, planted.shadows, planted.inside)
    members, nonmembers = planted.sides(scores)
    for level in (0.5, 0.9, 0.95):
        assert (nonmembers > level).mean() <= 1 - level + 0.005
    assert tpr_at_fpr(members, nonmembers, 0.02) > 3 * tpr_at_fpr(*planted.sides(loss_score(planted.losses)), 0.02)


@given(st.floats(0.1, 3))
def test_only_the_order_of_losses_counts(power):
    planted = plant(texts=40, shadows=8)
    losses, others, shadows = (array**power for array in (planted.losses, planted.population, planted.shadows))
    assert (population.score(losses, others) == population.score(planted.losses, planted.population)).all()
    plain = population.per_example_score(planted.losses, planted.shadows, planted.inside)
    assert (population.per_example_score(losses, shadows, planted.inside) == plain).all()


def test_constant_losses_are_never_suspicious():
    assert (population.score(np.ones(5), np.ones(9)) == 0).all()
    inside = plant(texts=5, shadows=4).inside
    assert (population.per_example_score(np.ones(5), np.ones((4, 5)), inside) == 0).all()


def test_bad_input_is_refused():
    planted = plant(texts=5, shadows=4)
    with pytest.raises(GuaranteeError, match="NaN"):
        population.score([0.1, np.nan], [0.2])
    with pytest.raises(ArgumentError, match="population_losses"):
        population.score([0.1], [])
    with pytest.raises(GuaranteeError, match="5 of 5 texts are outside fewer than 1"):
        population.per_example_score(planted.losses, planted.shadows, np.ones((4, 5), dtype=bool))
    with pytest.raises(ArgumentError, match="shadow_losses"):
        population.per_example_score(planted.losses, planted.shadows[:2], planted.inside)
