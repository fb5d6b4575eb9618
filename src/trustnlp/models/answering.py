"""Models that are known by their answers alone: a Python function from texts to losses or logits, such as a service.

Shape legend: B texts of a call, N examples, K labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax

from trustnlp import checks
from trustnlp.data.corpus import Example
from trustnlp.errors import ArgumentError, GuaranteeError

Answer = Callable[[list[str]], ArrayLike]


@dataclass(frozen=True)
class AnsweringModel:
    """A function that is asked for some texts at a time; it must answer a text alike whatever else is in the call.

    Args:
        answer: without `labels`, the losses (B,) of B texts in nats, lower = more likely to the model; with `labels`,
            unnormalised scores (B, K).
        labels: names of the K labels in the order of the scores. The loss of an example is then the cross-entropy of
            its own label.
        batch_size: the most texts of a call.

    Raises:
        ArgumentError: a field breaks its rule.
    """

    answer: Answer
    labels: tuple[str, ...] = ()
    batch_size: int = 128

    def __post_init__(self) -> None:
        checks.at_least("batch_size", self.batch_size, 1)
        if len(self.labels) == 1 or len(set(self.labels)) < len(self.labels):
            raise ArgumentError("labels", "empty, or at least two distinct names", self.labels)

    def losses(self, examples: Sequence[Example]) -> NDArray[np.float64]:
        """(N,) the loss of every example in nats.

        Raises:
            ArgumentError: no example, or the function answers another shape than it should.
            GuaranteeError: an example whose label is none of `labels`.
        """
        if not self.labels:
            return self._asked(examples, ())
        logits, gold = self.logits(examples), self._gold(examples)
        found: NDArray[np.float64] = -log_softmax(logits, axis=1)[np.arange(len(gold)), gold]
        return found

    def logits(self, examples: Sequence[Example]) -> NDArray[np.float64]:
        """(N, K) the scores of every example.

        Raises:
            ArgumentError: see `losses`; or the function answers losses.
        """
        if not self.labels:
            raise ArgumentError("labels", "given for a function that answers scores", self.labels)
        return self._asked(examples, (len(self.labels),))

    def right(self, examples: Sequence[Example]) -> NDArray[np.bool_]:
        """(N,) whether the best-scored label is the example's own.

        Raises:
            ArgumentError, GuaranteeError: see `losses` and `logits`.
        """
        right: NDArray[np.bool_] = self.logits(examples).argmax(1) == self._gold(examples)
        return right

    def _gold(self, examples: Sequence[Example]) -> NDArray[np.int64]:
        numbers = {label: number for number, label in enumerate(self.labels)}
        found = [numbers.get(example.label or "", -1) for example in examples]
        if -1 in found:
            raise GuaranteeError(
                f"{found.count(-1)} of {len(found)} examples have no label that the model knows, so no loss under it",
                "name labels as 'labels' does, and leave other such texts out",
            )
        return np.array(found)

    def _asked(self, examples: Sequence[Example], tail: tuple[int, ...]) -> NDArray[np.float64]:
        checks.not_empty("examples", examples)
        texts, answers = [example.text for example in examples], []
        for start in range(0, len(texts), self.batch_size):
            chunk = texts[start : start + self.batch_size]
            answered = np.asarray(self.answer(chunk), dtype=float)
            if answered.shape != (len(chunk), *tail):
                raise ArgumentError("answer", f"a function that answers shape {(len(chunk), *tail)}", answered.shape)
            answers.append(answered)
        return np.concatenate(answers)
