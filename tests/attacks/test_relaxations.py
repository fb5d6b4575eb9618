import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from trustnlp.attacks.relaxations import Annealed, Fixed, GumbelStraightThrough, gumbel
from trustnlp.errors import ArgumentError

SCORES = torch.tensor([[0.5, -1.0, 2.0], [0.0, 0.0, 0.3]], dtype=torch.float64)
RELAXATIONS = [Fixed(), Fixed(0.3), Annealed(), GumbelStraightThrough(), GumbelStraightThrough(0.2)]


def drawn(seed: int = 0, shape: torch.Size = SCORES.shape):
    generator = torch.Generator().manual_seed(seed)
    return lambda: gumbel(shape, generator)


@pytest.mark.parametrize("relaxation", RELAXATIONS)
@given(scores=st.lists(st.floats(-30, 30), min_size=2, max_size=6), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_weights_lie_in_the_simplex(relaxation, scores, share, seed):
    given_scores = torch.tensor([scores], dtype=torch.float64)
    weights = relaxation(given_scores, share, drawn(seed, given_scores.shape))
    assert (weights >= 0).all()
    assert weights.sum().item() == pytest.approx(1)


def test_a_fixed_temperature_divides_the_scores():
    torch.testing.assert_close(Fixed(0.5)(SCORES, 0.7, drawn()), (2 * SCORES).softmax(-1))


@pytest.mark.parametrize(("share", "tau"), [(0.0, 1.0), (0.5, 0.1**0.5), (1.0, 0.1)])
def test_annealing_goes_down_by_equal_factors(share, tau):
    torch.testing.assert_close(Annealed(1.0, 0.1)(SCORES, share, drawn()), (SCORES / tau).softmax(-1))


class TestGumbelStraightThrough:
    def test_gives_one_candidate_with_the_gradient_of_a_softmax(self):
        scores = SCORES.clone().requires_grad_()
        weights = GumbelStraightThrough(0.7)(scores, 0, drawn(3))
        assert weights.detach().sort(-1).values.tolist() == [[0, 0, 1]] * 2
        (gradient,) = torch.autograd.grad((weights * torch.arange(3)).sum(), scores)
        soft = ((scores + drawn(3)()) / 0.7).softmax(-1)
        (expected,) = torch.autograd.grad((soft * torch.arange(3)).sum(), scores)
        torch.testing.assert_close(gradient, expected)

    @pytest.mark.parametrize("tau", [0.1, 1.0])
    def test_draws_candidates_by_their_softmax(self, tau):
        scores = SCORES[0].expand(20_000, 3)
        counts = GumbelStraightThrough(tau)(scores, 0, drawn(1, scores.shape)).sum(0)
        assert stats.chisquare(counts.numpy(), 20_000 * SCORES[0].softmax(0).numpy()).pvalue > 1e-3


def test_the_noise_is_gumbels():
    values = gumbel(torch.Size((20_000,)), torch.Generator().manual_seed(0)).numpy()
    assert np.isfinite(values).all()
    assert stats.kstest(values, stats.gumbel_r.cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    "make", [Fixed, lambda tau: Annealed(tau, 1), lambda tau: Annealed(1, tau), GumbelStraightThrough]
)
@pytest.mark.parametrize("tau", [0, -1.0, float("nan")])
def test_a_temperature_is_positive(make, tau):
    with pytest.raises(ArgumentError, match="must be a number > 0"):
        make(tau)
