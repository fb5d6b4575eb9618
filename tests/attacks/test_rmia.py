import numpy as np
import pytest
from planted_losses import plant
from scipy import stats

from trustnlp.attacks import rmia
from trustnlp.attacks.membership import auc, loss_score, tpr_at_fpr
from trustnlp.errors import ArgumentError, GuaranteeError


def arrays(planted):
    return planted.losses, planted.shadows, planted.inside, planted.population, planted.population_shadows


def slow(losses, shadows, inside, population, population_shadows, online, a, gamma):
    """Oracle: every pair of a text and one of the population, by the paper's formulas."""

    def offline(probabilities):
        return ((1 + a) * np.mean(probabilities) + (1 - a)) / 2

    usual_z = [offline(np.exp(-column)) for column in population_shadows.T]
    scores = []
    for n, loss in enumerate(losses):
        seen, unseen = (np.exp(-shadows[inside[:, n] == side, n]) for side in (True, False))
        usual = (np.mean(seen) + np.mean(unseen)) / 2 if online else offline(unseen)
        pairs = [
            (np.exp(-loss) / usual) / (np.exp(-z) / usual_of_z) >= gamma
            for z, usual_of_z in zip(population, usual_z, strict=True)
        ]
        scores.append(np.mean(pairs))
    return scores


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize(("a", "gamma"), [(0.0, 1.0), (0.3, 1.0), (1.0, 1.5), (0.7, 0.8)])
def test_the_score_is_that_of_its_definition(online, a, gamma):
    planted = plant(texts=30, shadows=6, population=50)
    fast = rmia.score(*arrays(planted), online=online, a=a, gamma=gamma)
    assert fast == pytest.approx(np.array(slow(*arrays(planted), online, a, gamma)))


def test_a_case_by_hand():
    losses = -np.log([0.9, 0.3])
    shadows = -np.log([[0.8, 0.3], [0.4, 0.3]])  # text 0: in 0.8, out 0.4, usual 0.6; text 1: usual 0.3
    inside = np.array([[True, True], [False, False]])
    # ratios 1.5 and 1; with a = 1 those of the population are p / p_out = 0.5, 1.25, 2
    population, population_shadows = -np.log([0.2, 0.5, 0.8]), -np.log([[0.4, 0.4, 0.4], [0.4, 0.4, 0.4]])
    scores = rmia.score(losses, shadows, inside, population, population_shadows, a=1.0)
    assert scores == pytest.approx([2 / 3, 1 / 3])
    scores = rmia.score(losses, shadows, inside, population, population_shadows, a=1.0, gamma=2.5)
    assert scores == pytest.approx([1 / 3, 0])


def test_the_population_sets_the_scale_and_not_the_order():
    planted = plant(texts=300, shadows=8)
    ratios = -planted.losses - np.log(
        (np.where(planted.inside, np.exp(-planted.shadows), 0).sum(0) / 4)
        + (np.where(planted.inside, 0, np.exp(-planted.shadows)).sum(0) / 4)
    )
    scores = rmia.score(*arrays(planted), a=0.5)
    assert (np.diff(scores[np.argsort(ratios)]) >= 0).all()


@pytest.mark.parametrize("a", [0.0, 0.5, 1.0])
def test_the_score_of_a_nonmember_is_uniform(a):
    planted = plant(texts=4000, shadows=16, population=4000)
    nonmembers = rmia.score(*arrays(planted), online=False, a=a)[~planted.truth]
    assert (nonmembers >= 0.99).mean() == pytest.approx(0.01, abs=0.01)
    assert stats.kstest(nonmembers[::8], "uniform").pvalue > 0.01


@pytest.mark.parametrize("online", [True, False])
def test_the_order_of_shadows_and_texts_does_not_matter(online):
    planted, generator = plant(texts=40, shadows=8, population=60), np.random.default_rng(1)
    rows, columns, others = (generator.permutation(n) for n in (8, 40, 60))
    mixed = rmia.score(
        planted.losses[columns],
        planted.shadows[rows][:, columns],
        planted.inside[rows][:, columns],
        planted.population[others],
        planted.population_shadows[rows][:, others],
        online=online,
        a=0.4,
    )
    assert mixed == pytest.approx(rmia.score(*arrays(planted), online=online, a=0.4)[columns])


def test_a_lower_loss_is_more_member_like():
    planted = plant(texts=50, shadows=8)
    lower = rmia.score(planted.losses / 2, *arrays(planted)[1:], a=0.5)
    assert (lower >= rmia.score(*arrays(planted), a=0.5)).all()


