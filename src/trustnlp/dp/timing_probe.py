"""Which form of a layer's norms is cheapest, measured on the device with the tensors of the first batch.

Counted multiplications mislead: a processor may be twice as fast at one form's shape of matrices as at another's, and
writing the examples' matrices to memory may cost more than multiplying again. Nothing but rounding depends on the
choice. As times differ from run to run, so may the choice and with it the last bits; `ghost_norms.counted_form` gives
the same bits in every run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trustnlp import checks
from trustnlp.dp.ghost_norms import Form, OuterProducts, counted_form, gram_is_cheaper


class TimingProbe:
    """A `ghost_norms.Choose` that times the forms once for each kind of shape and remembers the fastest.

    Numbers of examples and positions count as equal up to the next power of two, so that texts of all lengths take few
    probes.

    Args:
        seconds: > 0, how long all probes together may take; from then on multiplications are counted.
        clock: gives the time in seconds.

    Attributes:
        chosen: the fastest form by (device, dtype, examples, positions, inputs, outputs, biases).

    Raises:
        ArgumentError: `seconds` is not a number > 0.
    """

    def __init__(self, seconds: float = 2.0, clock: Callable[[], float] = time.perf_counter) -> None:
        self._left = checks.positive("seconds", seconds)
        self._clock = clock
        self.chosen: dict[tuple[Any, ...], Form] = {}

    def __call__(self, a: Tensor, g: Tensor, biases: int) -> Form:
        """The form for inputs (B, T, D) and output gradients (B, T, P)."""
        counted = counted_form(a, g, biases)
        candidates = _candidates(a.shape[1], a.shape[2], g.shape[2])
        if len(candidates) == 1:
            return candidates[0]
        sizes = (_bucket(len(a)), _bucket(a.shape[1]), a.shape[2], g.shape[2], biases)
        key = (str(a.device), a.dtype, *sizes)
        if key not in self.chosen:
            if self._left <= 0:
                return counted
            begun = self._clock()
            seconds = {form: self._seconds(form, a, g, biases) for form in candidates}
            self.chosen[key] = min(candidates, key=lambda form: seconds[form])
            self._left -= self._clock() - begun
        return self.chosen[key]

    def _seconds(self, form: Form, a: Tensor, g: Tensor, biases: int) -> float:
        """The shorter of two times of norms and sum, after one that warms up."""
        total, factors = g.new_zeros(g.shape[2], a.shape[2]), g.new_ones(len(g))
        times = []
        for _ in range(3):
            begun = self._now(a)
            products = OuterProducts(a, g, biases, choose=lambda *_: form)
            products.squared_norms()
            products.add_matrix(total, factors)
            times.append(self._now(a) - begun)
        return min(times[1:])

    def _now(self, tensor: Tensor) -> float:
        """The time at which all work so far is done."""
        if tensor.is_cuda:
            torch.cuda.synchronize(tensor.device)
        return self._clock()


DEVICE_PROBE = TimingProbe()  # one for the process: devices stay as they are


def _candidates(positions: int, inputs: int, outputs: int) -> list[Form]:
    """The forms whose memory is no more than what backward has left behind, or nearly so."""
    if positions == 1:
        return ["gram"]
    forms: list[Form] = ["tiled"]
    if positions <= inputs + outputs:
        forms.append("gram")
    if not gram_is_cheaper(positions, inputs, outputs):
        forms.append("instantiate")
    return forms


def _bucket(count: int) -> int:
    """The next power of two."""
    return 2 ** math.ceil(math.log2(max(1, count)))
