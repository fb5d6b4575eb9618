import numpy as np
import pytest
from scipy import stats

from trustnlp.dp import PoissonSampler
from trustnlp.errors import ArgumentError
from trustnlp.randomness import Streams


def entries(sampler):
    """(steps, examples) whether the example entered the step."""
    table = np.zeros((sampler.steps, sampler.examples), dtype=bool)
    for draw in sampler:
        table[draw.step, draw.indices] = True
    return table


class TestPoissonSampler:
    table = entries(PoissonSampler(200, 10, 2000, Streams(3)))

    def test_batch_sizes_are_binomial(self):
        sizes = self.table.sum(1)
        edges = [0, *range(5, 17), 201]
        observed = np.histogram(sizes, edges)[0]
        cdf = stats.binom.cdf(np.array(edges) - 1, 200, 0.05)
        assert stats.chisquare(observed, np.diff(cdf) / np.diff(cdf).sum() * len(sizes)).pvalue > 1e-3

    def test_every_example_enters_at_the_same_rate(self):
        counts = self.table.sum(0)
        spread = ((counts - 2000 * 0.05) ** 2).sum() / (2000 * 0.05 * 0.95)
        assert 1e-3 < stats.chi2.sf(spread, 200) < 1 - 1e-3

    def test_examples_and_steps_are_independent(self):
        correlations = np.corrcoef(self.table.T)[np.triu_indices(200, 1)]
        assert abs(correlations.mean()) < 4 / np.sqrt(2000 * len(correlations))
        assert correlations.std() == pytest.approx(1 / np.sqrt(2000), rel=0.05)
        overlap = (self.table[1:] & self.table[:-1]).sum()
        assert overlap == pytest.approx(1999 * 200 * 0.05**2, abs=4 * np.sqrt(1999 * 200 * 0.05**2))

    def test_a_draw_depends_on_seed_and_step_alone(self):
        sampler = PoissonSampler(200, 10, 2000, Streams(3))
        assert np.array_equal(sampler.draw(7).indices, np.flatnonzero(self.table[7]))
        assert np.array_equal(PoissonSampler(200, 10, 50, Streams(3)).draw(7).indices, sampler.draw(7).indices)
        assert not np.array_equal(PoissonSampler(200, 10, 50, Streams(4)).draw(7).indices, sampler.draw(7).indices)

    def test_empty_draws_are_steps(self):
        sizes = [len(draw.indices) for draw in PoissonSampler(3, 1, 200, Streams(0))]
        assert len(sizes) == 200
        assert sizes.count(0) == pytest.approx(200 * (2 / 3) ** 3, abs=4 * np.sqrt(200 * 0.3 * 0.7))

    def test_rate_one_draws_everybody(self):
        assert list(PoissonSampler(4, 4, 1, Streams(0)).draw(0).indices) == [0, 1, 2, 3]

    @pytest.mark.parametrize("step", [-1, 50])
    def test_steps_outside_the_plan_are_refused(self, step):
        with pytest.raises(ArgumentError):
            PoissonSampler(20, 1, 50, Streams(0)).draw(step)


class TestTruncation:
    whole = PoissonSampler(60, 12, 1500, Streams(3))
    cut = PoissonSampler(60, 12, 1500, Streams(3), largest_batch=14)

    def test_no_draw_is_larger_and_each_is_part_of_the_whole_draw(self):
        sizes = []
        for one, other in zip(self.whole, self.cut, strict=True):
            assert set(other.indices) <= set(one.indices)
            assert len(other.indices) == min(14, len(one.indices))
            assert sorted(set(other.indices)) == list(other.indices)
            sizes.append(len(one.indices))
        assert max(sizes) > 14

    def test_every_example_is_kept_at_the_same_rate(self):
        counts = entries(self.cut).sum(0)
        rate = counts.mean() / 1500
        assert rate < 0.2
        spread = ((counts - counts.mean()) ** 2).sum() / (1500 * rate * (1 - rate))
        assert 1e-3 < stats.chi2.sf(spread, 59) < 1 - 1e-3

    def test_every_place_among_the_drawn_is_kept_at_the_same_rate(self):
        kept = np.zeros(17)
        for one, other in zip(self.whole, self.cut, strict=True):
            if len(one.indices) == 17:
                kept += np.isin(one.indices, other.indices)
        assert stats.chisquare(kept).pvalue > 1e-3

    def test_a_cap_below_the_expected_batch_is_refused(self):
        with pytest.raises(ArgumentError, match="largest_batch"):
            PoissonSampler(60, 12, 5, Streams(3), largest_batch=11)
