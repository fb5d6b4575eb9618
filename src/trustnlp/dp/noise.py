"""Gaussian noise in numbered blocks of which none is used twice, added to a sum on its way out of the private step.

A sum is noised in chunks of a fixed number of entries of the flat tensor, and every chunk of every block has a stream
of its own, chosen by (block, name of the tensor, number of the chunk). So the bits depend neither on the number of
threads nor on the order of the tensors, and a process that holds part of a tensor draws exactly its part of the noise.
"""

from __future__ import annotations

import contextlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from trustnlp import checks
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.randomness import Streams


class Noise(Protocol):
    """What the private step asks of a source of noise."""

    def release_(
        self,
        sums: Mapping[str, Tensor],
        block: int,
        stds: Mapping[str, float],
        divisor: float,
        parts: Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        """In place: every tensor t becomes (t + N(0, stds[name]^2)) / divisor; see `ChunkedNoise.release_`."""
        ...


@dataclass(frozen=True)
class Chunk:
    """A piece of a sum and the chunk of the flat tensor in which it lies.

    Attributes:
        sums: (n,) view of the entries to noise.
        block: number of the release.
        name: of the tensor.
        number: of the chunk within the tensor.
        length: entries of the whole chunk.
        start: where within the chunk `sums` begins.
        stream: on which the caller works, where `sums` is on a CUDA device.
    """

    sums: Tensor
    block: int
    name: str
    number: int
    length: int
    start: int
    stream: torch.cuda.Stream | None

    @property
    def span(self) -> slice:
        """The entries of the chunk that belong to `sums`."""
        return slice(self.start, self.start + len(self.sums))


class Scratch:
    """Memory that a thread uses again for its next chunk; fresh memory costs a page fault for every few kilobytes."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    def tensor(self, name: str, length: int, dtype: torch.dtype, device: torch.device | None = None) -> Tensor:
        """(length,) entries of any value, the same memory at every call with this name."""
        key = name, dtype, device or torch.device("cpu")
        if key not in self._held or self._held[key].numel() < length:
            self._held[key] = torch.empty(length, dtype=dtype, device=device)
        return self._held[key][:length]


class ChunkedNoise(ABC):
    """Refuses used blocks, cuts sums into chunks and spreads these over threads; subclasses noise one chunk."""

    def __init__(self) -> None:
        self._next = 0

    def release_(
        self,
        sums: Mapping[str, Tensor],
        block: int,
        stds: Mapping[str, float],
        divisor: float,
        parts: Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        """In place: every tensor t becomes (t + N(0, stds[name]^2)) / divisor.

        The Gaussian mechanism: with std = noise multiplier x sensitivity the release costs what the accountant says of
        that multiplier, for the unit and adjacency in which the sensitivity was bounded.

        Args:
            sums: float32 or float64 tensors of any shape and strides.
            block: number of this release, greater than of every release before; the ledger hands it out.
            stds: standard deviation for every tensor, > 0.
            divisor: a public constant > 0, such as the expected batch.
            parts: where sums[name] is entries [offset, offset + numel) of a larger flat tensor, its offset and the
                entries of the whole; it is given that part of the noise of the whole.

        Raises:
            ArgumentError: a name without standard deviation or the reverse, a value out of range, another dtype.
            GuaranteeError: this block, or a later one, has been used already.
        """
        parts = parts or {}
        _check(sums, stds, divisor, parts)
        self._use(block)
        flats = {name: t.detach().reshape(-1) for name, t in sums.items()}  # a copy where strides allow no view
        self._spread(self._chunks(flats, block, parts), stds, divisor)
        for name, tensor in sums.items():
            if flats[name].data_ptr() != tensor.data_ptr():
                tensor.detach().copy_(flats[name].view(tensor.shape))

    def _use(self, block: int) -> None:
        if checks.at_least("block", block, 0) < self._next:
            raise GuaranteeError(
                f"noise block {block} was used before, and noise used twice can be subtracted",
                "take block numbers from the ledger",
            )
        self._next = block + 1

    def _chunks(self, flats: Mapping[str, Tensor], block: int, parts: Mapping[str, tuple[int, int]]) -> Iterator[Chunk]:
        for name, flat in flats.items():
            begin, total = parts.get(name, (0, len(flat)))
            end, size = begin + len(flat), self._chunk_size(flat.device)
            stream = torch.cuda.current_stream(flat.device) if flat.is_cuda else None
            for number in range(begin // size, -(-end // size)):
                first, last = number * size, min((number + 1) * size, total)
                low, high = max(begin, first), min(end, last)
                piece = flat[low - begin : high - begin]
                yield Chunk(piece, block, name, number, last - first, low - first, stream)

    def _spread(self, chunks: Iterator[Chunk], stds: Mapping[str, float], divisor: float) -> None:
        """Hands out the chunks in turn, one list to each thread: PyTorch and NumPy let go of the interpreter lock."""
        threads = torch.get_num_threads()
        shares = [share for share in _deal(chunks, threads) if share]

        def work(share: list[Chunk]) -> None:
            scratch = Scratch()
            for chunk in share:
                with torch.cuda.stream(chunk.stream) if chunk.stream else contextlib.nullcontext():
                    self._release_chunk_(chunk, stds[chunk.name], divisor, scratch)

        if len(shares) <= 1:
            for share in shares:
                work(share)
            return
        with ThreadPoolExecutor(len(shares)) as pool:
            list(pool.map(work, shares))  # the list raises what a thread raised

    @abstractmethod
    def _chunk_size(self, device: torch.device) -> int:
        """Entries of a chunk on `device`; part of what fixes the bits."""

    @abstractmethod
    def _release_chunk_(self, chunk: Chunk, std: float, divisor: float, scratch: Scratch) -> None:
        """chunk.sums becomes (sums + N(0, std^2)) / divisor, in place and in the calling thread alone."""


class SeededNoise(ChunkedNoise):
    """PyTorch's own generator, seeded: reproducible, not cryptographic; whoever knows the seed can subtract the noise.

    PyTorch makes float32 Gaussians from uniforms of 24 bits, so that none lies beyond sqrt(48 ln 2) = 5.77 standard
    deviations; a true Gaussian does so with probability 8e-9. Bits differ between CPU and CUDA and between dtypes.

    Args:
        streams: of which the streams `noise/<name of the tensor>` are used.
    """

    def __init__(self, streams: Streams) -> None:
        super().__init__()
        self._streams = streams

    def _chunk_size(self, device: torch.device) -> int:
        # PyTorch does not split an operation on 2^15 entries among threads of its own, and they stay in a core's cache.
        return 2**15 if device.type == "cpu" else 2**24

    def _release_chunk_(self, chunk: Chunk, std: float, divisor: float, scratch: Scratch) -> None:
        sums = chunk.sums
        generator = self._streams.torch(f"noise/{chunk.name}", chunk.block, chunk.number, device=str(sums.device))
        normals = scratch.tensor("normals", chunk.length, sums.dtype, sums.device)
        normals.normal_(0.0, std, generator=generator)
        sums.add_(normals[chunk.span]).div_(divisor)


def _check(
    sums: Mapping[str, Tensor], stds: Mapping[str, float], divisor: float, parts: Mapping[str, tuple[int, int]]
) -> None:
    checks.positive("divisor", divisor)
    if sums.keys() != stds.keys():
        raise ArgumentError("stds", "given for every tensor and for no other", sorted(sums.keys() ^ stds.keys()))
    if not parts.keys() <= sums.keys():
        raise ArgumentError("parts", "of tensors among the sums", sorted(parts.keys() - sums.keys()))
    for name, tensor in sums.items():
        checks.positive(f"stds[{name}]", stds[name], "a sum may not leave without noise")
        if tensor.dtype not in (torch.float32, torch.float64):
            raise ArgumentError(f"sums[{name}]", "of dtype float32 or float64", tensor.dtype, "sum in float32")
    for name, (offset, total) in parts.items():
        if not 0 <= offset <= offset + sums[name].numel() <= total:
            raise ArgumentError(f"parts[{name}]", f"a place for {sums[name].numel()} entries", (offset, total))


def _deal(chunks: Iterator[Chunk], hands: int) -> list[list[Chunk]]:
    """Chunks in turn to each hand: chunk i to hand i modulo `hands`."""
    dealt: list[list[Chunk]] = [[] for _ in range(hands)]
    for chunk, hand in zip(chunks, itertools.cycle(dealt), strict=False):
        hand.append(chunk)
    return dealt
