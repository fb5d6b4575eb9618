import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted_losses import plant
from scipy import stats

from trustnlp.attacks import lira
from trustnlp.attacks.membership import auc, loss_score, tpr_at_fpr
from trustnlp.errors import ArgumentError, GuaranteeError

WAYS = [(online, shared) for online in (True, False) for shared in (True, False)]


def slow(losses, shadows, inside, online, shared):
    """Oracle: text by text, shadow by shadow, with SciPy's normal densities."""
    phis = [[np.log(np.exp(-loss) / (1 - np.exp(-loss))) for loss in row] for row in shadows]
    sides = {
        (n, seen): [row[n] for row, saw in zip(phis, inside, strict=True) if saw[n] == seen]
        for n in range(len(losses))
        for seen in (True, False)
    }

    def deviation(n, seen):
        if not shared:
            return np.std(sides[n, seen], ddof=1)
        groups = [values for (_, side), values in sides.items() if side == seen]
        squares = sum((value - np.mean(values)) ** 2 for values in groups for value in values)
        return np.sqrt(squares / sum(len(values) - 1 for values in groups))

    scores = []
    for n, loss in enumerate(losses):
        phi = np.log(np.exp(-loss) / (1 - np.exp(-loss)))
        fits = {seen: (np.mean(sides[n, seen]), deviation(n, seen)) for seen in (True, False)}
        if online:
            scores.append(stats.norm.logpdf(phi, *fits[True]) - stats.norm.logpdf(phi, *fits[False]))
        else:
            scores.append((phi - fits[False][0]) / fits[False][1])
    return scores


# phi


@given(st.floats(1e-6, 30))
def test_phi_is_the_log_odds(loss):
    p = np.exp(-loss)
    assert lira.logit(loss) == pytest.approx(np.log(p / -np.expm1(-loss)))


def test_phi_is_exact_where_the_probability_rounds():
    assert lira.logit(1e-15) == pytest.approx(-np.log(1e-15))  # log(p / (1 - p)) of p = 1 - 1e-15
    assert lira.logit(5000.0) == pytest.approx(-5000.0)  # p = exp(-5000) is 0 in double precision
    assert lira.logit(0.0) == lira.logit(1e-17) == pytest.approx(52 * np.log(2))
    assert lira.logit(np.log(2)) == pytest.approx(0.0)
    losses = np.geomspace(1e-15, 1e3, 200)
    assert (np.diff(lira.logit(losses)) < 0).all()


def test_rounding_below_zero_is_zero_and_more_is_refused():
    assert lira.logit(-1e-12) == lira.logit(0.0)
    with pytest.raises(ArgumentError, match="at least 0"):
        lira.logit([0.5, -0.1])


# The score


@pytest.mark.parametrize(("online", "shared"), WAYS)
def test_the_score_is_that_of_its_definition(online, shared):
    planted = plant(texts=30, shadows=8)
    arrays = planted.losses, planted.shadows, planted.inside
    fast = lira.score(*arrays, online=online, global_variance=shared)
    assert fast == pytest.approx(np.array(slow(*arrays, online, shared)))


def test_a_case_by_hand():
    losses = np.logaddexp(0, -np.array([1.0]))  # phi = 1
    shadows = np.logaddexp(0, -np.array([[1.0], [3.0], [-1.0], [1.0]]))
    inside = np.array([[True], [True], [False], [False]])
    # in: mean 2, variance 2; out: mean 0, variance 2: (1 - 0)^2 / 4 - (1 - 2)^2 / 4 = 0
    assert lira.score(losses, shadows, inside) == pytest.approx([0.0], abs=1e-12)
    assert lira.score(losses, shadows, inside, online=False) == pytest.approx([1 / np.sqrt(2)])


@pytest.mark.parametrize("online", [True, False])
def test_one_variance_for_all_is_chosen_where_shadows_are_few(online):
    for shadows, shared in ((62, True), (64, False)):
        planted = plant(texts=20, shadows=shadows)
        arrays = planted.losses, planted.shadows, planted.inside
        chosen = lira.score(*arrays, online=online)
        assert (chosen == lira.score(*arrays, online=online, global_variance=shared)).all()
        assert (chosen != lira.score(*arrays, online=online, global_variance=not shared)).any()


@pytest.mark.parametrize(("online", "shared"), WAYS)
def test_the_order_of_shadows_and_texts_does_not_matter(online, shared):
    planted, generator = plant(texts=40, shadows=8), np.random.default_rng(1)
    rows, columns = generator.permutation(8), generator.permutation(40)
    ways = {"online": online, "global_variance": shared}
    plain = lira.score(planted.losses, planted.shadows, planted.inside, **ways)
    mixed = lira.score(
        planted.losses[columns], planted.shadows[rows][:, columns], planted.inside[rows][:, columns], **ways
    )
    assert mixed == pytest.approx(plain[columns])


def test_offline_ignores_what_shadows_that_saw_a_text_think_of_it():
    planted = plant(texts=40, shadows=8)
    changed = np.where(planted.inside, 7.0, planted.shadows)
    plain = lira.score(planted.losses, planted.shadows, planted.inside, online=False)
    assert (lira.score(planted.losses, changed, planted.inside, online=False) == plain).all()


