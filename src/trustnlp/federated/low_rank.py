"""Low-rank adapters of linear layers, and where their factors stand in the flat vector of trained parameters.

    y = W x + b + s B A x          W (O, I) and b as they were; A (r, I) drawn, B (O, r) zero at first; s = alpha / r

Source: Hu et al. 2021, arXiv:2106.09685, section 4.1. Models that PEFT has adapted are understood as well.

Shape legend: P entries of all trained parameters, r rank, I inputs and O outputs of a layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from trustnlp import checks
from trustnlp.errors import ArgumentError, ModelError
from trustnlp.randomness import Streams


class LowRank(nn.Module):
    """A linear layer and its adapter.

    Args:
        base: the layer, whose weight and bias are frozen.
        rank: r, at most the layer's inputs and outputs.
        scale: s.
        generator: draws A.
    """

    def __init__(self, base: nn.Linear, rank: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scale = scale
        weight = base.weight
        self.a = nn.Parameter(fresh(rank, base.in_features, generator).to(weight))
        self.b = nn.Parameter(weight.new_zeros(base.out_features, rank))

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., O) from (..., I)."""
        adapted: Tensor = self.base(inputs) + (inputs @ self.a.T) @ self.b.T * self.scale
        return adapted


def fresh(rank: int, inputs: int, generator: torch.Generator) -> Tensor:
    """(r, I) the first A, uniform within 1 / sqrt(I), as PEFT draws it."""
    return (2 * torch.rand(rank, inputs, generator=generator, dtype=torch.float64) - 1) / math.sqrt(inputs)


def adapt(
    model: nn.Module,
    rank: int,
    *,
    layers: Sequence[str] = ("*",),
    trained: Sequence[str] = (),
    alpha: float | None = None,
    streams: Streams,
) -> tuple[str, ...]:
    """Freezes `model`, puts an adapter around its linear layers, and returns their names; it answers as before.

    Args:
        rank: r >= 1.
        layers: patterns of names, such as `*.query`; of what they match, linear layers are adapted.
        trained: patterns of parameters that are trained as they are, such as `label_head.*`; their layers get no
            adapter.
        alpha: s = alpha / rank; s is 1 if None.
        streams: A is drawn from the stream `adapters`.

    Raises:
        ArgumentError: no layer of that name, or one with fewer inputs or outputs than the rank.
    """
    checks.at_least("rank", rank, 1)
    scale = 1.0 if alpha is None else checks.positive("alpha", alpha) / rank
    chosen = {
        name: module
        for name, module in model.named_modules()
        if type(module) is nn.Linear and _matches(name, layers) and not _matches(f"{name}.weight", trained)
    }
    if not chosen:
        raise ArgumentError("layers", "patterns that match a linear layer", tuple(layers))
    for name, module in chosen.items():
        _check_rank(name, rank, module.in_features, module.out_features)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_matches(name, trained))
    for number, (name, module) in enumerate(chosen.items()):
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, LowRank(module, rank, scale, streams.torch("adapters", number)))
    return tuple(chosen)


def merge(model: nn.Module) -> None:
    """Takes out the adapters that `adapt` has put in: W + s B A takes their place, and all is trainable again.

    The model answers as before, up to rounding, and has the parameters that it had before it was adapted.
    """
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, LowRank)]
    for name, module in found:
        with torch.no_grad():
            module.base.weight.add_(module.b @ module.a, alpha=module.scale)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, module.base)
    if found:
        model.requires_grad_(True)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _check_rank(name: str, rank: int, inputs: int, outputs: int) -> None:
    if rank > min(inputs, outputs):
        raise ArgumentError("rank", f"at most {min(inputs, outputs)}, the least dimension of {name}", rank)


class Adapter(NamedTuple):
    """The parts of one adapter, in a model that was adapted here or by PEFT."""

    name: str
    a: nn.Parameter
    b: nn.Parameter
    scale: float
    base: nn.Module


