"""Named, separate random streams: same seed, same bits, whatever the order or number of workers.

Every stream is derived from the seed, a name and optional indices by SHA-256, so that drawing more from one
stream (say `noise`) never moves another (say `sampling`), and step t of a resumed run draws what step t of an
uninterrupted run would have drawn.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trustnlp import checks

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Streams:
    """All random streams of one run.

    Args:
        seed: any whole number >= 0.
    """

    seed: int

    def __post_init__(self) -> None:
        checks.at_least("seed", self.seed, 0)

    def key(self, name: str, *index: int) -> int:
        """The 63-bit seed of the stream `name` at `index`."""
        text = "/".join([str(self.seed), name, *map(str, index)])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1

    def numpy(self, name: str, *index: int) -> np.random.Generator:
        """A NumPy generator for the stream `name` at `index`."""
        return np.random.Generator(np.random.PCG64(self.key(name, *index)))

    def torch(self, name: str, *index: int, device: str = "cpu") -> torch.Generator:
        """A PyTorch generator for the stream `name` at `index`."""
        import torch

        return torch.Generator(device).manual_seed(self.key(name, *index))

    def child(self, name: str, *index: int) -> Streams:
        """A whole family of streams of its own, for instance for the i-th reference model."""
        return Streams(self.key(name, *index))
