"""Random properties of devices without storage: a hash of a key and the device's number.

The same key and device always give the same figure, whoever else is asked and in whichever order, so a property of 10^7
devices needs no memory. It is the generator SplitMix64, started at the key and jumped ahead to the device (Steele, Lea
and Flood 2014, "Fast splittable pseudorandom number generators", OOPSLA). Good for simulated worlds, and no secret.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Floats = NDArray[np.float64]
_GAMMA, _FIRST, _SECOND = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], dtype=np.uint64)


def uniform(key: int, devices: NDArray[Any]) -> Floats:
    """(m,) uniform in (0, 1), one per device, of the family `key` (0 to 2^64 - 1)."""
    bits = _mix(_mix(np.full(1, key, np.uint64)) + (devices.astype(np.uint64) + np.uint64(1)) * _GAMMA)
    return np.asarray(((bits >> np.uint64(11)) + 0.5) * 2.0**-53, dtype=np.float64)


def normal(key: int, devices: NDArray[Any]) -> Floats:
    """(m,) standard normal, one per device, of the family `key`."""
    return np.asarray(ndtri(uniform(key, devices)))


def _mix(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    bits = (bits ^ (bits >> np.uint64(30))) * _FIRST
    bits = (bits ^ (bits >> np.uint64(27))) * _SECOND
    return bits ^ (bits >> np.uint64(31))
