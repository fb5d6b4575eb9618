import math
from itertools import combinations_with_replacement

import numpy as np
import pytest
from scipy.stats import hypergeom

from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.federated.heavy_hitters import TrieHH
from trustnlp.randomness import Streams

STREAMS = Streams(8)


def survival(rates: np.ndarray) -> np.ndarray:
    """Distribution of how many letters of a word come out, where letter r does with rates[r] if all before did."""
    reached = np.concatenate([[1.0], np.cumprod(rates)])
    return np.append(reached[:-1] - reached[1:], reached[-1])


def exact_delta(found: TrieHH, epsilon: float) -> float:
    """The largest divergence over how many other devices share each further letter of the word that vanishes."""
    n, theta, m = found.devices, found.threshold, found.drawn
    sharing = np.unique(np.r_[0 : 5 * theta, np.geomspace(5 * theta, n - 1, 12).astype(int)])[::-1]
    without, with_one = (hypergeom.sf(theta - 1, n, sharing + more, m) for more in (0, 1))
    worst = 0.0
    for letters in combinations_with_replacement(range(len(sharing)), found.rounds):  # ever fewer share a prefix
        one, other = survival(with_one[list(letters)]), survival(without[list(letters)])
        for p, q in ((one, other), (other, one)):
            worst = max(worst, float(np.maximum(p - math.exp(epsilon) * q, 0).sum()))
    return worst


@pytest.mark.parametrize(
    ("n", "m", "theta", "letters"), [(100, 10, 4, 1), (100, 20, 4, 1), (400, 20, 5, 1), (100, 16, 4, 2)]
)
def test_the_papers_bound_is_one(n, m, theta, letters):
    found = TrieHH(n, theta, m, letters)
    assert exact_delta(found, found.epsilon) <= found.delta
    assert exact_delta(found, found.epsilon / 20) > exact_delta(found, found.epsilon)  # the divergence is not idle


def test_epsilon_is_the_papers_formula():
    # Theorem of arXiv 1902.08534 in its own letters, with m = gamma sqrt(n).
    n, m, theta, rounds = 10_000, 300, 10, 11
    gamma = m / math.sqrt(n)
    expected = rounds * math.log(1 + 1 / (math.sqrt(n) / (gamma * theta) - 1))
    found = TrieHH(n, theta, m, rounds - 1)
    assert found.epsilon == pytest.approx(expected)
    assert found.delta == pytest.approx(8 / (7 * math.factorial(10)))


def test_a_budget_gives_the_authors_parameters():
    # The rule of the authors' code, by hand: the least theta with (theta - 3) / (theta - 2) theta! >= 1 / delta is 15
    # (14: 8.0e10 < 4.3e11 <= 15: 1.2e12), and m = n (e^(eps/L) - 1) / (theta e^(eps/L)).
    found = TrieHH.for_budget(4.0, 2.3e-12, 1_000_000, letters=9)
    assert found.threshold == 15
    assert found.drawn == int(1_000_000 * (math.exp(0.4) - 1) / (15 * math.exp(0.4)))
    assert found.epsilon <= 4.0
    assert found.epsilon == pytest.approx(4.0, rel=1e-3)


def words(frequent: dict[str, int], devices: int) -> list[str]:
    listed = [word for word, times in frequent.items() for _ in range(times)]
    return listed + [""] * (devices - len(listed))


def test_frequent_words_come_out_and_the_word_of_one_device_never_does():
    found = TrieHH.for_budget(4.0, 1e-6, 20_000, letters=6)
    planted = words({"hello": 7000, "help": 5000, "he": 4000, "pin4711": 1, "rare": found.threshold - 1}, 20_000)
    for seed in range(20):
        assert found.find(planted, Streams(seed)).words == ("he", "hello", "help")


def test_a_word_comes_out_as_often_as_its_devices_are_drawn():
    found = TrieHH(2500, 5, 60, 2)
    held = 230
    rate = hypergeom.sf(4, 2500, held, 60) ** 3  # two letters and the end
    runs = 400
    hits = sum("ok" in found.find(words({"ok": held}, 2500), Streams(seed)).words for seed in range(runs))
    assert hits == pytest.approx(runs * rate, abs=4 * math.sqrt(runs * rate * (1 - rate)))
    assert 0.1 < rate < 0.9


def test_longer_words_and_prefixes_of_words_do_not_come_out():
    found = TrieHH(10_000, 10, 500, 3)
    assert found.find(words({"abcd": 8000}, 10_000), STREAMS).words == ()
    assert found.find(words({"abc": 8000}, 10_000), STREAMS).words == ("abc",)


def test_words_are_found_again_with_the_same_streams_and_not_shown():
    found = TrieHH(10_000, 10, 500, 3)
    planted = words({"abc": 900, "abd": 700}, 10_000)
    assert found.find(planted, STREAMS) == found.find(planted, STREAMS)
    assert "abc" not in repr(found.find(words({"abc": 8000}, 10_000), STREAMS))


def test_it_says_what_it_costs():
    guarantee = TrieHH(10_000, 10, 300, 4).guarantee()
    assert (guarantee.unit, guarantee.adjacency) == ("device", "zero-out")
    assert "drawn in secret" in str(guarantee)


@pytest.mark.parametrize(
    ("n", "theta", "m", "mend"),
    [(100, 3, 10, "from 4"), (100, 11, 10, "sqrt"), (100, 4, 9, "draw from 10"), (100, 4, 21, "to 20")],
)
def test_what_is_not_proved_is_refused(n, theta, m, mend):
    with pytest.raises(GuaranteeError) as caught:
        TrieHH(n, theta, m, 3)
    assert mend in caught.value.mend


def test_too_few_devices_for_a_budget_are_refused():
    with pytest.raises(GuaranteeError):
        TrieHH.for_budget(1.0, 1e-9, 500)


@pytest.mark.parametrize("given", [["a"] * 99, ["a\0"] * 100])
def test_bad_words_are_refused(given):
    with pytest.raises(ArgumentError, match="words"):
        TrieHH(100, 4, 10, 3).find(given, STREAMS)
