"""The rule of the linear-chain CRF: its tables are small enough to write every example's gradient out.

Shape legend: B examples, T positions, S tags.

The gradient of an example's negative log-likelihood by the transitions is how often the model expects each pair of
tags, less how often it occurs (Lafferty et al. 2001); by start and end likewise.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any

import torch
from torch import Tensor, nn

from trustnlp.dp.layer_rules import LayerRule, Sums, joined
from trustnlp.dp.tape import Kept, Tape, Use


class CRFRule(LayerRule):
    """`models.crf.LinearChainCRF` over scores (B, T, S)."""

    def __init__(self, modules: Sequence[nn.Module], trained: Set[nn.Parameter]) -> None:
        super().__init__(modules, trained)
        self._calls: list[tuple[Use, Kept, Kept]] = []
        self._gradients: dict[str, Tensor] = {}

    @staticmethod
    def refusal(module: Any) -> str:
        """None of its settings is beyond this rule."""
        del module
        return ""

    def attach(self, tape: Tape) -> None:
        """See `Rule.attach`."""
        super().attach(tape)
        self._calls.clear()

    def forward(self, scores: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """The module's own losses (B,), watched."""
        with self._constants():
            losses = type(self.module).forward(self.module, scores, tags, lengths)
        use, losses = self._tape.watch(scores, losses[:, None])
        self._calls.append((use, Kept(tags), Kept(lengths)))
        return losses[:, 0]

    def collect(self) -> bool:
        """See `Rule.collect`."""
        found = []
        for use, tags, lengths in self._calls:
            if use.gradient is not None:
                surplus = self.module.surplus(use.value(), tags(), lengths())._asdict()
                found.append({name: use.gradient() * surplus[name].flatten(1) for name in self.trained})
        self._calls.clear()
        self._gradients = {}
        for name in self.trained if found else ():
            self._gradients[name] = joined([call[name][:, None] for call in found], self._tape.units).sum(1)
        return bool(found)

    def squared_norms(self) -> Tensor:
        """See `Rule.squared_norms`."""
        return torch.stack([gradient.square().sum(1) for gradient in self._gradients.values()]).sum(0)

    def add_to(self, sums: Sums, factors: Tensor) -> None:
        """See `Rule.add_to`."""
        for name, gradient in self._gradients.items():
            total = sums[self.trained[name]]
            total.add_((factors.to(gradient.dtype) @ gradient).view_as(total))

    def drop(self) -> None:
        """See `Rule.drop`."""
        super().drop()
        self._gradients = {}
