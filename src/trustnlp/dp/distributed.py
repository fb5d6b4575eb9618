"""One private step on several processes, as torchrun starts them: each sums a share of the units, all move alike.

    every rank:  the same draw ─> its share of the units ─> clipped sum ─┐
                                                                         ├─> sum over ranks ─> + the same noise ─> step
    rank 0:      ledger.spend() ─> all go on ────────────────────────────┘

Guarantee: that of one process, under the same plan. The draw, the noise and the constant that divides do not depend on
the number of ranks, so the noise is added once to the whole sum, and every rank holds the same model. Sums of ranks
are not noisy: whoever can read what goes between the processes sees what no guarantee covers.

Fails closed. Once torch.distributed is initialised, every private step belongs to all ranks:

| what                                                   | what happens                                           |
|--------------------------------------------------------|--------------------------------------------------------|
| torchrun's processes were not joined                   | GuaranteeError: each would release a model             |
| ranks differ in plan, seed, data, weights or optimizer | GuaranteeError on all of them, before anything is spent |
| one rank raises                                        | GuaranteeError on all others, at the next meeting      |
| one rank ends, or keeps the others waiting             | RunError, at the latest after the group's timeout      |
| rank 0 cannot write the ledger                         | no rank goes on                                        |

Every wait is limited by the timeout that was given to `init_process_group`.
"""

from __future__ import annotations

import hashlib
import math
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trustnlp.dp.clipping import Clip, ClippedSum, ClippedSumFunction, LossFunction, Parameters, Unit
from trustnlp.dp.ledger import Ledger
from trustnlp.errors import GuaranteeError, RunError
from trustnlp.models.protocol import Encoded
from trustnlp.randomness import Streams

if TYPE_CHECKING:
    from trustnlp.dp.plan import PrivacyPlan

T = TypeVar("T")
_COMPARED = 64  # examples


class UnreachableRankError(RunError):
    """Another process has ended, or has not answered in time."""


