"""Gaussian noise from its own stream, in numbered blocks of which none is used twice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from trustnlp import checks
from trustnlp.errors import GuaranteeError
from trustnlp.randomness import Streams


class GaussianNoise:
    """Independent N(0, std^2) for every coordinate; block b depends on the streams and b alone.

    The generator is PyTorch's own, seeded: reproducible, and not cryptographic.

    Args:
        std: standard deviation, sigma * clip_norm.
        streams: of which the stream `noise` is used.
    """

    def __init__(self, std: float, streams: Streams) -> None:
        self.std = checks.positive("std", std)
        self._streams = streams
        self._next = 0

    def add_(self, tensors: Mapping[str, Tensor], block: int) -> None:
        """Adds the noise of `block` to the tensors, in place.

        Raises:
            GuaranteeError: this block, or a later one, has been used already.
        """
        if block < self._next:
            raise GuaranteeError(
                f"noise block {block} was used before, and noise used twice can be subtracted",
                "take block numbers from the ledger",
            )
        self._next = block + 1
        generators: dict[torch.device, torch.Generator] = {}
        for tensor in tensors.values():
            device = tensor.device
            if device not in generators:
                generators[device] = self._streams.torch("noise", block, device=str(device))
            tensor.add_(torch.empty_like(tensor).normal_(0.0, self.std, generator=generators[device]))


class Noise(Protocol):
    """Where a private step's noise comes from."""

    def release_(self, sums: Mapping[str, Tensor], block: int, stds: Mapping[str, float], divisor: float) -> None:
        """In place: every tensor t becomes (t + N(0, stds[name]^2)) / divisor."""
        ...


class SeededNoise:
    """Noise of PyTorch's generator; block b depends on the streams and b alone."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._next = 0

    def release_(self, sums: Mapping[str, Tensor], block: int, stds: Mapping[str, float], divisor: float) -> None:
        """See `Noise.release_`."""
        if block < self._next:
            raise GuaranteeError(
                f"noise block {block} was used before, and noise used twice can be subtracted",
                "take block numbers from the ledger",
            )
        self._next = block + 1
        generators: dict[torch.device, torch.Generator] = {}
        for name, tensor in sums.items():
            device = tensor.device
            if device not in generators:
                generators[device] = self._streams.torch("noise", block, device=str(device))
            generator = generators[device]
            noise = torch.empty_like(tensor).normal_(0.0, stds[name], generator=generator)
            tensor.add_(noise).div_(divisor)