def adapters(model: nn.Module) -> Iterator[Adapter]:
    """All adapters of `model`.

    Raises:
        ModelError: several adapters of one layer, or one that is more than a product of two matrices.
    """
    for name, module in model.named_modules():
        if isinstance(module, LowRank):
            yield Adapter(name, module.a, module.b, module.scale, module.base)
        elif isinstance(getattr(module, "lora_A", None), nn.ModuleDict):
            yield _of_peft(name, module)


def _of_peft(name: str, module: Any) -> Adapter:
    if len(module.lora_A) == 1 and not len(module.lora_magnitude_vector):
        (adapter,) = module.lora_A
        a, b = (factors[adapter].weight for factors in (module.lora_A, module.lora_B))
        if a.dim() == b.dim() == 2:
            return Adapter(name, a, b, float(module.scaling[adapter]), module.base_layer)
    raise ModelError(f"{name} has several adapters, or one that is not a product B A", "use one plain LoRA adapter")


@dataclass(frozen=True)
class Place:
    """Where the factors of one adapter stand in the flat vector.

    Args:
        name: of the layer.
        shape: (r, I, O).
        scale: s.
        a, b, base: where A, B and W begin; None of what is not trained.
    """

    name: str
    shape: tuple[int, int, int]
    scale: float
    a: int | None
    b: int
    base: int | None

    def views(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """A (r, I) and B (O, r) within `vector` (P,)."""
        rank, inputs, outputs = self.shape
        if self.a is None:
            raise ModelError(f"A of {self.name} is frozen, and so in no vector of trained parameters")
        return _view(vector, self.a, rank, inputs), _view(vector, self.b, outputs, rank)

    def base_view(self, vector: Tensor) -> Tensor:
        """W (O, I) within `vector` (P,)."""
        _, inputs, outputs = self.shape
        if self.base is None:
            raise ModelError(f"the weight of {self.name} is frozen, and so in no vector of trained parameters")
        return _view(vector, self.base, outputs, inputs)

    def product(self, vector: Tensor) -> Tensor:
        """(O, I) s B A."""
        a, b = self.views(vector)
        return (b @ a) * self.scale


@dataclass(frozen=True)
class Factors:
    """All adapters of a model in its flat vector of `entries` trained parameters."""

    entries: int
    places: tuple[Place, ...]

    @classmethod
    def of(cls, model: nn.Module) -> Factors:
        """Those of `model`, in the order of `FlatParameters`.

        Raises:
            ModelError: no adapter, or one that is not understood.
            ArgumentError: a rank above a layer's inputs or outputs.
        """
        begins, entries = {}, 0
        for parameter in model.parameters():
            if parameter.requires_grad:
                begins[parameter] = entries
                entries += parameter.numel()
        places = tuple(_place(adapter, begins) for adapter in adapters(model))
        if not places:
            raise ModelError("the model has no adapters", "call low_rank.adapt first, or adapt it by PEFT")
        return cls(entries, places)

    def products(self, vector: Tensor) -> Tensor:
        """(sum of O I,) s B A of all layers, one after another, from `vector` (P,)."""
        return torch.cat([place.product(vector).flatten() for place in self.places])

    def matrices(self, products: Tensor) -> Iterator[tuple[Place, Tensor]]:
        """Each place with its matrix (O, I) within what `products` gives."""
        start = 0
        for place in self.places:
            _, inputs, outputs = place.shape
            yield place, _view(products, start, outputs, inputs)
            start += outputs * inputs


def _place(adapter: Adapter, begins: dict[nn.Parameter, int]) -> Place:
    (rank, inputs), outputs = adapter.a.shape, len(adapter.b)
    _check_rank(adapter.name, rank, inputs, outputs)
    base: Any = adapter.base.weight
    return Place(
        adapter.name,
        (rank, inputs, outputs),
        adapter.scale,
        begins.get(adapter.a),
        begins[adapter.b],
        begins.get(base),
    )


def _view(vector: Tensor, start: int, rows: int, columns: int) -> Tensor:
    return vector[start : start + rows * columns].view(rows, columns)
