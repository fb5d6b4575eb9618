"""Federated training of low-rank adapters: four answers to what the mean of products B A should become.

    algorithm       devices train   the server's step                                   the mean product
    AveragedLora    A and B         mean(A) and mean(B)                                 is missed; by how much is told
    FrozenLora      B               mean(B), and mean(B) A is mean(B A)                 exact
    MergedLora      A and B         W <- W + s mean(B A), adapters begun anew           exact
    ProjectedLora   A and B         B A <- the product of rank r nearest to mean(B A)   nearest; how near is told

The error is |s mean(B A) - s B A|_F / |s mean(B A)|_F over all adapted layers together, with the server's newest B and
A: 0 is exact, and the best. All other trained parameters follow FedAvg. With `server_rate` other than 1, or weights of
a cohort that do not add up to 1, `mean(B A)` stands for the server's product plus its mean change times the rate.

Where the mean product is needed, the simulation adds up dense matrices (O, I). Devices in the world would send their
factors, of which the server can stack those of a cohort; the sum is the same.

Sources: averaging, and why it is not exact: Sun et al. 2024, arXiv:2403.12313 (FFA-LoRA, of which the frozen A is);
stacking and merging: Wang et al. 2024, arXiv:2409.05976 (FLoRA).

Shape legend: P entries of all trained parameters, r rank, I inputs and O outputs of a layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from trustnlp.errors import ArgumentError, ModelError
from trustnlp.federated.algorithm import CHANGE, Algorithm, Round
from trustnlp.federated.local_training import Vectors, Visit
from trustnlp.federated.low_rank import Factors, adapters, fresh
from trustnlp.randomness import Streams

PRODUCT = "product"
ERROR = "error"
AGGREGATION_ERROR = "aggregation_error"


@dataclass(frozen=True)
class Lora(Algorithm):
    """What the four have in common; made by `of`, which also settles what of the model is trained.

    Args:
        factors: where the adapters stand in the flat vector.
    """

    factors: Factors = field(kw_only=True)

    @classmethod
    def of(cls, model: nn.Module, rounds: int, cohort: int, **more: Any) -> Self:
        """The algorithm for a model with adapters, see `low_rank.adapt`.

        Args:
            model: what of its adapters is trained is set here.
            more: further fields.

        Raises:
            ModelError: no adapters, or such as the algorithm cannot use.
        """
        cls.prepare(model)
        return cls(rounds, cohort, factors=Factors.of(model), **more)

    @staticmethod
    def prepare(model: nn.Module) -> None:
        """Settles what is trained: both factors."""
        for adapter in adapters(model):
            adapter.a.requires_grad_(True)
            adapter.b.requires_grad_(True)

    def state(self, weights: Tensor) -> Vectors:
        """Nothing; refuses another model than that of `factors`.

        Raises:
            ArgumentError: as many parameters are not trained.
        """
        if len(weights) != self.factors.entries:
            rule = f"of the model that is trained, with {len(weights)} entries"
            raise ArgumentError("factors", rule, self.factors.entries, "make the algorithm by its method `of`")
        return {}


@dataclass(frozen=True)
class AveragedLora(Lora):
    """FedAvg of both factors, which is not FedAvg of their product."""

    sends: ClassVar[tuple[str, ...]] = (CHANGE, PRODUCT)

    def state(self, weights: Tensor) -> Vectors:
        """The error of the newest step."""
        return super().state(weights) | {ERROR: weights.new_zeros(1)}

    def finish(self, visit: Visit) -> Vectors:
        """The change of the weights and that of the products."""
        moved = self.factors.products(visit.parameters.values) - self.factors.products(visit.start)
        return {CHANGE: visit.change, PRODUCT: moved}

    def update(self, weights: Tensor, mean: Vectors, state: Vectors, about: Round) -> None:
        """FedAvg's step, and how far the product then is from the mean product."""
        wanted = self.factors.products(weights).add_(mean[PRODUCT], alpha=self.server_rate)
        super().update(weights, mean, state, about)
        self.settle(weights, wanted)
        state[ERROR].fill_(relative_error(wanted, self.factors.products(weights)))

    def settle(self, weights: Tensor, wanted: Tensor) -> None:
        """What is done for the products to be `wanted`, after the factors were averaged; here, nothing."""

    def figures(self, state: Vectors) -> Mapping[str, float]:
        """The error, 0 where the product is the mean product."""
        return {AGGREGATION_ERROR: float(state[ERROR])}