@pytest.mark.parametrize("online", [True, False])
def test_it_finds_what_the_loss_cannot(online):
    planted = plant(texts=20_000, shadows=16)
    scores = rmia.score(*arrays(planted), online=online)
    by_loss = tpr_at_fpr(*planted.sides(loss_score(planted.losses)), 0.01)
    assert tpr_at_fpr(*planted.sides(scores), 0.01) > 2 * by_loss
    assert auc(*planted.sides(scores))[0] > auc(*planted.sides(loss_score(planted.losses)))[0] + 0.1


@pytest.mark.parametrize("online", [True, False])
def test_models_that_learn_nothing_of_single_texts_give_nothing_away(online):
    planted = plant(texts=20_000, shift=0.0)
    assert auc(*planted.sides(rmia.score(*arrays(planted), online=online)))[0] == pytest.approx(0.5, abs=0.015)


# Tuning


@pytest.mark.parametrize("truth", [0.2, 0.5, 0.9])
def test_tuning_finds_the_a_that_made_the_losses(truth):
    """Known truth: p_in = truth * p_out + (1 - truth) with p_out known but for little noise. Members and non-members
    then differ by p_in / p against p_out / p; the AUC at the chosen `a` is as good as at any other."""
    generator = np.random.default_rng(0)
    usual = generator.uniform(0.02, 0.98, 4000)
    inside = np.argsort(generator.random((8, 4000)), axis=0) < 4
    p = np.where(inside, truth * usual + 1 - truth, usual)
    shadows = -np.log(np.clip(p + 0.1 * generator.normal(size=p.shape), 1e-3, 1 - 1e-9))
    chosen = rmia.tune(shadows, inside)

    def success(a):
        out = np.where(inside[2:], 0, np.exp(-shadows[2:])).sum(0) / (~inside[2:]).sum(0)
        ratios = np.exp(-shadows[:2]) / (((1 + a) * out + 1 - a) / 2)
        return np.mean([auc(of[seen], of[~seen])[0] for of, seen in zip(ratios, inside[:2], strict=True)])

    assert success(chosen) == max(success(a) for a in np.linspace(0, 1, 11))
    assert 0 <= chosen <= 1


def test_the_tuned_a_is_used_and_depends_on_no_target():
    planted = plant(texts=2000, shadows=8)
    chosen = rmia.tune(planted.shadows, planted.inside)
    assert (rmia.score(*arrays(planted)) == rmia.score(*arrays(planted), a=chosen)).all()


def test_tuning_needs_a_pair_and_somebody_to_attack_it():
    planted = plant(texts=50, shadows=2)
    with pytest.raises(ArgumentError, match="whole number >= 3"):
        rmia.tune(planted.shadows, planted.inside)
    with pytest.raises(ArgumentError, match="give `a`"):
        rmia.score(*arrays(planted))
    rmia.score(*arrays(planted), a=0.5)


# What cannot be scored


def test_a_text_without_shadows_on_a_side_is_refused():
    planted = plant(texts=10, shadows=6)
    always, never = planted.inside.copy(), planted.inside.copy()
    always[:, 3], never[:, 3] = True, False
    losses, shadows, _, *rest = arrays(planted)
    with pytest.raises(GuaranteeError, match="1 of 10 texts are inside fewer"):
        rmia.score(losses, shadows, never, *rest, a=0.5)
    with pytest.raises(GuaranteeError, match="1 of 10 texts are outside fewer"):
        rmia.score(losses, shadows, always, *rest, a=0.5, online=False)
    rmia.score(losses, shadows, never, *rest, a=0.5, online=False)


def test_constant_losses_tie():
    planted = plant(texts=10, shadows=6, population=20)
    flat = [np.full_like(array, 0.3) for array in (planted.losses, planted.shadows)]
    flat_others = [np.full_like(array, 0.3) for array in (planted.population, planted.population_shadows)]
    assert (rmia.score(*flat, planted.inside, *flat_others, a=1.0) == 1).all()


@pytest.mark.parametrize("bad", [{"a": -0.1}, {"a": 1.1}, {"a": 0.5, "gamma": 0.0}, {"a": 0.5, "gamma": -1}])
def test_parameters_keep_their_ranges(bad):
    with pytest.raises(ArgumentError):
        rmia.score(*arrays(plant(texts=10, shadows=6)), **bad)


def test_bad_input_is_refused():
    planted = plant(texts=10, shadows=6, population=20)
    losses, shadows, inside, population, population_shadows = arrays(planted)
    with pytest.raises(GuaranteeError, match="population_losses are NaN"):
        rmia.score(losses, shadows, inside, population * np.nan, population_shadows)
    with pytest.raises(ArgumentError, match="shadow_losses"):
        rmia.score(losses, shadows, inside, population, population_shadows[:5])
