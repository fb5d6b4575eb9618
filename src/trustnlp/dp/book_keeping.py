"""Clipped sums with one backward per physical batch (book-keeping, Bu et al. 2022, arXiv 2210.00038).

Shape legend: B examples of a physical batch, U units they form, K groups of layers that are clipped together.

    attach rules ─> loss(batch).sum().backward() ─> norms (U,) ─> factors min(1, C/norm) ─> weighted sums
                     layers' parameters are constants, inputs and output gradients are kept (`tape`, `layer_rules`)

A group is clipped as soon as the gradients of all its layers have come by, and what was kept for it is dropped at
once. Under flat clipping that is the end of backward; under layer-wise clipping every layer is clipped inside backward
and nothing is stored for later (He et al., arXiv 2212.01539).

Fails closed. A model with one layer or one use of a parameter that the rules do not cover, is trained by
`per_unit_clipped_sum` as a whole, and `BookKeeping.fallback` says why:

| what                                                             | when it is noticed                           |
|------------------------------------------------------------------|----------------------------------------------|
| a trained parameter of a layer without a rule                     | before the first step                        |
| a parameter used outside its layer, as in F.linear(x, m.weight)   | every step: autograd then gives it a gradient |
| a layer's input or output that is not one row per example         | every step                                   |
| a layer's input overwritten in place, gradients inside the loss   | every step                                   |
| rows in another order than the examples, and whatever else        | a probe against per-example gradients        |
| a layer in several groups, or compiled by torch.compile           | before the first step                        |

A unit with more examples than a physical batch goes that way alone.

Gradient checkpointing without reentrance gives the same numbers; it saves what lies between layers, not their inputs,
which are kept here. With reentrance, PyTorch itself refuses the gradients that the probe asks for.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from trustnlp import checks
from trustnlp.dp.agreement import disagreement
from trustnlp.dp.clipping import (
    Clip,
    ClippedSum,
    LossFunction,
    Parameters,
    Unit,
    per_unit_clipped_sum,
    refuse_unbounded,
)
from trustnlp.dp.ghost_norms import Choose
from trustnlp.dp.layer_rules import Rule, Sums
from trustnlp.dp.rulebook import rules_for
from trustnlp.dp.tape import Shared, Tape, UnsupportedUseError
from trustnlp.dp.timing_probe import DEVICE_PROBE
from trustnlp.dp.unit_rows import UnitRows, packed
from trustnlp.models.protocol import Batch, Encoded

_log = logging.getLogger(__name__)


class BookKeeping:
    """A `ClippedSumFunction` with one backward per physical batch; by the slow path where the rules do not suffice.

    Guarantee: that of `per_unit_clipped_sum`, whose sums these are up to rounding.

    Args:
        physical_batch: how many examples go through the model at a time. Sets speed and memory, not the result.
        choose: which form a layer's norms take. By default, multiplications are counted on CPUs, so that one seed gives
            the same bits in every run, and `timing_probe.TimingProbe` measures elsewhere: rounding may then differ
            from process to process, as it does anyway where a device adds in no fixed order.

    Attributes:
        fallback: why the last model went the slow path; empty where it did not.

    Raises:
        ArgumentError: `physical_batch` below 1.
    """

    def __init__(self, physical_batch: int = 64, choose: Choose | None = None) -> None:
        self.physical_batch = checks.at_least("physical_batch", physical_batch, 1)
        self.fallback = ""
        self._choose = choose
        self._situation: tuple[int, ...] = ()
        self._groups: list[list[Rule]] = []

    def __call__(
        self,
        model: nn.Module,
        loss: LossFunction,
        data: Encoded,
        units: Sequence[Unit],
        parameters: Parameters,
        clip: Clip,
    ) -> ClippedSum:
        """The clipped sum, see `per_unit_clipped_sum`; dropout draws one mask for a physical batch.

        Raises:
            GuaranteeError: a loss or a gradient that is not finite.
        """
        situation = (id(model), model.training, *map(id, parameters.values()), *clip.groups.values())
        if situation != self._situation:
            self._plan(model, loss, data, parameters, clip)
            self._situation = situation

        def slowly(some: Sequence[Unit]) -> ClippedSum:
            return per_unit_clipped_sum(model, loss, data, some, parameters, clip, self.physical_batch)

        if not self.fallback:
            batches, large = packed(units, self.physical_batch)
            try:
                found = self._sum(model, loss, ((data.batch(part.rows), part) for part in batches), parameters, clip)
            except UnsupportedUseError as error:
                self._fall_back(str(error))
            else:
                parts = [([number for part in batches for number in part.numbers], found)]
                if large:
                    parts.append((large, slowly([units[number] for number in large])))
                return _together(units, parts)
        return slowly(units)

    def _plan(self, model: nn.Module, loss: LossFunction, data: Encoded, parameters: Parameters, clip: Clip) -> None:
        self.fallback = ""
        rules, missing = rules_for(model, parameters)
        if _compiled(model, parameters):
            missing.append("compiled by torch.compile, which sees neither inputs nor gradients of single layers")
        names = {parameter: name for name, parameter in parameters.items()}
        for rule in rules:
            if len({clip.groups[names[parameter]] for parameter in rule.parameters()}) > 1:
                missing.append("a layer whose parameters are clipped in different groups")
        if missing:
            more = f", and {len(missing) - 3} more" if len(missing) > 3 else ""
            self._fall_back("; ".join(missing[:3]) + more)
            return
        self._groups = [[] for _ in clip.thresholds]
        for rule in rules:
            self._groups[clip.groups[names[next(iter(rule.parameters()))]]].append(rule)

        def fast(batch: Batch) -> ClippedSum:
            return self._sum(model, loss, [(batch, UnitRows.single(len(batch)))], parameters, clip)

        reason = disagreement(fast, model, loss, data, parameters, clip)
        if reason:
            self._fall_back(reason)

    def _fall_back(self, reason: str) -> None:
        self.fallback = reason
        _log.warning("clipping by one backward per example, which is slow: %s", reason)

    def _sum(
        self,
        model: nn.Module,
        loss: LossFunction,
        batches: Iterable[tuple[Batch, UnitRows]],
        parameters: Parameters,
        clip: Clip,
    ) -> ClippedSum:
        device = next(iter(parameters.values())).device
        sums = {p: torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32)) for p in parameters.values()}
        choose = self._choose if self._choose or device.type == "cpu" else DEVICE_PROBE
        norms, losses = [torch.zeros(0, len(clip.thresholds))], [torch.zeros(0)]
        with _gradients_set_aside(model):
            for batch, units in batches:
                attempt = _Pass(self._groups, sums, clip, units, device, choose)
                found = attempt(loss, batch.to(device), parameters)
                norms.append(found[0])
                losses.append(found[1])
        mean_loss = float(torch.cat(losses).double().mean())  # NaN for an empty draw
        return ClippedSum({name: sums[p] for name, p in parameters.items()}, torch.cat(norms), mean_loss)


class _Pass:
    """One physical batch: forward, backward, and the clipping of each group once its gradients are there."""

    def __init__(
        self,
        groups: Sequence[Sequence[Rule]],
        sums: Sums,
        clip: Clip,
        units: UnitRows,
        device: torch.device,
        choose: Choose | None,
    ) -> None:
        dtype = next(iter(sums.values())).dtype
        self._groups, self._sums, self._clip = groups, sums, clip
        self._device = device
        self._weights = units.weights.to(device, dtype)
        self._thresholds = clip.thresholds.to(device, dtype)
        self._norms = torch.zeros(len(self._weights), len(groups), device=device, dtype=dtype)
        self._waiting = [len(rules) for rules in groups]
        shared: Shared = WeakValueDictionary()
        self._tapes = {
            rule: Tape(len(units.rows), device, units, shared, partial(self._finished, group), choose)
            for group, rules in enumerate(groups)
            for rule in rules
        }

    def __call__(self, loss: LossFunction, batch: Batch, parameters: Parameters) -> tuple[Tensor, Tensor]:
        """(U, K) norms and (B,) losses, after the clipped gradients were added to the sums."""
        try:
            for rule, tape in self._tapes.items():
                rule.attach(tape)
            losses = self._backward(loss, batch)
            _refuse_other_uses(parameters)
            for group, waiting in enumerate(self._waiting):
                if waiting:  # for layers that the loss does not reach
                    self._clip_group(group)
        finally:
            for rule, tape in self._tapes.items():
                rule.detach()
                tape.close()
        norms, values = self._norms.cpu(), losses.cpu()
        refuse_unbounded(float(values.abs().max()), float(norms.max()))  # a NaN is the maximum
        return norms, values

    def _backward(self, loss: LossFunction, batch: Batch) -> Tensor:
        """(B,) losses, after one backward of their sum."""
        losses = loss(batch)
        if losses.shape != (len(batch),):
            raise UnsupportedUseError(f"the loss has shape {tuple(losses.shape)} in a batch of {len(batch)} examples")
        for tape in self._tapes.values():
            tape.in_backward = True
        losses.sum().backward()
        return losses.detach()

    def _finished(self, group: int) -> None:
        """One more layer of the group has its gradients."""
        self._waiting[group] -= 1
        if not self._waiting[group]:
            self._clip_group(group)

    def _clip_group(self, group: int) -> None:
        """Adds the group's clipped gradients to the sums, and drops what was kept for them."""
        # A norm rounded down would clip too little, so autocast is off.
        with torch.no_grad(), torch.autocast(self._device.type, enabled=False):
            reached = [rule for rule in self._groups[group] if rule.collect()]
            if reached:
                squares = torch.stack([rule.squared_norms() for rule in reached]).sum(0)
                norms = self._weights.abs() * squares.clamp(min=0).sqrt()
                self._norms[:, group] = norms
                factors = self._clip.clipping.factors(norms[:, None], self._thresholds[group : group + 1])[:, 0]
                for rule in reached:
                    rule.add_to(self._sums, self._weights * factors)
                    rule.drop()
        for rule in self._groups[group]:
            self._tapes[rule].close()


