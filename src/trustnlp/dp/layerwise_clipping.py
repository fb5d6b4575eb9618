"""Layer-wise clipping: one threshold a layer, so that backward can clip as it goes (He et al., arXiv 2212.01539).

Shape legend: K layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from trustnlp import checks
from trustnlp.dp.adaptive_thresholds import Quantile, checked
from trustnlp.dp.clipping import Clipping, Parameters


@dataclass(frozen=True)
class LayerwiseClipping(Clipping):
    """A unit's gradient g_k in layer k times min(1, C_k / |g_k|), where C_k = C / sqrt(K) to begin with.

    Sensitivity: C_k in layer k, so sqrt(sum C_k^2) over all, which is C to begin with, for adding or removing one unit.
    The noise of layer k is sqrt(K) C_k sigma, which spends the same on every layer.

    Args:
        clip_norm: C > 0.
        adapt: lets every C_k follow a quantile of its layer's norms; without, layers with long gradients lose most.

    Raises:
        ArgumentError: `clip_norm` is not a number > 0, or `adapt` is no Quantile.
    """

    kind: ClassVar[str] = "layerwise"
    clip_norm: float = 1.0
    adapt: Quantile | None = Quantile()  # noqa: RUF009  (frozen)

    def __post_init__(self) -> None:
        object.__setattr__(self, "clip_norm", float(checks.positive("clip_norm", self.clip_norm)))
        checked(self.adapt)

    def groups(self, model: nn.Module, parameters: Parameters) -> dict[str, int]:
        """See `Clipping.groups`."""
        return layers(model, parameters)

    def thresholds(self, count: int) -> Tensor:
        """See `Clipping.thresholds`."""
        return torch.full((count,), self.clip_norm / math.sqrt(count), dtype=torch.float64)

    def describe(self, unit: str) -> str:
        """See `Clipping.describe`."""
        follows = "" if self.adapt is None else f" at first, {self.adapt.describe()}"
        return (
            f"the gradient of one {unit} clipped in each of K layers to L2 norm {self.clip_norm:g} / sqrt(K){follows}"
        )


def layers(model: nn.Module, parameters: Parameters) -> dict[str, int]:
    """The layer, 0 to K - 1 in order of appearance, of each of `parameters` by name.

    Parameters of one module are of one layer, and so are those of modules that share a parameter (tied weights).
    """
    layer: dict[nn.Parameter, set[nn.Parameter]] = {}
    for own in _owned(model, set(parameters.values())):
        joined = set(own).union(*(layer.get(parameter, set()) for parameter in own))
        layer.update(dict.fromkeys(joined, joined))
    numbers: dict[int, int] = {}
    return {name: numbers.setdefault(id(layer[parameter]), len(numbers)) for name, parameter in parameters.items()}


def _owned(model: nn.Module, trained: set[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    for module in model.modules():
        own = [parameter for parameter in module.parameters(recurse=False) if parameter in trained]
        if own:
            yield own