@dataclass(frozen=True)
class ProjectedLora(AveragedLora):
    """Both factors from the singular value decomposition of the mean product: B = U S / s and A = V^T, of rank r.

    By Eckart and Young no product of rank r is nearer. A has orthonormal rows, also where a singular value is 0, so
    that no direction is lost to training.
    """

    def settle(self, weights: Tensor, wanted: Tensor) -> None:
        """The factors, from the largest singular values."""
        for place, matrix in self.factors.matrices(wanted):
            rank, *_ = place.shape
            left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
            a, b = place.views(weights)
            a.copy_(right[:rank])
            b.copy_(left[:, :rank] * values[:rank] / place.scale)


@dataclass(frozen=True)
class FrozenLora(Lora):
    """FedAvg of B, with one A for all, which stays as it was drawn."""

    @staticmethod
    def prepare(model: nn.Module) -> None:
        """Settles what is trained: B."""
        for adapter in adapters(model):
            adapter.a.requires_grad_(False)
            adapter.b.requires_grad_(True)


@dataclass(frozen=True)
class MergedLora(Lora):
    """The mean product joins the layer's own weight, and new adapters begin: A drawn again, B zero.

    The weights W stand in the flat vector as well, since the server changes them; on devices they are frozen, and a
    device tells the change of its product as that of W. So a bound on the change is one on what it does to the model.

    Args:
        seed: of the stream `adapters`, which draws A in each round.
    """

    seed: int = 0

    @staticmethod
    def prepare(model: nn.Module) -> None:
        """Settles what the server changes: both factors, and the weights of the layers.

        Raises:
            ModelError: a layer whose weight is not (O, I).
        """
        Lora.prepare(model)
        for adapter in adapters(model):
            if not isinstance(adapter.base, nn.Linear):
                reason = f"{adapter.name} adapts a {type(adapter.base).__name__}, into which no product can be merged"
                raise ModelError(reason, "adapt layers of nn.Linear, or use another of the algorithms")
            adapter.base.weight.requires_grad_(True)

    def begin(self, visit: Visit) -> None:
        """Spares the gradients of the layers' own weights."""
        _train_bases(visit.model, False)

    def finish(self, visit: Visit) -> Vectors:
        """The change of the products in place of that of their factors."""
        _train_bases(visit.model, True)
        change = visit.change
        for place in self.factors.places:
            moved = place.product(visit.parameters.values) - place.product(visit.start)
            place.base_view(change).copy_(moved)
            for factor in place.views(change):
                factor.zero_()
        return {CHANGE: change}

    def update(self, weights: Tensor, mean: Vectors, state: Vectors, about: Round) -> None:
        """FedAvg's step, after which the products stand in W and the adapters begin anew."""
        super().update(weights, mean, state, about)
        for number, place in enumerate(self.factors.places):
            place.base_view(weights).add_(place.product(weights))  # the server's own, 0 once adapters have begun anew
            rank, inputs, _ = place.shape
            a, b = place.views(weights)
            a.copy_(fresh(rank, inputs, Streams(self.seed).torch("adapters", about.number, number)))
            b.zero_()


def relative_error(wanted: Tensor, found: Tensor) -> float:
    """|wanted - found|_2 / |wanted|_2, in [0, inf], lower is better; 0 where both are the same."""
    distance, size = (float(torch.linalg.vector_norm(each.double())) for each in (wanted - found, wanted))
    return 0.0 if not distance else distance / size if size else math.inf


def _train_bases(model: nn.Module, trained: bool) -> None:
    for adapter in adapters(model):
        adapter.base.weight.requires_grad_(trained)
