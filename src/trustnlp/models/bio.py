"""The best sequence of BIO tags that is one: Viterbi decoding under the rules of BIO.

Shape legend: B batch, T words, S tags.

`I-x` may follow only `B-x` or `I-x`; every other tag may follow anything. So a step of the dynamic programme needs
no S by S table: a tag comes from the best tag of all, or, for `I-x`, from the better of two.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def decode(scores: Tensor, lengths: Tensor, tags: Sequence[str]) -> Tensor:
    """(B, T) numbers of the tags whose scores have the largest sum among all valid sequences.

    Args:
        scores: (B, T, S) unnormalised.
        lengths: (B,) words per text; what is returned beyond them means nothing.
        tags: S names. `I-x` is held to its rule where `B-x` is one of them; other names are free.
    """
    inside, begin = _continuations(tags, scores.device)
    unmoved = torch.arange(scores.shape[2], device=scores.device)
    totals = scores[:, 0].clone()
    totals[:, inside] = -torch.inf
    origins = []
    for step in range(1, scores.shape[1]):
        best, origin = totals.max(1, keepdim=True)
        best, origin = best.expand_as(totals).clone(), origin.expand_as(totals).clone()
        begun, continued = totals[:, begin], totals[:, inside]
        best[:, inside] = torch.maximum(begun, continued)
        origin[:, inside] = torch.where(begun >= continued, begin, inside)
        present = (step < lengths)[:, None]
        totals = torch.where(present, best + scores[:, step], totals)
        origins.append(torch.where(present, origin, unmoved))
    path = [totals.argmax(1, keepdim=True)]
    for origin in reversed(origins):
        path.append(origin.gather(1, path[-1]))
    return torch.cat(path[::-1], 1)


def following(tags: Sequence[str], device: torch.device) -> Tensor:
    """(S + 1, S) bool: which tag may follow which, by the rules that `decode` keeps; the last row is for first tags."""
    inside, begin = _continuations(tags, device)
    allowed = torch.ones(len(tags) + 1, len(tags), dtype=torch.bool, device=device)
    allowed[:, inside] = False
    allowed[begin, inside] = allowed[inside, inside] = True
    return allowed


def _continuations(tags: Sequence[str], device: torch.device) -> tuple[Tensor, Tensor]:
    """The numbers of every `I-x` whose `B-x` exists, and of those `B-x`."""
    numbers = {tag: number for number, tag in enumerate(tags)}
    pairs = [
        (n, numbers["B-" + tag[2:]]) for tag, n in numbers.items() if tag[:2] == "I-" and "B-" + tag[2:] in numbers
    ]
    inside, begin = torch.tensor(pairs, dtype=torch.long, device=device).reshape(-1, 2).T
    return inside, begin
