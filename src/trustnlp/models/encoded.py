"""A split ready for a model: encoded texts and targets, collated into batches on demand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from trustnlp.data.corpus import Example
from trustnlp.data.encoding import Inputs, Schema, Targets
from trustnlp.errors import ModelError
from trustnlp.models.protocol import Batch


class Split:
    """Examples in the order they were given, as `protocol.Encoded` wants them.

    A label or tag that the schema lacks has no loss. For evaluation it counts as an error, since the model cannot
    give the gold answer; for training it is refused.

    Args:
        examples: what was encoded; their names stay at hand, so that unknown ones are never dropped.
        inputs: their texts, encoded.
        schema: what the model can answer.
        for_training: refuse examples that no loss can be computed for.
        scored: (N,) for models that learn from the text itself, which texts are long enough for a loss.

    Raises:
        ModelError: `for_training`, and an example has no target or one the schema lacks.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        inputs: Inputs,
        schema: Schema,
        *,
        for_training: bool,
        scored: np.ndarray | None = None,
    ) -> None:
        self.examples = tuple(examples)
        self._inputs = inputs
        self._targets = Targets(schema, self.examples, inputs.words)
        self._scored = np.ones(len(self.examples), dtype=bool) if scored is None else scored
        if for_training:
            _refuse_untrainable(self.examples, schema, self._scored)

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def complete(self) -> np.ndarray:
        """(N,) whether every gold name is known to the model, so that the loss means something."""
        return self._targets.complete & self._scored

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """The examples at `indices`, padded to the longest of them; padding never changes a loss."""
        chosen = np.asarray(indices, dtype=np.int64)
        return Batch(_tensors(self._inputs.batch(chosen)), _tensors(self._targets.batch(chosen)))


def _tensors(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _refuse_untrainable(examples: Sequence[Example], schema: Schema, scored: np.ndarray) -> None:
    if not scored.all():
        raise ModelError(f"training example {int(np.argmin(scored))} is too short to learn from", "leave it out")
    labels, tags = set(schema.labels), set(schema.tags)
    for number, example in enumerate(examples):
        unknown = {example.label} - labels if labels else set()
        unknown |= set(example.tags or [None]) - tags if tags else set()
        if unknown:
            names = ", ".join(sorted("nothing" if name is None else repr(name) for name in unknown))
            raise ModelError(
                f"training example {number} is labelled {names}, which the model cannot answer",
                "leave it out, or build the model from a corpus whose training split has it",
            )
