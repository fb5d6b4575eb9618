"""One grammar of argument checks: each returns the value it was given, or raises ArgumentError.

Every check takes the argument's name, its value and optionally the mend that ends the message:

    epsilon = checks.positive("epsilon", epsilon, mend="give a budget such as 8")
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sized
from typing import TypeVar

from trustnlp.errors import ArgumentError

T = TypeVar("T")


def _number(name: str, value: float, rule: str, mend: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ArgumentError(name, rule, value, mend)
    return value


def positive(name: str, value: float, mend: str = "") -> float:
    """`value`, a finite number above 0."""
    if _number(name, value, "a number > 0", mend) <= 0:
        raise ArgumentError(name, "a number > 0", value, mend)
    return value


def non_negative(name: str, value: float, mend: str = "") -> float:
    """`value`, a finite number at or above 0."""
    if _number(name, value, "a number >= 0", mend) < 0:
        raise ArgumentError(name, "a number >= 0", value, mend)
    return value


def inside(name: str, value: float, low: float, high: float, mend: str = "") -> float:
    """`value`, strictly between `low` and `high`."""
    rule = f"a number with {low:g} < {name} < {high:g}"
    if not low < _number(name, value, rule, mend) < high:
        raise ArgumentError(name, rule, value, mend)
    return value


def within(name: str, value: float, low: float, high: float, mend: str = "") -> float:
    """`value`, between `low` and `high`, both allowed."""
    rule = f"a number with {low:g} <= {name} <= {high:g}"
    if not low <= _number(name, value, rule, mend) <= high:
        raise ArgumentError(name, rule, value, mend)
    return value


def at_least(name: str, value: int, low: int, mend: str = "") -> int:
    """`value`, a whole number of at least `low`."""
    rule = f"a whole number >= {low}"
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ArgumentError(name, rule, value, mend)
    return value


def one_of(name: str, value: T, options: Collection[T], mend: str = "") -> T:
    """`value`, one of `options`."""
    if value not in options:
        raise ArgumentError(name, "one of " + ", ".join(map(repr, options)), value, mend)
    return value


def not_empty(name: str, value: Sized, mend: str = "") -> None:
    """Raises unless `value` has at least one element."""
    if len(value) == 0:
        raise ArgumentError(name, "not empty", "nothing", mend)


def same_length(**named: Sized) -> int:
    """The common length of all arguments, each given by its name."""
    lengths = {name: len(value) for name, value in named.items()}
    if len(set(lengths.values())) > 1:
        names = " and ".join(repr(name) for name in lengths)
        raise ArgumentError(next(iter(lengths)), f"of one length with its partners ({names})", lengths)
    return next(iter(lengths.values()))
