"""Many questions to a language model about single tokens, in few forward passes.

    log_probabilities   questions (row, place, token), by:   rows of about one length in one batch
                                                             texts that begin alike as one tree (causal models)
                                                             the head at asked places only
    means               mean hidden states

Equal rows are computed once. Each of these ways changes nothing but rounding. Whether a model can read trees is found
out by asking it: hidden states of a tree as large as any must be those of its texts alone.

Shape legend: Q questions, B batch, T tokens, D width, V vocabulary, N places that are read.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trustnlp.models.evaluation import scoring
from trustnlp.models.picked import answers_at, states
from trustnlp.models.prefix_trees import Row, Tree, grow

Array = NDArray[np.float64]
LARGEST_TREE = 128  # attention among unrelated tokens of a tree costs little up to here
_TOLERANCE = 1e-4  # relative, of a hidden state; rounding of float32 stays far below
_SLICE = 64  # rows of logits whose exponentials are held at once


@dataclass(frozen=True)
class _Line:
    """One row of a batch: a text, or a tree of texts."""

    ids: Sequence[int]
    tree: Tree | None = None

    def __len__(self) -> int:
        return len(self.ids)


class TokenReader:
    """A model of Transformers that answers what is asked of single tokens.

    Args:
        model: with logits (B, T, V).
        causal: whether a place sees only those before it.
        pad: the id that fills up; it is masked.
        divider: the token that ends the first of two sentences, for models that tell them apart by types.
        batch_tokens: about how many tokens are computed at once.
    """

    def __init__(self, model: nn.Module, *, causal: bool, pad: int, divider: int | None, batch_tokens: int) -> None:
        self._model = model
        self._causal = causal
        self._pad = pad
        self._divider = divider
        self._batch_tokens = batch_tokens
        self._largest: int | None = None

    def log_probabilities(self, rows: Sequence[Row], questions: NDArray[np.int64]) -> Array:
        """(Q,) natural log-probabilities, by the model's scores at a place of a row, of a token.

        Args:
            rows: tokens, each row not empty.
            questions: (Q, 3) number of the row, place in it, token.
        """
        answers = np.zeros(len(questions))
        with scoring(self._model) as device:
            lines, where = self._lines(rows)
            line = np.array([where[row][0] for row in questions[:, 0]], dtype=np.int64)
            place = np.array([where[row][1][at] for row, at in questions[:, :2]], dtype=np.int64)
            order = np.argsort(line, kind="stable")
            for batch in self._batches(lines):
                mine = _of(line[order], order, batch)
                within = {number: i for i, number in enumerate(batch)}
                asked = np.column_stack([[within[i] for i in line[mine]], place[mine]])
                read, which = np.unique(asked, axis=0, return_inverse=True)
                inputs = self._inputs([lines[i] for i in batch], device)
                at = torch.from_numpy(read).to(device)
                logits = answers_at(self._model, at[:, :1], at[:, 1:], **inputs)[:, 0]
                answers[mine] = _normalised(logits, which.reshape(-1), questions[mine, 2])
        return answers

    def means(self, rows: Sequence[Row], places: Sequence[Sequence[int]]) -> Array:
        """(len(rows), D) mean of the last hidden states at the places of each row."""
        distinct = {row: number for number, row in enumerate(dict.fromkeys(rows))}
        lines = [_Line(row) for row in distinct]
        wanted: list[list[int]] = [[] for _ in lines]
        for number, row in enumerate(rows):
            wanted[distinct[row]].append(number)
        found: dict[int, Array] = {}
        with scoring(self._model) as device:
            for batch in self._batches(lines):
                last = states(self._model, **self._inputs([lines[i] for i in batch], device))
                for line, vectors in zip(batch, last, strict=True):
                    for number in wanted[line]:
                        found[number] = vectors[list(places[number])].double().mean(0).cpu().numpy()
        return np.array([found[number] for number in range(len(rows))])

    def _lines(self, rows: Sequence[Row]) -> tuple[list[_Line], list[tuple[int, Sequence[int]]]]:
        """What to compute, and for each row in which line it is and where in it its tokens are."""
        largest = self._largest_tree() if self._causal and len(rows) > 1 else 0
        distinct = list(dict.fromkeys(rows))
        small = [row for row in distinct if len(row) <= largest]
        trees, places = grow(small, largest)
        lines = [_Line(tree.ids, tree) for tree in trees]
        where: dict[Row, tuple[int, Sequence[int]]] = dict(zip(small, places, strict=True))
        for row in distinct:
            if row not in where:
                where[row] = len(lines), range(len(row))
                lines.append(_Line(row))
        return lines, [where[row] for row in rows]

    def _batches(self, lines: Sequence[_Line]) -> Iterator[list[int]]:
        """Numbers of lines of one kind and about one length, the longest first: memory runs out at once or never."""
        order = sorted(range(len(lines)), key=lambda i: (lines[i].tree is None, -len(lines[i])))
        batch: list[int] = []
        for number in order:
            full = batch and (len(batch) + 1) * len(lines[batch[0]]) > self._batch_tokens
            if full or (batch and (lines[batch[0]].tree is None) != (lines[number].tree is None)):
                yield batch
                batch = []
            batch.append(number)
        if batch:
            yield batch

    def _inputs(self, lines: Sequence[_Line], device: torch.device) -> dict[str, Tensor]:
        """What the model reads of lines of one kind, padded to the longest at the right."""
        width = max(len(line) for line in lines)
        ids = torch.full((len(lines), width), self._pad)
        real = torch.zeros((len(lines), width), dtype=torch.long)
        for row, line in enumerate(lines):
            ids[row, : len(line)] = torch.tensor(line.ids)
            real[row, : len(line)] = 1
        trees = [line.tree for line in lines if line.tree is not None]
        if trees:
            inputs = {"input_ids": ids, **_tree_inputs(trees, width, next(self._model.parameters()).dtype)}
        else:
            inputs = {"input_ids": ids, "attention_mask": real}
        if self._divider is not None:
            dividers = (ids == self._divider).long()
            inputs["token_type_ids"] = (dividers.cumsum(1) - dividers).clamp(max=1)
        return {name: tensor.to(device) for name, tensor in inputs.items()}

    def _largest_tree(self) -> int:
        """Tokens of the largest tree that the model reads rightly; 0 if it reads none. Found out once."""
        if self._largest is None:
            limit = getattr(getattr(self._model, "config", None), "max_position_embeddings", None) or LARGEST_TREE
            largest = min(LARGEST_TREE, limit)
            self._largest = largest if largest >= 4 and self._reads_trees(largest) else 0
        return self._largest

    def _reads_trees(self, size: int) -> bool:
        """Whether hidden states in a tree of `size` tokens, as large as any, are those of its texts alone.

        A model that forgets what is far away, or counts places in the row, fails here.
        """
        if "position_ids" not in inspect.signature(self._model.forward).parameters:
            return False
        vocabulary = next(self._model.get_input_embeddings().parameters()).shape[0]  # type: ignore[operator]
        tokens = [int(i) for i in np.random.default_rng(0).integers(0, vocabulary, size)]
        half, rest = size // 2, size // 4
        ends = [tokens[half : half + rest], tokens[half + rest :]]
        tree = Tree()
        way = tree.extend([], tokens[:half])
        ways = [tree.extend(way, end) for end in ends]
        texts = [_Line([tree.ids[i] for i in way]) for way in ways]
        device = next(self._model.parameters()).device
        try:
            (together,) = states(self._model, **self._inputs([_Line(tree.ids, tree)], device))
        except (TypeError, ValueError, RuntimeError):
            return False
        alone = states(self._model, **self._inputs(texts, device))
        return all(_agree(together[way], own[: len(way)]) for way, own in zip(ways, alone, strict=True))


def _tree_inputs(trees: Sequence[Tree], width: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """`position_ids` (B, T), and `attention_mask` (B, 1, T, T) that is added to attention scores."""
    positions = torch.zeros((len(trees), width), dtype=torch.long)
    hidden = ~torch.eye(width, dtype=torch.bool).repeat(len(trees), 1, 1)  # padding sees itself: no row is empty
    for row, tree in enumerate(trees):
        positions[row, : len(tree)] = torch.tensor(tree.depths)
        hidden[row, : len(tree), : len(tree)] = torch.from_numpy(~tree.sight())
    mask = torch.zeros(hidden.shape, dtype=dtype).masked_fill(hidden, torch.finfo(dtype).min)
    return {"position_ids": positions, "attention_mask": mask[:, None]}


def _agree(one: Tensor, other: Tensor) -> bool:
    """Whether all vectors (T, D) are those of `other`, but for rounding."""
    return bool(((one - other).norm(dim=-1) <= _TOLERANCE * other.norm(dim=-1)).all())


def _of(lines: NDArray[np.int64], order: NDArray[np.int64], batch: Sequence[int]) -> NDArray[np.int64]:
    """The questions whose line is in the batch; `lines` are those of the questions in `order`, rising."""
    starts, ends = np.searchsorted(lines, batch), np.searchsorted(lines, batch, side="right")
    return np.concatenate([order[start:end] for start, end in zip(starts, ends, strict=True)])


def _normalised(logits: Tensor, which: NDArray[np.int64], tokens: NDArray[np.int64]) -> Array:
    """(Q,) log-probabilities of `tokens`, by row `which` of logits (N, V); without a second tensor of that size."""
    totals = torch.cat([part.float().logsumexp(-1) for part in logits.split(_SLICE)])
    rows = torch.from_numpy(which).to(logits.device)
    own = logits[rows, torch.from_numpy(np.ascontiguousarray(tokens)).to(logits.device)]
    answers: Array = (own.double() - totals[rows].double()).cpu().numpy()
    return answers
