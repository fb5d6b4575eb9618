"""Cryptographically secure Gaussian noise: AES-256 in counter mode, turned into Gaussians by Box and Muller.

    key (32 bytes of the operating system) ─ BLAKE2b(block, tensor) ─> AES-256-CTR from counter chunk * 2^64
        ─> 64 bits for a radius, 64 bits for an angle ─> two Gaussians in float64 ─> grid of about std / 4096

Without the key the noise cannot be told from noise that nobody can compute again (NIST SP 800-38A for the mode,
RFC 7693 for keyed BLAKE2b), so knowing the seed of a run does not undo its protection.

**Replay.** The key is drawn afresh in every process, is never derived from the seed and cannot be pickled or copied. A
run that is killed and resumed therefore draws noise that has never been released, whatever block the ledger hands out
and even if the ledger's last line was lost. The price is that a run cannot be repeated bit by bit.

**Tails.** The radius comes from 2^64 equally likely values, so no Gaussian lies beyond sqrt(128 ln 2) = 9.42 standard
deviations. The total variation from this is below 2^-63 for every two entries, that is 1e-12 for a release of 22
million and 1e-8 for ten thousand of them: add it to delta where delta is that small.

**Floating-point attacks.** Mironov (2012, CCS) and Jin et al. (2022, arXiv:2112.05307) recognise the sum behind a noisy
value because a float sum of noise can only reach some values, and which depends on the sum. Here sum and noise are
added in float64 and rounded to a grid of 2^-13 to 2^-12 standard deviations, chosen by the standard deviation alone.
Rounding is post-processing, and every grid point within the tails is reached from every sum, by very many float64
values of the noise. The set of possible outputs then tells nothing, which is what these attacks use. What remains is
that a grid point's probability is off by a relative 2^-36 or so where the noise has its mass and the sum is of its
size, and 2^-27 where the sum is a thousand times larger. This is an estimate and not a proof; only exact sampling of a
discrete Gaussian would be one. Summing several Gaussians (Holohan
and Braghin 2021) is not done: it makes the attack costly, where the grid takes away what it looks at.

**Timing.** Every entry takes the same instructions, without rejection, so the attack of Jin et al. on the time taken by
samplers that reject has nothing to measure; the branches inside the mathematical library are not audited.
Not covered: whoever can read the memory of the process, where the key lies.
"""

from __future__ import annotations

import hashlib
import math
import os
import secrets
from typing import NoReturn

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from torch import Tensor

from trustnlp.dp.noise import Chunk, ChunkedNoise, Scratch
from trustnlp.errors import ArgumentError, GuaranteeError

