"""Linear-chain conditional random fields (Lafferty et al. 2001): the likelihood of a whole sequence of tags.

Shape legend: B batch, T positions, S tags.

    score of a sequence = start[y_1] + sum_t scores[t, y_t] + sum_t transitions[y_t, y_(t+1)] + end[y_T]

Sums over all sequences are taken step by step (the forward algorithm): by a product of matrices, shifted into the range
of float64, which is exact to rounding while transitions differ by less than that range allows, and else by log-sum-exp.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

# In nats. Against a term of e^-600, what underflows in float64 (e^-708) is less than rounding.
_RANGE = 600.0


class Counts(NamedTuple):
    """How often each pair of tags, each first and each last tag occurs: (B, S, S), (B, S), (B, S), in float64."""

    transitions: Tensor
    start: Tensor
    end: Tensor


class LinearChainCRF(nn.Module):
    """Negative log-likelihood of tags, and the best tags.

    At first all parameters are 0: then every tag's likelihood is its own softmax.

    Args:
        tags: S.
    """

    def __init__(self, tags: int) -> None:
        super().__init__()
        self.transitions = nn.Parameter(torch.zeros(tags, tags))
        self.start = nn.Parameter(torch.zeros(tags))
        self.end = nn.Parameter(torch.zeros(tags))

    def extra_repr(self) -> str:
        """The number of tags."""
        return str(len(self.start))

    def forward(self, scores: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """(B,) negative log-likelihood of each sequence, in nats.

        Args:
            scores: (B, T, S) of every tag at every position.
            tags: (B, T) numbers of the tags; beyond its length an example's may be anything.
            lengths: (B,) positions per example, at least 1.
        """
        present = _present(scores, lengths)
        tags = tags.where(present, 0)
        total = (self._ahead(scores.double(), present)[-1] + self.end.double()).logsumexp(1)
        return (total - self._of(scores.double(), tags, present, lengths)).to(scores.dtype)

    def _of(self, scores: Tensor, tags: Tensor, present: Tensor, lengths: Tensor) -> Tensor:
        """(B,) score of one sequence each."""
        last = tags.gather(1, lengths[:, None] - 1)[:, 0]
        each = scores.gather(2, tags[:, :, None])[:, :, 0] * present
        pairs = self.transitions.double()[tags[:, :-1], tags[:, 1:]] * present[:, 1:]
        return self.start.double()[tags[:, 0]] + each.sum(1) + pairs.sum(1) + self.end.double()[last]

    def _ahead(self, scores: Tensor, present: Tensor) -> list[Tensor]:
        """T times (B, S): log-sum over all beginnings that end in a tag; beyond its length as at an example's last."""
        table = _Table(self.transitions.double())
        found = [self.start.double() + scores[:, 0]]
        for step in range(1, scores.shape[1]):
            following = table.log_product(found[-1]) + scores[:, step]
            found.append(following.where(present[:, step, None], found[-1]))
        return found

    def _back(self, scores: Tensor, present: Tensor) -> list[Tensor]:
        """T times (B, S): log-sum over all continuations of a tag."""
        table, end = _Table(self.transitions.double().t()), self.end.double().expand(len(scores), -1)
        found = [end]
        for step in range(scores.shape[1] - 1, 0, -1):
            found.append(table.log_product(scores[:, step] + found[-1]).where(present[:, step, None], end))
        return found[::-1]

    @torch.no_grad()
    def surplus(self, scores: Tensor, tags: Tensor, lengths: Tensor) -> Counts:
        """Expected counts less those of `tags`: each example's gradient of `forward` by the parameters.

        The expectation is over all sequences of tags as likely as the model says (forward-backward algorithm).
        """
        present = _present(scores, lengths)
        tags = tags.where(present, 0)
        wide = scores.double()
        ahead, back = (torch.stack(way, 1) for way in (self._ahead(wide, present), self._back(wide, present)))
        total = (ahead[:, -1] + self.end.double()).logsumexp(1)
        before, after = ahead[:, :-1] - total[:, None, None], (wide + back)[:, 1:]
        pairs = _Table(self.transitions.double()).pairs(before, after, present[:, 1:])
        start = (ahead[:, 0] + back[:, 0] - total[:, None]).exp()
        end = (ahead[:, -1] + self.end.double() - total[:, None]).exp()
        numbers = tags[:, :-1] * len(self.start) + tags[:, 1:]
        pairs.flatten(1).scatter_add_(1, numbers, -present[:, 1:].to(pairs.dtype))
        for counts, first in ((start, tags[:, :1]), (end, tags.gather(1, lengths[:, None] - 1))):
            counts.scatter_add_(1, first, -torch.ones_like(first, dtype=counts.dtype))
        return Counts(pairs, start, end)

    @torch.no_grad()
    def decode(self, scores: Tensor, lengths: Tensor, allowed: Tensor | None = None) -> Tensor:
        """(B, T) the best sequence of tags (Viterbi); what is returned beyond `lengths` means nothing.

        Args:
            scores: (B, T, S).
            lengths: (B,).
            allowed: (S + 1, S) bool, which tag may follow which; the last row says which may come first. All, if None.
        """
        table = torch.cat([self.transitions, self.start[None]]).double()
        if allowed is not None:
            table = table.masked_fill(~allowed, -torch.inf)
        present, unmoved = _present(scores, lengths), torch.arange(scores.shape[2], device=scores.device)
        totals, origins = table[-1] + scores[:, 0].double(), []
        for step in range(1, scores.shape[1]):
            best, origin = (totals[:, :, None] + table[:-1]).max(1)
            here = present[:, step, None]
            totals = (best + scores[:, step]).where(here, totals)
            origins.append(origin.where(here, unmoved))
        path = [(totals + self.end.double()).argmax(1, keepdim=True)]
        for origin in reversed(origins):
            path.append(origin.gather(1, path[-1]))
        return torch.cat(path[::-1], 1)


class _Table:
    """A table of transitions (S, S), ready for products in the range of logarithms."""

    def __init__(self, table: Tensor) -> None:
        self.table, self.top = table, table.max().detach()
        self.weights = (table - self.top).exp()
        self._exact = bool(self.top - table.min() < _RANGE)

    def log_product(self, values: Tensor) -> Tensor:
        """(B, S) log of sum_i exp(values_i + table_ij), for values (B, S)."""
        if not self._exact:
            return (values[:, :, None] + self.table).logsumexp(1)
        top = values.amax(1, keepdim=True).detach()
        return ((values - top).exp() @ self.weights).log() + top + self.top

    def pairs(self, before: Tensor, after: Tensor, present: Tensor) -> Tensor:
        """(B, S, S) sum over steps of exp(before_i + table_ij + after_j), each at most 1, for two (B, T, S).

        Args:
            before, after: logarithms.
            present: (B, T) which steps count.
        """
        if not self._exact:
            total = before.new_zeros(len(before), *self.table.shape)
            for step, here in enumerate(present.unbind(1)):
                terms = before[:, step, :, None] + self.table + after[:, step, None]
                total += terms.masked_fill(~here[:, None, None], -torch.inf).exp()
            return total
        tops = [part.amax(2, keepdim=True) for part in (before, after)]
        scale = (tops[0] + tops[1] + self.top).masked_fill(~present[:, :, None], -torch.inf).exp()
        return self.weights * (((before - tops[0]).exp() * scale).mT @ (after - tops[1]).exp())


def _present(scores: Tensor, lengths: Tensor) -> Tensor:
    """(B, T) whether a position is within its example's length."""
    return torch.arange(scores.shape[1], device=scores.device) < lengths[:, None]
