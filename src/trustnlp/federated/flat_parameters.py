"""All trained parameters of a model as one vector, and their gradients as another.

    model.parameters()   weight (4, 3) | bias (4,) | ...      every tensor is a view into
    values (P,)          [ . . . . . . . . . . . . | . . . . | ... ]
    gradient (P,)        [ . . . . . . . . . . . . | . . . . | ... ]

What federated algorithms do to weights (send, subtract, average, correct) is one operation on one vector, in place,
and nothing is allocated for each device that is visited.

Shape legend: P entries of all trained parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from trustnlp.errors import ArgumentError, ModelError
from trustnlp.federated.lookups import Lookups


class FlatParameters:
    """The trained parameters of `model`, moved into one vector, for as long as the model lives.

    Parameters that are shared by modules stand in it once; frozen ones stay where they are. `values` and `gradient` may
    be read and written at any time; the model's tensors and their `grad` are views of them. `lookups` makes the
    gradient of large tables in less time.

    Args:
        model: on one device, its trained parameters of one floating type.

    Raises:
        ModelError: running statistics, which an average of weights would leave behind, or nothing to train.
        ArgumentError: parameters of several types or devices.
    """

    def __init__(self, model: nn.Module) -> None:
        _refuse_running_statistics(model)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not trained:
            raise ModelError("the model has no parameter to train", "let some require gradients")
        kinds = {(str(parameter.dtype), str(parameter.device)) for parameter in trained}
        if len(kinds) > 1:
            raise ArgumentError("model", "with trained parameters of one type on one device", sorted(kinds))
        self.values = torch.cat([parameter.detach().flatten() for parameter in trained])
        self.gradient = torch.zeros_like(self.values)
        self._trained = trained
        self._point_to(self.values)
        for parameter, view in zip(trained, self._views(self.gradient), strict=True):
            parameter.grad = view
        self.lookups = Lookups(model)
        self._change = torch.empty_like(self.values)

    def __len__(self) -> int:
        return len(self.values)

    def change(self, start: Tensor) -> Tensor:
        """(P,) how far the values are from `start`, in memory that the next call overwrites."""
        return torch.sub(self.values, start, out=self._change)

    @contextmanager
    def reading(self, vector: Tensor) -> Iterator[None]:
        """Inside, the model has the weights of `vector` (P,), of which nothing is copied; not for training."""
        self._point_to(vector)
        try:
            yield
        finally:
            self._point_to(self.values)

    def _point_to(self, vector: Tensor) -> None:
        for parameter, view in zip(self._trained, self._views(vector), strict=True):
            parameter.data = view

    def _views(self, vector: Tensor) -> Iterator[Tensor]:
        start = 0
        for parameter in self._trained:
            end = start + parameter.numel()
            yield vector[start:end].view_as(parameter)
            start = end


def _refuse_running_statistics(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, _NormBase) and module.track_running_stats:
            raise ModelError(
                f"{name or 'the model'} ({type(module).__name__}) keeps running statistics of the texts it has seen",
                "use LayerNorm or GroupNorm, or set track_running_stats=False",
            )