@given(st.floats(-5, 5), st.floats(0.01, 5))
def test_offline_a_lower_loss_is_more_member_like(phi, more):
    planted = plant(texts=3, shadows=4)
    first, second = (
        lira.score(np.full(3, np.logaddexp(0, -at)), planted.shadows, planted.inside, online=False)
        for at in (phi, phi + more)
    )
    assert (second > first).all()


def test_the_offline_score_of_a_nonmember_is_standard_normal_with_many_shadows():
    planted = plant(texts=3000, shadows=128)
    nonmembers = lira.score(planted.losses, planted.shadows, planted.inside, online=False)[~planted.truth]
    assert stats.kstest(nonmembers, "norm").pvalue > 0.01


def test_it_finds_what_the_loss_cannot():
    """Known truth: with difficulties of deviation 3, a shift of 2 and noise 1, the most powerful test that knows the
    difficulties finds 1 - Phi(2.33 - 2) = 37% at 1% FPR, and one that does not 1 - Phi(2.33 - 2 / sqrt(10)) = 4.5%."""
    best, blind = stats.norm.sf(stats.norm.isf(0.01) - 2), stats.norm.sf(stats.norm.isf(0.01) - 2 / np.sqrt(10))
    planted = plant(texts=20_000, shadows=128)
    by_loss = tpr_at_fpr(*planted.sides(loss_score(planted.losses)), 0.01)
    assert by_loss == pytest.approx(blind, abs=0.01)
    for online, shared in WAYS:
        scores = lira.score(planted.losses, planted.shadows, planted.inside, online=online, global_variance=shared)
        assert tpr_at_fpr(*planted.sides(scores), 0.01) == pytest.approx(best, abs=0.05)


@pytest.mark.parametrize("online", [True, False])
def test_with_sixteen_shadows_the_shared_variance_pays(online):
    planted = plant(texts=20_000, shadows=16)
    arrays = planted.losses, planted.shadows, planted.inside
    shared, own = (lira.score(*arrays, online=online, global_variance=way) for way in (True, False))
    by_shared, by_own = (tpr_at_fpr(*planted.sides(scores), 0.01) for scores in (shared, own))
    assert by_shared > by_own + 0.02
    assert by_own > 2 * tpr_at_fpr(*planted.sides(loss_score(planted.losses)), 0.01)


@pytest.mark.parametrize(("online", "shared"), WAYS)
def test_models_that_learn_nothing_of_single_texts_give_nothing_away(online, shared):
    planted = plant(texts=20_000, shift=0.0)
    scores = lira.score(planted.losses, planted.shadows, planted.inside, online=online, global_variance=shared)
    assert auc(*planted.sides(scores))[0] == pytest.approx(0.5, abs=0.015)


# What cannot be scored


def test_a_text_without_shadows_on_a_side_is_refused():
    planted = plant(texts=10, shadows=6)
    always, never = planted.inside.copy(), planted.inside.copy()
    always[:, 3], never[:, 3] = True, False
    for inside in (always, never):
        with pytest.raises(GuaranteeError, match="1 of 10 texts are"):
            lira.score(planted.losses, planted.shadows, inside)
    with pytest.raises(GuaranteeError, match="outside"):
        lira.score(planted.losses, planted.shadows, always, online=False)
    assert np.isfinite(lira.score(planted.losses, planted.shadows, never, online=False)).all()


def test_too_few_shadows_are_refused():
    planted = plant(texts=10, shadows=2)
    arrays = planted.losses, planted.shadows, planted.inside
    with pytest.raises(GuaranteeError, match="no text has two shadows"):
        lira.score(*arrays)
    with pytest.raises(GuaranteeError, match="fewer than 2 shadows"):
        lira.score(*arrays, global_variance=False)


def test_losses_that_do_not_vary_are_refused():
    planted = plant(texts=10, shadows=6)
    constant = np.full_like(planted.shadows, 0.3)
    for shared in (True, False):
        with pytest.raises(GuaranteeError, match="10 of 10 texts are the same"):
            lira.score(planted.losses, constant, planted.inside, global_variance=shared)
    constant[:, 1:] = planted.shadows[:, 1:]
    with pytest.raises(GuaranteeError, match="1 of 10 texts are the same"):
        lira.score(planted.losses, constant, planted.inside, global_variance=False)
    assert np.isfinite(lira.score(planted.losses, constant, planted.inside, global_variance=True)).all()


def test_bad_input_is_refused():
    planted = plant(texts=4, shadows=4)
    arrays = planted.losses, planted.shadows, planted.inside
    with pytest.raises(GuaranteeError, match="shadow_losses are NaN"):
        lira.score(arrays[0], np.where(planted.inside, np.nan, 1.0), arrays[2])
    with pytest.raises(GuaranteeError, match="1 of 4 losses"):
        lira.score([np.inf, 1, 1, 1], *arrays[1:])
    with pytest.raises(ArgumentError, match="shape \\(4, 4\\)"):
        lira.score(arrays[0], planted.shadows[:3], arrays[2])
    with pytest.raises(ArgumentError, match="shape \\(shadows, 3\\)"):
        lira.score(arrays[0][:3], *arrays[1:])
    with pytest.raises(ArgumentError, match="true and false"):
        lira.score(*arrays[:2], planted.inside.astype(int))