@dataclass(frozen=True)
class Ranks:
    """The processes that take a private step together, seen from one of them.

    Args:
        rank: of this process, 0 to size - 1.
        size: how many processes there are.
        device: of small messages, one that the process group's backend can send from.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009  (immutable)

    @classmethod
    def of_process(cls, device: torch.device) -> Ranks:
        """All ranks of the default process group; this process alone where there is none.

        Args:
            device: of the model.

        Raises:
            GuaranteeError: torchrun has started several processes that were not joined.
        """
        if not (dist.is_available() and dist.is_initialized()):
            _refuse_strangers()
            return cls()
        has_cpu = "cpu" in dist.get_backend_config() and dist.get_backend() != "nccl"
        return cls(dist.get_rank(), dist.get_world_size(), torch.device("cpu") if has_cpu else device)

    @property
    def alone(self) -> bool:
        """Whether there is nobody else."""
        return self.size == 1

    def mine(self, units: Sequence[T]) -> Sequence[T]:
        """This rank's share, which differs from another's by at most one; every unit is in exactly one share."""
        return units[self.rank :: self.size]

    @contextmanager
    def own_chance(self, device: torch.device) -> Iterator[None]:
        """A block in which PyTorch's global generators, of the CPU and of `device`, are this rank's own.

        Dropout must fall on every example independently. Were the generators equal on all ranks, one mask would fall
        on an example of each, and which ones would depend on who else was drawn.
        """
        common = int(torch.randint(2**62, ()))
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(Streams(common).key("rank", self.rank))
            yield

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block that all ranks leave together, or none does: it raises on every rank where it has raised on one.

        Raises:
            GuaranteeError: on the ranks where the block went well, if it has raised elsewhere.
            UnreachableRankError: a rank has ended, or does not come.
        """
        try:
            yield
        except UnreachableRankError:
            raise
        except Exception:
            with suppress(UnreachableRankError):
                self._gather(1)
            raise
        failed = [rank for rank, value in enumerate(self._gather(0)) if value]
        if failed:
            raise GuaranteeError(
                f"rank {failed[0]} has failed, and the others must not go on without it",
                "see its error; the ledger tells where to resume",
            )

    def agree(self, facts: Mapping[str, tuple[str, str]]) -> None:
        """Checks that all ranks say the same; what they say is compared by its hash.

        Args:
            facts: name -> (what this rank says, how to mend a difference).

        Raises:
            GuaranteeError: on every rank, if two ranks differ.
        """
        for name, (fact, mend) in facts.items():
            keys = self._gather(int.from_bytes(hashlib.sha256(fact.encode()).digest()[:7], "little"))
            others = [rank for rank, key in enumerate(keys) if key != keys[0]]
            if others:
                raise GuaranteeError(f"ranks 0 and {others[0]} differ in their {name}", mend)

    def ledger(self, own: Ledger) -> Ledger:
        """The ledger that this rank spends from: its own on rank 0, a follower in memory on the others.

        Raises:
            GuaranteeError: another rank's ledger has steps that rank 0's has not.
        """
        counts = self._gather(own.spent)
        if max(counts) > counts[0]:
            raise GuaranteeError(
                f"rank {counts.index(max(counts))} has a ledger of {max(counts)} steps, rank 0 one of {counts[0]}",
                "give rank 0 the ledger of this run: it alone writes it",
            )
        if self.rank == 0:
            return own
        return Ledger(own.plan, [own.plan.event(step) for step in range(counts[0])])

    def spend(self, ledger: Ledger) -> int:
        """`Ledger.spend` on rank 0; the others go on, in memory, only once its line is on the disk."""
        with self.together():
            block = ledger.spend() if self.rank == 0 else ledger.spent
        if self.rank:
            ledger.spend()
        return block

    def secret(self, length: int) -> bytes:
        """Secret bytes of the operating system, drawn on rank 0 and told to all, as open as the process group is."""
        drawn = torch.frombuffer(bytearray(secrets.token_bytes(length)), dtype=torch.uint8).to(self.device)
        self._call(lambda: dist.broadcast(drawn, 0))
        return bytes(drawn.tolist())

    def add(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The sums over all ranks, bit for bit the same on every rank; may overwrite what it is given."""
        totals = {name: tensor.contiguous() for name, tensor in tensors.items()}

        def all_reduce() -> None:
            for work in [dist.all_reduce(tensor, async_op=True) for tensor in totals.values()]:
                work.wait()

        self._call(all_reduce)
        return totals

    def scatter(self, tensor: Tensor, rows: int) -> Tensor:
        """This rank's `rows` first-dimension entries of the sum over all ranks, of which all but the last are alike."""
        if self.alone:
            return tensor
        share = -(-len(tensor) // self.size)
        padded = tensor.new_zeros(share * self.size, *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        part = tensor.new_empty(share, *tensor.shape[1:])
        reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor  # its older name
        self._call(lambda: reduce_scatter(part, padded))
        return part[:rows].clone()

    def _gather(self, value: int) -> list[int]:
        """Every rank's value, by rank."""
        if self.alone:
            return [value]
        values = torch.zeros(self.size, dtype=torch.int64, device=self.device)
        values[self.rank] = value
        self._call(lambda: dist.all_reduce(values))
        return values.tolist()

    def _call(self, collective: Callable[[], Any]) -> None:
        if self.alone:
            return
        try:
            collective()
        except RuntimeError as error:  # DistBackendError and DistNetworkError are
            raise UnreachableRankError(
                f"rank {self.rank} has lost another one, which has ended or does not answer ({error})",
                "see the others' errors, and resume all ranks from the ledger",
            ) from error


@dataclass(frozen=True)
class Distributed:
    """A `ClippedSumFunction` of which every rank does its share of the units; all get the whole sum.

    Guarantee: that of `inner`, whose sums over all units these are, up to the rounding of another order.

    Args:
        inner: how a rank computes its share.
        ranks: who takes part.
    """

    inner: ClippedSumFunction
    ranks: Ranks

    def __call__(
        self,
        model: nn.Module,
        loss: LossFunction,
        data: Encoded,
        units: Sequence[Unit],
        parameters: Parameters,
        clip: Clip,
    ) -> ClippedSum:
        """The clipped sum of all ranks' units; a share may be empty.

        Raises:
            GuaranteeError: a loss or a gradient that is not finite, on any rank.
        """
        device = next(iter(parameters.values())).device
        with self.ranks.together(), self.ranks.own_chance(device):
            own = self.inner(model, loss, data, self.ranks.mine(units), parameters, clip)
        norms, mean_loss = self.figures(own, units)
        return ClippedSum(self.ranks.add(own.gradients), norms, mean_loss)

    def figures(self, own: ClippedSum, units: Sequence[Unit]) -> tuple[Tensor, float]:
        """(U, K) norms in the order of `units`, and the mean loss over all their examples."""
        ranks, groups = self.ranks, own.norms.shape[1]
        norms = torch.zeros(len(units), groups, dtype=torch.float64)
        norms[ranks.rank :: ranks.size] = own.norms.double().cpu()
        count = sum(len(unit.rows) for unit in ranks.mine(units))
        loss = torch.tensor([own.mean_loss * count if count else 0.0], dtype=torch.float64)
        shared = ranks.add({"norms": norms.to(ranks.device), "loss": loss.to(ranks.device)})
        total = sum(len(unit.rows) for unit in units)
        return shared["norms"].cpu(), float(shared["loss"]) / total if total else math.nan


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside `DistributedDataParallel`, whose own reduction is turned off: it would add unclipped gradients.

    Calling the wrapper, as a loss may do, then only calls the model.
    """
    if not isinstance(model, DistributedDataParallel):
        return model
    model.require_backward_grad_sync = False
    model.require_forward_param_sync = False
    inner: nn.Module = model.module
    return inner


def beginning(
    plan: PrivacyPlan,
    streams: Streams,
    data: Encoded,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    thresholds: Tensor,
) -> dict[str, tuple[str, str]]:
    """What ranks must agree on when a run begins or goes on, and how to mend a difference; see `Ranks.agree`."""
    groups = [sorted(group.items()) for group in optimizer.state_dict()["param_groups"]]
    return {
        "plan": (plan.to_json(), "make the same plan on every rank"),
        "seed": (str(streams.seed), "make Streams of one seed on every rank"),
        "data": (data_key(data), "give every rank all examples in one order: the step shares them out"),
        "weights": (weights_key(model), "load one checkpoint on every rank, or make the model from one seed"),
        "optimizer": (f"{type(optimizer)} {groups}", "make the same optimizer on every rank"),
        "thresholds": (str(thresholds.tolist()), "restore one checkpoint on every rank"),
    }


def data_key(data: Encoded) -> str:
    """SHA-256 of a few examples, spread evenly: the same on all ranks unless each was given data of its own."""
    key = hashlib.sha256()
    for index in range(0, len(data), -(-len(data) // _COMPARED)):
        batch = data.batch([index])
        for name, tensor in (*batch.inputs.items(), *batch.targets.items()):
            key.update(f"{index} {name} {tensor.tolist()}".encode())
    return key.hexdigest()


def weights_key(model: nn.Module) -> str:
    """SHA-256 of names, shapes and values of parameters and buffers; of no values where they are sharded."""
    key = hashlib.sha256()
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        key.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        if not hasattr(tensor, "placements"):
            key.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return key.hexdigest()


def _refuse_strangers() -> None:
    size = os.environ.get("WORLD_SIZE", "1")
    if dist.is_available() and dist.is_torchelastic_launched() and size != "1":
        raise GuaranteeError(
            f"torchrun has started {size} processes, but each would release a noisy model of its own",
            "join them by torch.distributed.init_process_group() before making the step",
        )