def _together(units: Sequence[Unit], parts: Sequence[tuple[list[int], ClippedSum]]) -> ClippedSum:
    """One clipped sum of several, each of the units with these numbers, and norms in the order of `units`."""
    first = parts[0][1]
    norms = first.norms.new_zeros(len(units), first.norms.shape[1])
    losses, count = 0.0, 0
    for numbers, part in parts:
        norms[numbers] = part.norms.to(norms)
        rows = sum(len(units[number].rows) for number in numbers)
        losses += part.mean_loss * rows if rows else 0.0
        count += rows
        if part is not first:
            for name, total in first.gradients.items():
                total.add_(part.gradients[name])
    return ClippedSum(first.gradients, norms, losses / count if count else math.nan)


def _refuse_other_uses(parameters: Parameters) -> None:
    used = [name for name, parameter in parameters.items() if parameter.grad is not None]
    if used:
        raise UnsupportedUseError(f"parameters are used outside their layers: {', '.join(used[:3])}")


def _compiled(model: nn.Module, parameters: Parameters) -> bool:
    """Whether torch.compile has taken hold of a module with trained parameters."""
    trained = set(parameters.values())
    return any(
        (module._compiled_call_impl is not None or hasattr(module, "_orig_mod"))
        and not trained.isdisjoint(module.parameters())
        for module in model.modules()
    )


@contextmanager
def _gradients_set_aside(model: nn.Module) -> Iterator[None]:
    """Inside, no parameter has a gradient at first; outside, each has what it had."""
    held = [(parameter, parameter.grad) for parameter in model.parameters()]
    try:
        for parameter, _ in held:
            parameter.grad = None
        yield
    finally:
        for parameter, gradient in held:
            parameter.grad = gradient
