"""Gradients of lookups in large tables of vectors, added straight to the rows that were looked up.

PyTorch makes a gradient of the whole table at every step, mostly zeros, and adds it to what is there. A device's texts
look up few of the rows. Here the gradient of each lookup is added to its rows, in the same order and so, where a table
is looked up once in a step, to the same bits. A gradient that reaches the table in another way, as through a tied
layer, is added by PyTorch as ever.

Shape legend: V rows of a table of width D.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from torch import Tensor, nn

LARGE = 1 << 14  # entries of a table, below which PyTorch's own way takes no longer


class Lookups:
    """All lookups of a model in tables whose `grad` is there already.

    Only of `nn.Embedding` itself, and of none that scales its vectors or gradients or has them sparse.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = [module for module in model.modules() if _is_large(module)]
        self._found: list[tuple[nn.Embedding, Tensor, Tensor]] = []

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Inside, gradients end at what was looked up, from where `add` fetches them."""
        handles = [module.register_forward_hook(self._cut, prepend=True) for module in self._modules]
        try:
            yield
        finally:
            self._found.clear()
            for handle in handles:
                handle.remove()

    def add(self) -> None:
        """Adds the gradients of all lookups since the last time to those of their tables."""
        for module, ids, vectors in reversed(self._found):  # as gradients come
            if vectors.grad is not None:
                _add_rows(module, ids.reshape(-1), vectors.grad.reshape(-1, vectors.shape[-1]))
        self._found.clear()

    def _cut(self, module: nn.Module, inputs: tuple[Any, ...], found: Tensor) -> Tensor | None:
        """The same vectors as a beginning of the graph; None leaves them as they are."""
        table = cast(nn.Embedding, module)
        if len(inputs) != 1 or not found.requires_grad or table.weight.grad is None:
            return None
        vectors = found.detach().requires_grad_()
        self._found.append((table, inputs[0], vectors))
        return vectors.clone()  # which the model may change in place


def _add_rows(module: nn.Embedding, ids: Tensor, above: Tensor) -> None:
    """The gradient of a lookup without that of padding."""
    if module.padding_idx is not None:
        above = above.masked_fill((ids == module.padding_idx)[:, None], 0.0)
    cast(Tensor, module.weight.grad).index_add_(0, ids, above.detach())


def _is_large(module: nn.Module) -> bool:
    return (
        type(module) is nn.Embedding
        and module.weight.is_leaf
        and module.weight.numel() >= LARGE
        and module.max_norm is None
        and not (module.scale_grad_by_freq or module.sparse)
    )
