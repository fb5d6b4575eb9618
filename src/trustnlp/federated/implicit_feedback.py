"""Learning from how people react to an answer: a noisy sign of whether it was right, and no label at all.

    text ── deployed model ──> answer a ── person ──> reaction r (rephrase, barge-in, accept, silence)
                               P(r | a is right), P(r | a is wrong): the noise model

**It assumes** that a reaction depends on nothing but whether the answer was right. Then, with p(a) the probability that
the model in training gives the answer, and l(j) its loss on label j:

    forward   -log( P(r | right) p(a) + P(r | wrong) (1 - p(a)) ), the likelihood of the reaction. Whichever labels
              wrong answers stand for, it is least in expectation where p(a) is the chance that a is right.
    backward  w(r) l(a) + v(r) (sum_j l(j) - (K - 1) l(a)), where E[w | right] = E[v | wrong] = 1 and
              E[w | wrong] = E[v | right] = 0. An unbiased estimate of l(true label) if also every other label is
              equally often the wrong answer. May be negative, and varies more the less a reaction tells.

A wrong answer is a complementary label: it says what a text is not, and the term in v is the loss for these. Any w and
v that solve P w = (1, 0), P v = (0, 1) are unbiased; those of least length are taken (the pseudo-inverse of P).

Source: Patrini et al. 2017, arXiv:1609.03683 (forward and backward correction); Ishida et al. 2017, arXiv:1705.07541
(complementary labels), in the form for any loss of Ishida et al. 2019, arXiv:1810.04327.

Shape legend: N texts, B batch, K labels, R reactions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from trustnlp import checks
from trustnlp.data.encoding import NO_TARGET
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.federated.local_training import Visit
from trustnlp.federated.wrapped import Wrapped, supervised
from trustnlp.models.protocol import Batch, Encoded, TextModel
from trustnlp.results import Direction, Finding
from trustnlp.uncertainty import Interval, bonferroni, bounded_mean, proportion

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
REACTIONS = ("rephrase", "barge-in", "accept", "silence")
CORRECTIONS = ("forward", "backward")
ANSWER, REACTION = "answer", "reaction"
FEWEST = 10  # right and wrong answers in an audited sample
_PERMUTATIONS = 1999


@dataclass(frozen=True)
class NoiseModel:
    """How people react.

    Args:
        right: (R,) probability of each reaction to a right answer.
        wrong: (R,) to a wrong one.
        reactions: (R,) their names.

    Raises:
        ArgumentError: no probabilities that add up to 1, or a reaction that never happens.
        GuaranteeError: the same reactions to both, from which nothing can be learned.
    """

    right: tuple[float, ...]
    wrong: tuple[float, ...]
    reactions: tuple[str, ...] = REACTIONS

    def __post_init__(self) -> None:
        checks.same_length(reactions=self.reactions, right=self.right, wrong=self.wrong)
        for name in ("right", "wrong"):
            given = np.asarray(getattr(self, name), dtype=float)
            if not ((given >= 0).all() and abs(given.sum() - 1) < 1e-9):
                raise ArgumentError(name, "probabilities that add up to 1", given.tolist())
        if not (self.table.max(0) > 0).all():
            raise ArgumentError("reactions", "possible ones alone", "one of probability 0", "leave it out")
        if self.information < 1e-9:
            raise GuaranteeError(
                "people react to right and to wrong answers alike, so reactions say nothing", "ask for labels"
            )

    @property
    def table(self) -> Array:
        """(2, R) probabilities, of wrong answers first."""
        return np.array([self.wrong, self.right], dtype=float)

    @property
    def information(self) -> float:
        """Total variation between reactions to right and to wrong answers, in [0, 1]; 1 tells them apart surely."""
        return float(np.abs(self.table[1] - self.table[0]).sum() / 2)

    @property
    def weights(self) -> Array:
        """(R, 2) v(r) and w(r): mean 1 over reactions to wrong and right answers respectively, and 0 over the others.

        Raises:
            GuaranteeError: reactions so alike that the weights cannot be told in double precision.
        """
        found = np.asarray(np.linalg.pinv(self.table))
        if not np.allclose(self.table @ found, np.eye(2), atol=1e-6):
            raise GuaranteeError("reactions to right and wrong answers are too much alike", "ask for labels")
        return found

    def draw(self, correct: ArrayLike, generator: np.random.Generator) -> Ints:
        """(N,) the reaction to each answer, by number, for simulations.

        Args:
            correct: (N,) whether each answer is right.
        """
        right = np.asarray(correct, dtype=bool)
        ends = np.cumsum(self.table, axis=1)[right.astype(int), :-1]
        return np.asarray((generator.random((len(right), 1)) >= ends).sum(1), dtype=np.int64)


def corrected_losses(
    scores: Tensor, answers: Tensor, reactions: Tensor, noise: NoiseModel, correction: str = "forward"
) -> Tensor:
    """(B,) losses in nats, corrected as the head of this module says.

    Args:
        scores: (B, K) unnormalised.
        answers: (B,) labels that were answered.
        reactions: (B,) by number.
        correction: `forward` or `backward`.

    Raises:
        ArgumentError: another correction.
    """
    checks.one_of("correction", correction, CORRECTIONS)
    log_p = scores.log_softmax(-1)
    right = log_p.gather(1, answers[:, None])[:, 0]
    if correction == "forward":
        wrong = log_p.scatter(1, answers[:, None], -torch.inf).logsumexp(-1)
        table = torch.as_tensor(noise.table, dtype=scores.dtype, device=scores.device).log()[:, reactions]
        return -torch.logaddexp(table[1] + right, table[0] + wrong)
    weights = torch.as_tensor(noise.weights, dtype=scores.dtype, device=scores.device)[reactions]
    complementary = -log_p.sum(-1) + (scores.shape[1] - 1) * right
    return complementary * weights[:, 0] - right * weights[:, 1]


@dataclass(frozen=True)
class ImplicitFeedback(Wrapped):
    """An algorithm whose devices learn from reactions, where nobody has labelled their texts.

    Texts come from `WithFeedback`. A text that has a label is learned as the base does; one with neither is not.

    Args:
        base: any algorithm.
        noise: how people react; frozen, so that what is learned cannot explain reactions away.
        correction: `forward` or `backward`.
        weight: of the losses by reactions, >= 0.

    Raises:
        ArgumentError: a field breaks its rule.
    """

    noise: NoiseModel
    correction: str = "forward"
    weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of("correction", self.correction, CORRECTIONS)
        checks.non_negative("weight", self.weight)

    def loss(self, visit: Visit, batch: Batch) -> Tensor:
        """(B,) the base's loss where there is a label, elsewhere the corrected loss of the reaction.

        Raises:
            ArgumentError: texts without reactions.
        """
        if REACTION not in batch.targets:
            raise ArgumentError("texts", "with reactions", "texts alone", "encode them by WithFeedback")
        targets = {name: target for name, target in batch.targets.items() if name not in (ANSWER, REACTION)}
        own = Batch(batch.inputs, targets)
        known = targets["label"] != NO_TARGET
        heard = ~known & (batch.targets[REACTION] != NO_TARGET)
        answers, reactions = (batch.targets[name].clamp(min=0) for name in (ANSWER, REACTION))
        scores = cast(TextModel, visit.model).logits(own)["label"]
        losses = corrected_losses(scores, answers, reactions, self.noise, self.correction)
        return self.weight * losses.where(heard, 0.0) + supervised(self.base, visit, own, known)


class WithFeedback:
    """Encoded texts with the answers that they were given and the reactions to these.

    Args:
        encoded: N texts of a LabelModel.
        answers: (N,) labels by number.
        reactions: (N,) by number; -100 where there was none.

    Raises:
        ArgumentError: lengths that differ.
    """

    def __init__(self, encoded: Encoded, answers: ArrayLike, reactions: ArrayLike) -> None:
        self._encoded = encoded
        self._answers, self._reactions = (np.asarray(each, dtype=np.int64) for each in (answers, reactions))
        checks.same_length(encoded=encoded, answers=self._answers, reactions=self._reactions)

    def __len__(self) -> int:
        return len(self._encoded)

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """The texts at `indices`, with `answer` (B,) and `reaction` (B,) among their targets."""
        chosen = np.asarray(indices, dtype=np.int64)
        own = self._encoded.batch(chosen)
        feedback = {ANSWER: self._answers[chosen], REACTION: self._reactions[chosen]}
        return Batch(own.inputs, {**own.targets, **{name: torch.from_numpy(each) for name, each in feedback.items()}})


# --- what the noise is, and what reactions say without training ---------------------------------------------------


@dataclass(frozen=True)
class Estimated:
    """A noise model that was estimated.

    Args:
        noise: the estimate, with half a reaction of each kind added, so that none is impossible.
        intervals: of P(reaction | right) and of P(reaction | wrong), by reaction; all of them at once at `level`.
        level: in (0, 1).
        p_value: of a permutation test that reactions have nothing to do with correctness.
        audited: right and wrong answers in the sample.
    """

    noise: NoiseModel
    intervals: dict[str, tuple[Interval, Interval]] = field(repr=False)
    level: float
    p_value: float
    audited: tuple[int, int]


def estimate(
    correct: ArrayLike,
    reactions: ArrayLike,
    generator: np.random.Generator,
    *,
    names: tuple[str, ...] = REACTIONS,
    level: float = 0.95,
) -> Estimated:
    """The noise model from an audited sample: texts drawn at random, whose answers somebody has judged.

    Intervals take texts for independent: draw one from each device, or few from each of many.

    Args:
        correct: (n,) whether each answer was right.
        reactions: (n,) by number.
        generator: of the permutations.
        names: (R,) of the reactions.
        level: of all intervals together, and 1 - level is that of the test.

    Raises:
        ArgumentError: lengths that differ, or a reaction without name.
        GuaranteeError: fewer than 10 right or wrong answers, or reactions that the sample cannot tell from ones which
            have nothing to do with correctness: what is learned from them would be noise.
    """
    right, heard = np.asarray(correct, dtype=bool), np.asarray(reactions, dtype=np.int64)
    checks.same_length(correct=right, reactions=heard)
    checks.inside("level", level, 0, 1)
    if len(heard) and not 0 <= heard.min() <= heard.max() < len(names):
        raise ArgumentError("reactions", f"numbers from 0 to {len(names) - 1}", [heard.min(), heard.max()])
    counts = np.stack([np.bincount(heard[right == side], minlength=len(names)) for side in (False, True)])
    sizes = counts.sum(1)
    if sizes.min() < FEWEST:
        raise GuaranteeError(
            f"{sizes[1]} right and {sizes[0]} wrong answers do not give a noise model", f"audit {FEWEST} of each"
        )
    p_value = _independence(right, heard, len(names), generator)
    if p_value > 1 - level:
        raise GuaranteeError(
            f"reactions may have nothing to do with whether answers are right (p = {p_value:.3g})",
            "audit more texts, or do not learn from these reactions",
        )
    each = bonferroni(level, counts.size)
    ends = [[proportion(int(count), int(size), each) for count in row] for row, size in zip(counts, sizes, strict=True)]
    shares = (counts + 0.5) / (sizes + len(names) / 2)[:, None]
    noise = NoiseModel(tuple(shares[1].tolist()), tuple(shares[0].tolist()), names)
    intervals = {name: (ends[1][place], ends[0][place]) for place, name in enumerate(names)}
    return Estimated(noise, intervals, level, p_value, (int(sizes[1]), int(sizes[0])))


def accuracy(reactions: ArrayLike, noise: NoiseModel, *, level: float = 0.95) -> Finding:
    """How often answers were right, by reactions alone: the mean of w(r), unbiased; higher is better, ideal 1.

    The interval (Hoeffding) takes the noise model as known and texts as independent.

    Args:
        reactions: (N,) by number.
        noise: how people react.
        level: of the interval.
    """
    values = noise.weights[np.asarray(reactions, dtype=np.int64), 1]
    ends = bounded_mean(values, float(noise.weights[:, 1].min()), float(noise.weights[:, 1].max()), level)
    value, low, high = (min(max(each, 0.0), 1.0) for each in (float(values.mean()), ends.low, ends.high))
    return Finding(
        "feedback-accuracy",
        "Share of right answers, by how people reacted",
        value,
        low,
        high,
        level,
        n=len(values),
        direction=Direction.HIGHER,
        ideal=1.0,
        source="mean of unbiased weights of reactions; Hoeffding interval, noise model taken as known",
        details={"information": noise.information},
    )


def _independence(right: NDArray[np.bool_], heard: Ints, reactions: int, generator: np.random.Generator) -> float:
    """The p-value of the distance between both sides' shares of reactions; what was seen is one of the permutations."""
    seen = np.eye(reactions)[heard]
    asked = np.tile(right.astype(float), (1 + _PERMUTATIONS, 1))
    asked[1:] = generator.permuted(asked[1:], axis=1)
    apart = asked @ seen / right.sum() - (1 - asked) @ seen / (~right).sum()
    distances = np.abs(apart).sum(1)
    return float((distances >= distances[0] - 1e-12).mean())
