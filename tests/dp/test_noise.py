import numpy as np
import pytest
import torch
from scipy import stats

from trustnlp.dp.noise import GaussianNoise
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.randomness import Streams


def block(number, std=2.0, seed=0, size=20_000):
    tensors = {"one": torch.zeros(size), "other": torch.zeros(2, size // 2)}
    GaussianNoise(std, Streams(seed)).add_(tensors, number)
    return np.concatenate([tensor.numpy().ravel() for tensor in tensors.values()])


class TestGaussianNoise:
    def test_it_is_gaussian_with_the_asked_deviation(self):
        noise = block(0)
        assert stats.kstest(noise / 2.0, "norm").pvalue > 1e-3
        assert noise.std() == pytest.approx(2.0, rel=4 / np.sqrt(2 * len(noise)))

    def test_tensors_and_blocks_are_independent(self):
        one, other = np.split(block(0), 2)
        assert abs(np.corrcoef(one, other)[0, 1]) < 4 / np.sqrt(len(one))
        assert abs(np.corrcoef(block(0), block(1))[0, 1]) < 4 / np.sqrt(40_000)

    def test_a_block_depends_on_seed_and_number_alone(self):
        tensors = {"one": torch.zeros(20_000), "other": torch.zeros(2, 10_000)}
        noise = GaussianNoise(2.0, Streams(0))
        noise.add_(tensors, 3)
        noise.add_(tensors, 5)
        both = np.concatenate([tensor.numpy().ravel() for tensor in tensors.values()])
        assert np.allclose(both, block(3) + block(5), atol=1e-5)
        assert not np.allclose(block(3, seed=1), block(3))

    def test_it_is_added_and_leaves_the_global_generator_alone(self):
        state = torch.random.get_rng_state()
        tensors = {"one": torch.full((5,), 100.0)}
        GaussianNoise(1e-3, Streams(0)).add_(tensors, 0)
        assert torch.allclose(tensors["one"], torch.tensor(100.0), atol=0.1)
        assert torch.equal(torch.random.get_rng_state(), state)

    @pytest.mark.parametrize("again", [0, 2, 4])
    def test_no_block_is_used_twice(self, again):
        noise = GaussianNoise(1.0, Streams(0))
        noise.add_({"one": torch.zeros(2)}, 4)
        with pytest.raises(GuaranteeError, match=f"block {again} was used before"):
            noise.add_({"one": torch.zeros(2)}, again)

    @pytest.mark.parametrize("std", [0.0, -1.0, float("nan"), float("inf")])
    def test_no_noise_is_refused(self, std):
        with pytest.raises(ArgumentError):
            GaussianNoise(std, Streams(0))
