from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from scipy import stats

from trustnlp.data import reservoir
from trustnlp.errors import ArgumentError
from trustnlp.randomness import Streams


def test_a_short_stream_is_kept_whole_and_nothing_is_drawn() -> None:
    generator = Streams(0).numpy("reservoir")
    assert reservoir.sample("abc", 3, generator) == (["a", "b", "c"], 3)
    assert generator.random() == Streams(0).numpy("reservoir").random()


def test_order_size_count_and_seed() -> None:
    kept, count = reservoir.sample(range(1000), 50, Streams(1).numpy("reservoir"))
    assert (len(kept), count) == (50, 1000)
    assert kept == sorted(set(kept))
    assert kept == reservoir.sample(range(1000), 50, Streams(1).numpy("reservoir"))[0]
    assert kept != reservoir.sample(range(1000), 50, Streams(2).numpy("reservoir"))[0]


@pytest.mark.parametrize(("size", "total"), [(1, 6), (2, 6), (5, 6)])
def test_every_subset_is_as_likely(size: int, total: int) -> None:
    generator = np.random.default_rng(0)
    drawn = Counter(tuple(reservoir.sample(range(total), size, generator)[0]) for _ in range(6000))
    subsets = {1: 6, 2: 15, 5: 6}[size]
    assert len(drawn) == subsets
    assert stats.chisquare(list(drawn.values())).pvalue > 0.001


def test_the_stream_is_never_held() -> None:
    alive: set[int] = set()

    class Item:
        def __init__(self) -> None:
            alive.add(id(self))

        def __del__(self) -> None:
            alive.discard(id(self))

    most = 0

    def items() -> Iterator[Item]:
        nonlocal most
        for _ in range(2000):
            most = max(most, len(alive))
            yield Item()

    kept, _ = reservoir.sample(items(), 10, np.random.default_rng(0))
    assert len(kept) == 10
    assert most <= 12


def test_an_empty_sample_is_refused() -> None:
    with pytest.raises(ArgumentError, match="'size' must be a whole number >= 1"):
        reservoir.sample([], 0, np.random.default_rng(0))
