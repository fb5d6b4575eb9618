"""Norms and clipped sums of per-example gradients that are never, or seldom, written out.

Shape legend: B examples, T positions, D inputs, P outputs, V vocabulary.

A layer's gradient for one example is a sum over positions of outer products g_t a_t^T, of its inputs `a` (B, T, D) and
the gradients of its outputs `g` (B, T, P). Its squared norm is the sum over pairs of positions of (a_s.a_t)(g_s.g_t)
(Goodfellow 2015, arXiv 1510.01799; Li et al. 2021, arXiv 2110.05679), and the clipped sum over examples is one
product of matrices, with every example's rows scaled by its clip factor (Bu et al. 2022, arXiv 2210.00038).
"""

from __future__ import annotations

import torch
from torch import Tensor


def gram_is_cheaper(positions: int, inputs: int, outputs: int) -> bool:
    """Whether pairs of positions are cheaper than the (P, D) matrix of each example.

    Counted in multiplications: T^2 (D + P) against T D P. The same inequality says that `a` and `g` together are
    smaller than the matrices, so neither form ever needs more memory than what backward has left behind.
    """
    return positions * (inputs + outputs) < inputs * outputs


class OuterProducts:
    """For each example the matrix sum_t g_t a_t^T, and the vector sum_t g_t where there are biases.

    Args:
        a: (B, T, D) inputs; None where biases alone are trained.
        g: (B, T, P) gradients of the outputs.
        biases: how many bias vectors are added to the outputs.
    """

    def __init__(self, a: Tensor | None, g: Tensor, biases: int) -> None:
        self.a, self.g, self._biases = a, g, biases
        self._matrices: Tensor | None = None
        self._vectors: Tensor | None = None

    def squared_norms(self) -> Tensor:
        """(B,) squared norm of matrix and biases together, up to rounding of the norm itself and otherwise upwards."""
        a, g = self.a, self.g
        if a is not None and (g.shape[1] == 1 or gram_is_cheaper(g.shape[1], a.shape[2], g.shape[2])):
            products = a @ a.mT
            return gram_norms(products.add_(self._biases) if self._biases else products, g)
        norms = g.new_zeros(len(g))
        if self._biases:
            self._vectors = g.sum(1)
            norms += self._biases * self._vectors.square().sum(1)
        if a is not None:
            self._matrices = g.mT @ a
            norms += self._matrices.square().sum((1, 2))
        return norms

    def add_matrix(self, total: Tensor, factors: Tensor) -> None:
        """Adds the sum of the matrices, each times its example's factor (B,), to `total` (P, D)."""
        if self._matrices is not None:
            total += (factors @ self._matrices.flatten(1)).view(total.shape)
        elif self.a is not None:
            total.addmm_(self._scaled(factors).flatten(0, 1).t(), self.a.flatten(0, 1))

    def vector(self, factors: Tensor) -> Tensor:
        """(P,) the sum of the bias gradients, each times its example's factor (B,)."""
        return factors @ (self.g.sum(1) if self._vectors is None else self._vectors)

    def _scaled(self, factors: Tensor) -> Tensor:
        return self.g * factors[:, None, None]


class Lookups:
    """For each example the (V, D) matrix whose row v is the sum of g_t over the positions t with id v.

    Args:
        ids: (B, T) which row every position reads.
        g: (B, T, D) gradients of what was read.
        rows: V.
    """

    def __init__(self, ids: Tensor, g: Tensor, rows: int) -> None:
        self.ids, self.g, self._rows = ids, g, rows
        self._matrices: Tensor | None = None

    def squared_norms(self) -> Tensor:
        """(B,) squared norm of the matrix, up to rounding of the norm itself and otherwise upwards."""
        examples, positions, width = self.g.shape
        if self._rows <= positions:
            self._matrices = _sums(self._keys(), self.g, examples * self._rows).view(examples, -1)
            return self._matrices.square().sum(1)
        if positions <= width:
            same = self.ids[:, :, None] == self.ids[:, None]
            return gram_norms(same.to(self.g.dtype), self.g)
        used, place = self._keys().unique(return_inverse=True)
        squares = _sums(place, self.g, len(used)).square().sum(1)
        return self.g.new_zeros(examples).index_add_(0, used // self._rows, squares)

    def add_matrix(self, total: Tensor, factors: Tensor) -> None:
        """Adds the sum of the matrices, each times its example's factor (B,), to `total` (V, D)."""
        if self._matrices is not None:
            total += (factors @ self._matrices).view(total.shape)
        else:
            total.index_add_(0, self.ids.flatten(), (self.g * factors[:, None, None]).flatten(0, 1))

    def _keys(self) -> Tensor:
        """(B * T) a number for each pair of example and row."""
        examples = torch.arange(len(self.ids), device=self.ids.device)
        return (self.ids + examples[:, None] * self._rows).flatten()


class Scales:
    """For each example the vector sum_t x_t * g_t (element by element), and sum_t g_t where there is a bias.

    Args:
        x: (B, T, D) what is scaled; None where the bias alone is trained.
        g: (B, T, D) gradients of the outputs.
        bias: whether a bias is trained.
    """

    def __init__(self, x: Tensor | None, g: Tensor, bias: bool) -> None:
        self._scales = None if x is None else torch.linalg.vecdot(x, g, dim=1)
        self._shifts = g.sum(1) if bias else None

    def squared_norms(self) -> Tensor:
        """(B,) squared norm of both vectors together."""
        parts = [part.square().sum(1) for part in (self._scales, self._shifts) if part is not None]
        return torch.stack(parts).sum(0)

    def vectors(self, factors: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """(D,) and (D,) the sums over examples, each times its factor (B,)."""
        return (
            None if self._scales is None else factors @ self._scales,
            None if self._shifts is None else factors @ self._shifts,
        )


def inner_products(lookups: Lookups, products: OuterProducts) -> Tensor:
    """(B,) inner product of each example's two (V, D) matrices, where P = V and both have the same D."""
    if products.a is None:
        return products.g.new_zeros(len(products.g))
    ids = lookups.ids[:, None, :].expand(-1, products.g.shape[1], -1)
    return (products.g.gather(2, ids) * (products.a @ lookups.g.mT)).sum((1, 2))


def gram_norms(products: Tensor, g: Tensor) -> Tensor:
    """(B,) sum over pairs s, t of products[s, t] (g_s.g_t), for inner products (B, T, T) and `g` (B, T, P).

    Where large terms cancel, rounding could take the sum below the truth, and what is clipped by too small a norm
    stays too long. So the rounding of sum_t |a_t||g_t|, squared, is added.
    """
    terms = products * (g @ g.mT)
    longest = terms.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt().sum(1)
    return terms.sum((1, 2)) + 4 * torch.finfo(g.dtype).eps * longest.square()


def _sums(keys: Tensor, g: Tensor, count: int) -> Tensor:
    """(count, D) sums of the rows of `g` (B, T, D) that have the same key, of `keys` (B * T)."""
    return g.new_zeros(count, g.shape[2]).index_add_(0, keys, g.flatten(0, 1))
