import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from trustnlp.federated.device_hash import normal, uniform

DEVICES = np.arange(100_000)
_MASK = 2**64 - 1


def slow(key, device):
    """Oracle: SplitMix64 in Python's own numbers."""

    def mix(bits):
        bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
        bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB & _MASK
        return bits ^ (bits >> 31)

    return ((mix((mix(key) + (device + 1) * 0x9E3779B97F4A7C15) & _MASK) >> 11) + 0.5) / 2**53


@given(st.integers(0, _MASK), st.integers(0, 2**31))
def test_it_is_the_hash_of_its_definition(key, device):
    assert uniform(key, np.array([device]))[0] == slow(key, device)


def test_published_values_of_the_generator():
    # The first outputs of SplitMix64 from state 0, as its reference implementations print them.
    published = np.array([0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F], dtype=np.uint64)
    assert uniform(0, np.arange(3)) == pytest.approx(((published >> np.uint64(11)) + 0.5) * 2.0**-53, rel=1e-15)


def test_who_else_is_asked_does_not_matter():
    whole = uniform(7, DEVICES)
    assert uniform(7, DEVICES[::-1][:10]).tolist() == whole[::-1][:10].tolist()
    assert uniform(7, DEVICES[:10].astype(np.int32)).tolist() == whole[:10].tolist()


@pytest.mark.parametrize("key", [0, 1, 2**63 - 1])
def test_it_is_uniform_or_normal(key):
    assert stats.kstest(uniform(key, DEVICES), "uniform").pvalue > 0.001
    assert stats.kstest(normal(key, DEVICES), "norm").pvalue > 0.001
    assert 0 < uniform(key, DEVICES).min() < uniform(key, DEVICES).max() < 1


def test_keys_and_neighbours_are_unrelated():
    limit = 4.5 / np.sqrt(len(DEVICES))
    for key in range(5):
        first = uniform(key, DEVICES)
        assert abs(np.corrcoef(first, uniform(key + 1, DEVICES))[0, 1]) < limit
        assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < limit
