"""Norms and clipped sums of per-example gradients that are never, or seldom, written out.

Shape legend: B examples, T positions, D inputs, P outputs, V vocabulary.

A layer's gradient for one example is a sum over positions of outer products g_t a_t^T, of its inputs `a` (B, T, D) and
the gradients of its outputs `g` (B, T, P). Its squared norm is the sum over pairs of positions of (a_s.a_t)(g_s.g_t)
(Goodfellow 2015, arXiv 1510.01799; Li et al. 2021, arXiv 2110.05679), and the clipped sum over examples is one
product of matrices, with every example's rows scaled by its clip factor (Bu et al. 2022, arXiv 2210.00038).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor

Form = Literal["gram", "instantiate", "tiled"]
Choose = Callable[[Tensor, Tensor, int], Form]

# What of the examples' matrices is made at a time by the tiled form: about a core's share of cache, or a good load.
_TILE = {"cpu": 2**21, "cuda": 2**28}


def gram_is_cheaper(positions: int, inputs: int, outputs: int) -> bool:
    """Whether pairs of positions are cheaper than the (P, D) matrix of each example.

    Counted in multiplications: T^2 (D + P) against T D P. The same inequality says that `a` and `g` together are
    smaller than the matrices, so neither form ever needs more memory than what backward has left behind.
    """
    return positions * (inputs + outputs) < inputs * outputs


def counted_form(a: Tensor, g: Tensor, biases: int) -> Form:
    """The form that takes fewest multiplications: a function of the shapes alone, so that the bits repeat."""
    del biases
    positions, inputs, outputs = a.shape[1], a.shape[2], g.shape[2]
    return "gram" if positions == 1 or gram_is_cheaper(positions, inputs, outputs) else "instantiate"


class OuterProducts:
    """For each example the matrix sum_t g_t a_t^T, and the vector sum_t g_t where there are biases.

    | form        | squared norm from                               | multiplications besides the sum's own T D P |
    |-------------|-------------------------------------------------|---------------------------------------------|
    | gram        | inner products of pairs of positions            | T^2 (D + P)                                 |
    | instantiate | the matrices, which are kept and summed         | none; memory D P for each example           |
    | tiled       | the matrices, a few at a time in the same place | T D P                                       |

    Args:
        a: (B, T, D) inputs; None where biases alone are trained.
        g: (B, T, P) gradients of the outputs.
        biases: how many bias vectors are added to the outputs.
        products: gives a @ a.mT, where others need it too.
        choose: the form; `counted_form` if None.
    """

    def __init__(
        self,
        a: Tensor | None,
        g: Tensor,
        biases: int,
        products: Callable[[], Tensor] | None = None,
        choose: Choose | None = None,
    ) -> None:
        self.a, self.g, self._biases = a, g, biases
        self._products, self._choose = products, choose or counted_form
        self._matrices: Tensor | None = None
        self._vectors: Tensor | None = None

    def squared_norms(self) -> Tensor:
        """(B,) squared norm of matrix and biases together, up to rounding of the norm itself and otherwise upwards."""
        a = self.a
        form = None if a is None else self._choose(a, self.g, self._biases)
        if a is not None and form == "gram":
            return self._norms_from_pairs(a)
        norms = self.g.new_zeros(len(self.g))
        if self._biases:
            self._vectors = self.g.sum(1)
            norms += self._biases * self._vectors.square().sum(1)
        if a is not None:
            norms += self._norms_of_matrices(a, kept=form == "instantiate")
        return norms

    def _norms_from_pairs(self, a: Tensor) -> Tensor:
        """(B,) squared norms of matrix and biases: a bias is one more input that is always 1."""
        if self._products is not None:
            shared = self._products()
            return gram_norms(shared + self._biases if self._biases else shared, self.g)
        products = a @ a.mT
        return gram_norms(products.add_(self._biases) if self._biases else products, self.g)

    def _norms_of_matrices(self, a: Tensor, kept: bool) -> Tensor:
        """(B,) squared norms of the matrices."""
        if kept:
            self._matrices = self.g.mT @ a
            return _squares(self._matrices)
        return torch.cat([_squares(tile) for tile in _tiles(a, self.g)])

    def add_matrix(self, total: Tensor, factors: Tensor) -> None:
        """Adds the sum of the matrices, each times its example's factor (B,), to `total` (P, D)."""
        if self._matrices is not None:
            total += (factors @ self._matrices.flatten(1)).view(total.shape)
        elif self.a is not None:
            a, g = self.a, self.g  # the narrower one is scaled
            a, g = (_scaled(a, factors), g) if a.shape[2] < g.shape[2] else (a, _scaled(g, factors))
            total.addmm_(g.flatten(0, 1).t(), a.flatten(0, 1))

    def vector(self, factors: Tensor) -> Tensor:
        """(P,) the sum of the bias gradients, each times its example's factor (B,)."""
        return factors @ (self.g.sum(1) if self._vectors is None else self._vectors)


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
            total.index_add_(0, self.ids.flatten(), _scaled(self.g, factors).flatten(0, 1))

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


def _scaled(rows: Tensor, factors: Tensor) -> Tensor:
    return rows * factors[:, None, None]


def _squares(matrices: Tensor) -> Tensor:
    """(B,) squared norms of (B, P, D), without a second tensor of that size."""
    return torch.linalg.vector_norm(matrices.flatten(1), dim=1).square()


def _tiles(a: Tensor, g: Tensor) -> Iterator[Tensor]:
    """The matrices (n, P, D) of n examples at a time, always in the same memory."""
    size = a.shape[2] * g.shape[2] * a.element_size()
    count = min(len(a), max(1, _TILE.get(a.device.type, _TILE["cuda"]) // size))
    memory = a.new_empty(count, g.shape[2], a.shape[2])
    for start in range(0, len(a), count):
        part = slice(start, start + count)
        yield torch.bmm(g[part].mT, a[part], out=memory[: len(a[part])])
