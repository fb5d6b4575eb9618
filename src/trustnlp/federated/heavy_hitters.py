"""Words that many devices have, found letter by letter: TrieHH (Zhu et al. 2020, arXiv 1902.08534).

    round r    m of n devices, drawn evenly without replacement; each votes for the first r letters of its word, if
               the first r - 1 are in the trie already
    server     keeps prefixes with at least theta votes

No noise is added: that nobody knows who was drawn hides every single vote, and a word that fewer than theta devices
have never comes out. With L rounds, 4 <= theta <= sqrt(n) and sqrt(n) <= m <= n / (theta + 1) it is private with

    epsilon = -L ln(1 - theta m / n),   delta = (theta - 2) / ((theta - 3) theta!)

which is the paper's L ln(1 + 1 / (sqrt(n) / (gamma theta) - 1)) with its m = gamma sqrt(n). The bound is loose: the
tests compare it with exact divergences. Votes themselves are never released.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from trustnlp import checks
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.federated.private_sum import Guarantee
from trustnlp.randomness import Streams

END = "\0"  # the letter after a word's last
_LEAST_THRESHOLD, _MOST_THRESHOLD = 4, 170  # 171! is beyond double precision


@dataclass(frozen=True)
class HeavyHitters:
    """What was found.

    Args:
        words: in alphabetical order. Each is held by at least theta devices.
        guarantee: what it costs.
    """

    words: tuple[str, ...] = field(repr=False)
    guarantee: Guarantee


@dataclass(frozen=True)
class TrieHH:
    """How words are found.

    Guarantee: (`epsilon`, `delta`)-differential privacy for one device with one word, whose word may vanish (the
    number of devices stays and is public). A device whose word becomes another is two such changes: at most 2 epsilon.
    It rests on the draws being secret: whoever knows the seed knows who voted.

    Args:
        devices: n.
        threshold: theta.
        drawn: m, devices of a round.
        letters: the longest word that can come out; L is one more, for its end.

    Raises:
        ArgumentError: a field breaks its rule.
        GuaranteeError: outside what is proved: see the head of this module.
    """

    devices: int
    threshold: int
    drawn: int
    letters: int

    def __post_init__(self) -> None:
        for name in ("devices", "threshold", "drawn", "letters"):
            checks.at_least(name, getattr(self, name), 1)
        if not _LEAST_THRESHOLD <= self.threshold <= min(_MOST_THRESHOLD, math.sqrt(self.devices)):
            raise GuaranteeError(
                f"a threshold of {self.threshold} votes with {self.devices} devices is outside what is proved",
                f"take one from {_LEAST_THRESHOLD} to sqrt(devices) = {math.isqrt(self.devices)}, or more devices",
            )
        if not math.sqrt(self.devices) <= self.drawn <= self.devices / (self.threshold + 1):
            raise GuaranteeError(
                f"rounds of {self.drawn} among {self.devices} devices are outside what is proved",
                f"draw from {math.ceil(math.sqrt(self.devices))} to {self.devices // (self.threshold + 1)} of them, "
                "or have more devices",
            )

    @classmethod
    def for_budget(cls, epsilon: float, delta: float, devices: int, letters: int = 10) -> TrieHH:
        """The least threshold and the largest rounds that spend at most `epsilon` and `delta` (their corollary 1).

        Raises:
            ArgumentError: an argument breaks its rule.
            GuaranteeError: too few devices for this budget.
        """
        checks.positive("epsilon", epsilon)
        checks.inside("delta", delta, 0, 1)
        rounds = checks.at_least("letters", letters, 1) + 1
        enough = range(_LEAST_THRESHOLD, _MOST_THRESHOLD + 1)
        at_most = math.expm1(min(epsilon / rounds, 700.0))
        found = next((theta for theta in enough if _delta(theta) <= delta and theta >= at_most), _MOST_THRESHOLD + 1)
        drawn = math.floor(-math.expm1(-epsilon / rounds) * checks.at_least("devices", devices, 1) / found)
        if drawn < 1:
            raise GuaranteeError(
                f"{devices} devices are too few for epsilon {epsilon:g} and delta {delta:g}", "have more"
            )
        return cls(devices, found, drawn, letters)

    @property
    def rounds(self) -> int:
        """L."""
        return self.letters + 1

    @property
    def epsilon(self) -> float:
        """Of all rounds."""
        return -self.rounds * math.log1p(-self.threshold * self.drawn / self.devices)

    @property
    def delta(self) -> float:
        """Of all rounds."""
        return _delta(self.threshold)

    def guarantee(self) -> Guarantee:
        """Of all rounds."""
        how = (
            f"TrieHH, {self.rounds} rounds of {self.drawn} among {self.devices} devices drawn in secret, prefixes with "
            f"at least {self.threshold} votes"
        )
        return Guarantee(self.epsilon, self.delta, how, adjacency="zero-out")

    def find(self, words: Sequence[str], streams: Streams) -> HeavyHitters:
        """The words that come out; longer ones than `letters` do not.

        Args:
            words: one for each device, chosen there; empty where it has none.
            streams: of which the stream `heavy hitters` is used.

        Raises:
            ArgumentError: another number of words than of devices, or one with a null character.
        """
        if len(words) != self.devices:
            raise ArgumentError("words", f"one for each of {self.devices} devices", len(words))
        if any(END in word for word in words):
            raise ArgumentError("words", "without null characters", "one with")
        trie = {""}
        found: set[str] = set()
        for length in range(1, self.rounds + 1):
            generator = streams.numpy("heavy hitters", length)
            chosen = generator.choice(self.devices, self.drawn, replace=False, shuffle=False)
            trie = {
                prefix for prefix, votes in self._votes(words, chosen, length, trie).items() if votes >= self.threshold
            }
            found |= {prefix[:-1] for prefix in trie if prefix.endswith(END)}
        return HeavyHitters(tuple(sorted(found)), self.guarantee())

    def _votes(self, words: Sequence[str], chosen: np.ndarray, length: int, trie: set[str]) -> Counter[str]:
        ended = ((words[device] + END) for device in chosen if words[device])
        return Counter(word[:length] for word in ended if len(word) >= length and word[: length - 1] in trie)


def _delta(threshold: int) -> float:
    return (threshold - 2) / ((threshold - 3) * math.factorial(threshold))
