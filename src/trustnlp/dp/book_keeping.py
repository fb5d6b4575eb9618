"""Clipped sums with one backward per physical batch (book-keeping, Bu et al. 2022, arXiv 2210.00038).

Shape legend: B examples of a physical batch.

    attach rules ─> loss(batch).sum().backward() ─> norms (B,) ─> factors min(1, C/norm) ─> weighted sums
                     layers' parameters are constants, inputs and output gradients are kept (`tape`, `layer_rules`)

Fails closed. A model with one layer or one use of a parameter that the rules do not cover, is trained by
`per_unit_clipped_sum` as a whole, and `BookKeeping.fallback` says why:

| what                                                             | when it is noticed                           |
|------------------------------------------------------------------|----------------------------------------------|
| a trained parameter of a layer without a rule                     | before the first step                        |
| a parameter used outside its layer, as in F.linear(x, m.weight)   | every step: autograd then gives it a gradient |
| a layer's input or output that is not one row per example         | every step                                   |
| a layer's input overwritten in place, gradients inside the loss   | every step                                   |
| rows in another order than the examples, and whatever else        | a probe against per-example gradients        |
| units of several examples, a layer in several groups              | before the first step                        |
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
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
from trustnlp.dp.layer_rules import Rule, Sums
from trustnlp.dp.rulebook import rules_for
from trustnlp.dp.tape import Tape, UnsupportedUseError
from trustnlp.models.protocol import Batch, Encoded

_log = logging.getLogger(__name__)


class BookKeeping:
    """A `ClippedSumFunction` with one backward per physical batch; by the slow path where the rules do not suffice.

    Guarantee: that of `per_unit_clipped_sum`, whose sums these are up to rounding.

    Args:
        physical_batch: how many examples go through the model at a time. Sets speed and memory, not the result.

    Attributes:
        fallback: why the last model went the slow path; empty where it did not.

    Raises:
        ArgumentError: `physical_batch` below 1.
    """

    def __init__(self, physical_batch: int = 64) -> None:
        self.physical_batch = checks.at_least("physical_batch", physical_batch, 1)
        self.fallback = ""
        self._situation: tuple[int, ...] = ()
        self._rules: list[tuple[Rule, int]] = []

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
        situation = (id(model), model.training, *map(id, parameters.values()))
        if situation != self._situation:
            self._plan(model, loss, data, parameters, clip)
            self._situation = situation
        if not self.fallback and all(len(unit.rows) == 1 for unit in units):
            try:
                return self._sum(model, loss, self._batches(data, units), parameters, clip)
            except UnsupportedUseError as error:
                self._fall_back(str(error))
        return per_unit_clipped_sum(model, loss, data, units, parameters, clip)

    def _batches(self, data: Encoded, units: Sequence[Unit]) -> Iterator[tuple[Batch, Tensor]]:
        """Physical batches, and the weights of their examples."""
        for start in range(0, len(units), self.physical_batch):
            part = units[start : start + self.physical_batch]
            rows = np.concatenate([unit.rows for unit in part])
            yield data.batch(rows), torch.tensor([unit.weight for unit in part])

    def _plan(self, model: nn.Module, loss: LossFunction, data: Encoded, parameters: Parameters, clip: Clip) -> None:
        self.fallback = ""
        rules, missing = rules_for(model, parameters)
        names = {parameter: name for name, parameter in parameters.items()}
        for rule in rules:
            if len({clip.groups[names[parameter]] for parameter in rule.parameters()}) > 1:
                missing.append("a layer whose parameters are clipped in different groups")
        if missing:
            more = f", and {len(missing) - 3} more" if len(missing) > 3 else ""
            self._fall_back("; ".join(missing[:3]) + more)
            return
        self._rules = [(rule, clip.groups[names[next(iter(rule.parameters()))]]) for rule in rules]

        def fast(batch: Batch) -> ClippedSum:
            return self._sum(model, loss, [(batch, torch.ones(len(batch)))], parameters, clip)

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
        batches: Iterable[tuple[Batch, Tensor]],
        parameters: Parameters,
        clip: Clip,
    ) -> ClippedSum:
        device = next(iter(parameters.values())).device
        sums = {p: torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32)) for p in parameters.values()}
        norms, losses = [torch.zeros(0, len(clip.thresholds))], [torch.zeros(0)]
        with _gradients_set_aside(model):
            for batch, weights in batches:
                tape = Tape(len(batch), device)
                with self._attached(tape):
                    values = _backward(loss, batch.to(device), tape)
                    _refuse_other_uses(parameters)
                    with torch.autocast(device.type, enabled=False):  # a norm rounded down would clip too little
                        norms.append(self._add(sums, clip, weights, values))
                losses.append(values.cpu())
        mean_loss = float(torch.cat(losses).double().mean())  # NaN for an empty draw
        return ClippedSum({name: sums[p] for name, p in parameters.items()}, torch.cat(norms), mean_loss)

    @contextmanager
    def _attached(self, tape: Tape) -> Iterator[None]:
        try:
            for rule, _ in self._rules:
                rule.attach(tape)
            yield
        finally:
            for rule, _ in self._rules:
                rule.detach()

    @torch.no_grad()
    def _add(self, sums: Sums, clip: Clip, weights: Tensor, losses: Tensor) -> Tensor:
        """Adds the clipped gradients to the sums; gives their norms before clipping, (B, K)."""
        reached = [(rule, group) for rule, group in self._rules if rule.collect()]
        squares = next(iter(sums.values())).new_zeros(len(losses), len(clip.thresholds))
        for rule, group in reached:
            squares[:, group] += rule.squared_norms()
        weights = weights.to(squares)[:, None]
        norms = weights.abs() * squares.clamp(min=0).sqrt()
        shown = norms.cpu()
        for value, norm in zip(losses.tolist(), shown.norm(dim=1).tolist(), strict=True):
            refuse_unbounded(value, norm)
        factors = weights * clip.factors(norms)
        for rule, group in reached:
            rule.add_to(sums, factors[:, group])
        return shown


def _backward(loss: LossFunction, batch: Batch, tape: Tape) -> Tensor:
    """(B,) losses, after one backward of their sum."""
    losses = loss(batch)
    if losses.shape != (len(batch),):
        raise UnsupportedUseError(f"the loss has shape {tuple(losses.shape)} in a batch of {len(batch)} examples")
    tape.in_backward = True
    losses.sum().backward()
    return losses.detach()


def _refuse_other_uses(parameters: Parameters) -> None:
    used = [name for name, parameter in parameters.items() if parameter.grad is not None]
    if used:
        raise UnsupportedUseError(f"parameters are used outside their layers: {', '.join(used[:3])}")


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
