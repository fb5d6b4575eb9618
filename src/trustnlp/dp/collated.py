"""Any map-style dataset as the private step's data: batches that are a tensor, a tuple, a dictionary, or nested so.

Shape legend: B examples.

    dataset[i], collate ─> Collated ──batch(indices)──> CollatedBatch ── .value, as collate gave it ──> user's loss
    plan.batches(dataset) ─> DrawnBatch(data, draw) ─> step(drawn)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from trustnlp.dp.distributed import Ranks
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.models.protocol import Batch, Draw, Encoded
from trustnlp.randomness import Streams

Collate = Callable[[list[Any]], Any]
_FIRST = 8


@dataclass(frozen=True)
class CollatedBatch(Batch):
    """A batch that remembers the form it was collated in.

    Args:
        form: what was collated, with a `_Place` for each tensor.
    """

    form: Any

    @property
    def value(self) -> Any:
        """The batch as the collate function gave it."""
        return _filled(self.form, self.inputs)


@dataclass(frozen=True)
class _Place:
    """Where the tensor of that name belongs."""

    name: str


@dataclass(frozen=True)
class Collated:
    """A map-style dataset and a collate function as `protocol.Encoded`.

    Args:
        dataset: with a length, and one example for every whole number below it.
        collate: a list of examples -> tensors with these examples along the first dimension, in a tuple or dictionary.

    Raises:
        GuaranteeError: a dataset whose examples cannot be drawn by number, as one that is streamed.
    """

    dataset: Any
    collate: Collate = default_collate

    def __post_init__(self) -> None:
        if not (hasattr(self.dataset, "__getitem__") and hasattr(self.dataset, "__len__")):
            raise GuaranteeError(
                f"{type(self.dataset).__name__} has no length or no numbered examples, so none can be drawn at random",
                "give a map-style dataset or a list; of a stream, collect its examples first",
            )

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(self, indices: Sequence[int] | np.ndarray) -> CollatedBatch:
        """The examples at `indices`.

        Raises:
            ArgumentError: what was collated is not tensors with one row for each example.
        """
        numbers = [int(index) for index in indices]
        fetch = getattr(self.dataset, "__getitems__", None)  # as PyTorch's DataLoader does
        rows = fetch(numbers) if fetch else [self.dataset[number] for number in numbers]
        tensors: dict[str, Tensor] = {}
        form = _form(self.collate(list(rows)), "", len(numbers), tensors)
        return CollatedBatch(tensors, {}, form)


@dataclass(frozen=True)
class DrawnBatch:
    """What a private step is called with: the examples of one draw, which it collates itself, in physical batches.

    Args:
        data: all examples.
        draw: which of them; may be empty.
    """

    data: Encoded
    draw: Draw

    def __len__(self) -> int:
        return len(self.draw.indices)


def on_values(loss: Callable[[Any], Tensor]) -> Callable[[Batch], Tensor]:
    """`loss`, given collated batches as the collate function gave them, and any other batch as it is."""

    def of_batch(batch: Batch) -> Tensor:
        return loss(batch.value if isinstance(batch, CollatedBatch) else batch)

    return of_batch


def probed(data: Encoded) -> Encoded:
    """Data to probe a loss with: `data`, or its first examples collated once where its collation is random.

    A collate function that masks or cuts at random gives an example another form each time, which would look as if its
    loss depended on the others. Masks that are drawn for each example independently keep the guarantee.
    """
    if not isinstance(data, Collated) or not len(data):
        return data
    first = range(min(_FIRST, len(data)))
    batches = data.batch(first), data.batch(first)
    same = all(torch.equal(tensor, batches[1].inputs[name]) for name, tensor in batches[0].inputs.items())
    return data if same else _Rows(batches[0])


def secret_streams() -> Streams:
    """Random streams of a seed that nobody knows and no file keeps; of one seed on all ranks."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Streams(int.from_bytes(Ranks.of_process(device).secret(16), "little"))


@dataclass(frozen=True)
class _Rows:
    """The rows of one batch as data."""

    whole: CollatedBatch

    def __len__(self) -> int:
        return len(self.whole)

    def batch(self, indices: Sequence[int] | np.ndarray) -> CollatedBatch:
        rows = torch.as_tensor([int(index) for index in indices])
        return CollatedBatch({n: t[rows] for n, t in self.whole.inputs.items()}, {}, self.whole.form)


def _form(value: Any, name: str, count: int, tensors: dict[str, Tensor]) -> Any:
    """`value` with places for its tensors, which are added to `tensors`."""
    if isinstance(value, Tensor):
        if value.dim() == 0 or len(value) != count:
            rule = f"a list of examples -> tensors with one row for each, here {count}"
            raise ArgumentError("collate", rule, {name: tuple(value.shape)}, "pad examples, and do not join them")
        tensors[name or "batch"] = value
        return _Place(name or "batch")
    if isinstance(value, Mapping):
        return {key: _form(part, f"{name}.{key}" if name else str(key), count, tensors) for key, part in value.items()}
    if isinstance(value, tuple | list):
        parts = [_form(part, f"{name}.{i}" if name else str(i), count, tensors) for i, part in enumerate(value)]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    raise ArgumentError("collate", "a list of examples -> tensors", {name: type(value).__name__}, "leave the rest out")


def _filled(form: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(form, _Place):
        return tensors[form.name]
    if isinstance(form, dict):
        return {key: _filled(part, tensors) for key, part in form.items()}
    parts = [_filled(part, tensors) for part in form]
    return type(form)(*parts) if hasattr(form, "_fields") else type(form)(parts)
