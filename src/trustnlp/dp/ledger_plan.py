"""What a ledger must know of a plan, whatever the plan is of: its steps, what each of them adds, and a digest."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any, Protocol, Self

from trustnlp.dp.accounting import Event
from trustnlp.errors import ArgumentError


class LedgerPlan(Protocol):
    """A plan whose steps a ledger can count; a frozen record, equal to another exactly if their digests are."""

    @property
    def steps(self) -> int:
        """How many releases the plan pays for."""
        ...

    @property
    def delta(self) -> float:
        """At which epsilon is told."""
        ...

    def event(self, step: int) -> Event | None:
        """What step `step` adds, 0 <= step < steps; None where the steps before it have paid for it."""
        ...

    def as_dict(self) -> dict[str, Any]:
        """The fields, JSON-able."""
        ...

    def digest(self) -> str:
        """Of the fields."""
        ...

    @classmethod
    def from_dict(cls, fields: Any) -> Self:
        """The plan of these fields, checked like any other."""
        ...


class WrittenPlan:
    """Frozen records of numbers, words and such records, as JSON."""

    @classmethod
    def from_dict(cls, fields: Any) -> Self:
        """The plan of what `as_dict` gave, checked like any other.

        Raises:
            ArgumentError: unknown or missing fields, or a field that breaks its rule.
        """
        try:
            return cls(**{**fields, **cls.records(fields)})
        except (TypeError, KeyError) as error:
            raise ArgumentError("plan", f"the fields of a {cls.__name__}", fields) from error

    @classmethod
    def records(cls, fields: Any) -> dict[str, Any]:
        """Those of the fields that are records themselves."""
        del fields
        return {}

    def as_dict(self) -> dict[str, Any]:
        """The fields, JSON-able."""
        return asdict(self)  # type: ignore[call-overload]

    def to_json(self) -> str:
        """The fields as one line of JSON, always the same for equal plans."""
        return json.dumps(self.as_dict(), sort_keys=True, allow_nan=False)

    def digest(self) -> str:
        """SHA-256 of `to_json`: two plans are equal exactly if their digests are."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def as_floats(plan: WrittenPlan, *names: str) -> None:
    """Makes these fields of a frozen record floats where they are numbers: 1 and 1.0 are one plan, of one digest."""
    for name in names:
        value = getattr(plan, name)
        object.__setattr__(plan, name, None if value is None else float(value))
