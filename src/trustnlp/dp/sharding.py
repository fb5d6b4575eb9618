"""The private step where every process holds a part of each parameter (PyTorch's FSDP2, `fully_shard`).

Shape legend: R ranks.

    shards ─ all-gather ─> whole weights ─> a rank's clipped sum ─ reduce-scatter ─> its part of the sum
                                                                       + its part of the same noise ─> its moments

Kept in parts at all times: the optimizer's moments, the noise and the noisy gradient. For the time of the clipped sum
alone every rank holds the whole weights, and sums of its own share of the units as large. So with Adam in float32 and
P parameters a rank needs 8 P + 12 P / R bytes beside activations, where a replica needs 16 P.

The numbers are those of one process up to rounding: the noise of a part is that part of the whole tensor's noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from trustnlp.dp.clipping import Clip, ClippedSum, ClippedSumFunction, LossFunction, Parameters, Unit
from trustnlp.dp.distributed import Distributed, Ranks
from trustnlp.dp.noise import ChunkedNoise, Noise
from trustnlp.errors import GuaranteeError
from trustnlp.models.protocol import Encoded


@dataclass(frozen=True)
class Sharded(Distributed):
    """A `ClippedSumFunction` whose gradients are this rank's parts of the whole sums.

    Guarantee: that of `inner`, whose sums over all units these are, up to the rounding of another order.

    Args:
        inner: how a rank computes its share of the units, on whole weights.
        ranks: who takes part.
    """

    def __call__(
        self,
        model: nn.Module,
        loss: LossFunction,
        data: Encoded,
        units: Sequence[Unit],
        parameters: Parameters,
        clip: Clip,
    ) -> ClippedSum:
        """See `Distributed.__call__`."""
        device = next(iter(parameters.values())).device
        with self.ranks.together(), self.ranks.own_chance(device), gathered(model):
            held = dict(model.named_parameters())
            whole = {name: held[name] for name in parameters}
            own = self.inner(model, loss, data, self.ranks.mine(units), whole, clip)
        norms, mean_loss = self.figures(own, units)
        # Popped one by one, so that each whole sum is freed as soon as its part is there.
        parts = {name: self.ranks.scatter(own.gradients.pop(name), len(local(p))) for name, p in parameters.items()}
        return ClippedSum(parts, norms, mean_loss)


def distribute(inner: ClippedSumFunction, ranks: Ranks, parameters: Parameters) -> ClippedSumFunction:
    """The clipped sum over all ranks, in parts where the parameters are; `inner` itself in a process of its own.

    Raises:
        GuaranteeError: parameters are sharded in a way for which no sum is known here.
    """
    shards = [name for name, parameter in parameters.items() if _is_sharded(parameter)]
    for name in shards:
        _check(name, parameters[name], ranks)
    if not shards:
        return inner if ranks.alone else Distributed(inner, ranks)
    if len(shards) < len(parameters):
        missing = ", ".join(sorted(set(parameters) - set(shards))[:3])
        raise GuaranteeError(f"some parameters are sharded and some are not ({missing})", "call fully_shard(model)")
    return Sharded(inner, ranks)


def local(parameter: Tensor) -> Tensor:
    """What this process holds of a parameter: all of it where it is not sharded."""
    held: Any = parameter.detach()
    return held.to_local() if _is_sharded(held) else held


@dataclass(frozen=True)
class PartNoise:
    """A source of noise that gives parts of tensors those parts of the whole tensors' noise.

    Args:
        whole: where noise comes from, the same on every rank.
        places: name of a tensor -> where this rank's part begins, flat, and how many entries the whole has.
    """

    whole: ChunkedNoise
    places: Mapping[str, tuple[int, int]]

    def release_(
        self,
        sums: Mapping[str, Tensor],
        block: int,
        stds: Mapping[str, float],
        divisor: float,
        parts: Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        """See `ChunkedNoise.release_`."""
        self.whole.release_(sums, block, stds, divisor, {**self.places, **(parts or {})})


def noise_of_parts(noise: ChunkedNoise, parameters: Parameters) -> Noise:
    """The noise for what this rank holds of the parameters: `noise` itself where that is everything."""
    places = {name: _place(parameter) for name, parameter in parameters.items() if _is_sharded(parameter)}
    return PartNoise(noise, places) if places else noise


def as_gradient(part: Tensor, parameter: nn.Parameter) -> Tensor:
    """The noisy sum (this rank's part of it) in the type of its parameter."""
    part = part.to(parameter.dtype)
    if not _is_sharded(parameter):
        return part
    from torch.distributed.tensor import DTensor

    held: Any = parameter
    return DTensor.from_local(
        part, held.device_mesh, held.placements, run_check=False, shape=held.shape, stride=held.stride()
    )


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Inside, every process holds whole weights and passes through the model wait for nobody; begun by all ranks."""
    wrapped: list[Any] = [module for module in model.modules() if _is_wrapped(module)]
    for module in wrapped:
        module.unshard()
        module.set_reshard_after_forward(False, recurse=False)
        module.set_reshard_after_backward(False, recurse=False)
        module.set_requires_gradient_sync(False, recurse=False)
    try:
        yield
    finally:
        for module in wrapped:  # PyTorch's defaults; what was set before cannot be asked for
            module.set_reshard_after_forward(module is not model, recurse=False)
            module.set_reshard_after_backward(True, recurse=False)
            module.set_requires_gradient_sync(True, recurse=False)
            module.reshard()


def _is_wrapped(module: Any) -> bool:
    if not dist.is_available():
        return False
    from torch.distributed.fsdp import FSDPModule

    return isinstance(module, FSDPModule)


def _is_sharded(parameter: Tensor) -> bool:
    """Whether it is a DTensor, asked without importing what the most do not need."""
    return hasattr(parameter, "placements") and hasattr(parameter, "device_mesh")


def _check(name: str, parameter: Any, ranks: Ranks) -> None:
    placement = parameter.placements
    if len(placement) != 1 or not placement[0].is_shard(0) or parameter.device_mesh.size() != ranks.size:
        raise GuaranteeError(
            f"parameter {name!r} is laid out as {placement} on a mesh of {parameter.device_mesh.size()} of "
            f"{ranks.size} processes, for which no clipped sum is known here",
            "shard by fully_shard(model, mesh=init_device_mesh(device, (world_size,))) and by its first dimension",
        )


def _place(parameter: Any) -> tuple[int, int]:
    """Rows are dealt like those of `Tensor.chunk`: ceil(rows / R) to each rank while there are any."""
    rank, size = parameter.device_mesh.get_local_rank(), parameter.device_mesh.size()
    rows = parameter.shape[0]
    first = min(rank * -(-rows // size), rows)
    return first * (parameter.numel() // max(1, rows)), parameter.numel()