KEY_BYTES = 32
_CHUNK = 2**17  # entries: enough that calls from Python cost little, few enough that memory is not waited for
_SERIAL = 2**15  # entries that PyTorch does not split among threads of its own
_GRID_BITS = 12
_PAIR_BYTES = 16
_ZEROS = memoryview(bytes(_CHUNK // 2 * _PAIR_BYTES))


class SecureNoise(ChunkedNoise):
    """Gaussian noise that nobody without the key can compute again; the module says what is covered and what is not.

    On a CUDA device the Gaussians are made on the CPU, chunk by chunk in page-locked memory, and copied.

    Args:
        key: 32 secret bytes; drawn from the operating system when left out, and only tests and ranks of one run should
            give it. Ranks that share a key must release the same sums or disjoint parts of them, since the difference
            of two sums under the same noise is bare.
    """

    def __init__(self, key: bytes | None = None) -> None:
        super().__init__()
        if key is not None and (not isinstance(key, bytes) or len(key) != KEY_BYTES):
            raise ArgumentError("key", f"{KEY_BYTES} bytes", f"{type(key).__name__} (not shown)", "leave it out")
        self._key = key or secrets.token_bytes(KEY_BYTES)
        self._process = os.getpid()

    def _use(self, block: int) -> None:
        if os.getpid() != self._process:
            raise GuaranteeError(
                "this noise was made in another process, whose noise it would repeat",
                "make SecureNoise after forking",
            )
        super()._use(block)

    def _chunk_size(self, device: torch.device) -> int:  # noqa: ARG002
        return _CHUNK

    def _release_chunk_(self, chunk: Chunk, std: float, divisor: float, scratch: Scratch) -> None:
        grid = math.ldexp(1.0, math.frexp(std)[1] - 1 - _GRID_BITS)  # a power of two, so that dividing by it is exact
        pairs = -(-chunk.length // 2)
        raw = scratch.tensor("key stream", pairs * _PAIR_BYTES, torch.uint8).numpy()
        keystream_into(_stream_key(self._key, chunk.block, chunk.name), chunk.number << 64, raw)
        normals = gaussians(raw, std, scratch)[chunk.span]
        if chunk.sums.device.type == "cpu":
            _add_on_grid_(chunk.sums.numpy(), normals, grid, divisor)
        else:
            _add_on_grid_of_device_(chunk.sums, torch.from_numpy(normals), grid, divisor)

    def __getstate__(self) -> NoReturn:
        raise GuaranteeError("secure noise cannot be pickled or copied: its key would be", "make a new SecureNoise")


def keystream_into(key: bytes, counter: int, out: np.ndarray) -> None:
    """Fills the bytes `out` with the key stream of AES-CTR whose first counter block is `counter`, big-endian."""
    encryptor = Cipher(algorithms.AES(key), modes.CTR(counter.to_bytes(16, "big"))).encryptor()
    encryptor.update_into(_ZEROS[: len(out)], out.data)


def gaussians(raw: np.ndarray, std: float, scratch: Scratch) -> np.ndarray:
    """One float64 N(0, std^2) for every 8 of the 16 n bytes, by the transform of Box and Muller (1958).

    The first half of `raw` are n 64-bit integers j that give radii std * sqrt(-2 ln u) at u = |j + 1/2| / 2^63, the
    second half n integers k that give angles pi * k / 2^63; the cosines come first, then the sines. The result lies in
    `scratch` and holds until the next call.
    """
    count = len(raw) // 8
    uniforms = scratch.tensor("uniforms", count, torch.float64)
    normals = scratch.tensor("normals", count, torch.float64)
    np.copyto(uniforms.numpy(), raw.view("<i8"), casting="same_kind")
    radius, angle = uniforms.view(2, -1).numpy()
    radius += 0.5  # never 0; what is lost for |j| >= 2^52 is a relative 2^-53 of u
    np.abs(radius, out=radius)
    radius *= 2.0**-63
    np.log(radius, out=radius)
    radius *= -2.0 * std * std
    np.sqrt(radius, out=radius)
    angle *= math.pi * 2.0**-63
    cosines, sines = normals.view(2, -1)
    for low in range(0, len(angle), _SERIAL):
        piece = slice(low, low + _SERIAL)  # of PyTorch, since NumPy's float64 cosine is not vectorised
        torch.cos(torch.from_numpy(angle[piece]), out=cosines[piece])
        torch.sin(torch.from_numpy(angle[piece]), out=sines[piece])
    cosines.numpy()[:] *= radius
    sines.numpy()[:] *= radius
    return normals.numpy()


def _stream_key(key: bytes, block: int, name: str) -> bytes:
    return hashlib.blake2b(
        f"{block}/{name}".encode(), key=key, digest_size=KEY_BYTES, person=b"trustnlp noise"
    ).digest()


def _add_on_grid_(sums: np.ndarray, normals: np.ndarray, grid: float, divisor: float) -> None:
    """sums = grid * round((sums + normals) / grid) / divisor; `normals` is overwritten."""
    normals += sums
    normals *= 1.0 / grid
    np.rint(normals, out=normals)
    normals *= grid / divisor
    np.copyto(sums, normals, casting="same_kind")


def _add_on_grid_of_device_(sums: Tensor, normals: Tensor, grid: float, divisor: float) -> None:
    """The same on the device of the sums, from page-locked memory, in the current stream."""
    noisy = normals.pin_memory().to(sums.device, non_blocking=True)
    sums.copy_(noisy.add_(sums).mul_(1.0 / grid).round_().mul_(grid / divisor))
