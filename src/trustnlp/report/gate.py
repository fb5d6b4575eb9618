"""A release gate: the findings of a run held against a policy of ceilings and floors.

A limit is kept when the end of the interval that is against the user keeps it: the high end for a ceiling, the low
end for a floor. A limit is broken when the whole interval lies beyond it. In between the evidence is insufficient,
which is a state of its own. A rule that no finding answers counts as broken, so that a renamed finding or a
skipped measurement never opens the gate.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from trustnlp.errors import PolicyError
from trustnlp.results import Finding, Results, Verdict

_EXAMPLE = 'a policy is TOML such as: [[rule]] finding = "epsilon" ceiling = 8.0'


class State(StrEnum):
    """What became of a rule."""

    PASSED = "passed"
    BROKEN = "broken"
    MISSING = "missing"
    INSUFFICIENT = "insufficient evidence"


class Rule(BaseModel):
    """One `[[rule]]` of a policy file.

    Args:
        finding: id of the findings it is about, or a glob such as `membership-*-auc`.
        regime: the regimes it is about, a glob; every regime by default.
        ceiling, floor: limits in the finding's unit (a fraction's limits are fractions: 0.05 is 5%); at least one.
        on: the figure that must keep the limits, instead of the end of the interval that is against the user.
        why: the reason, shown beside a broken rule.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    finding: str = Field(min_length=1)
    regime: str = "*"
    ceiling: FiniteFloat | None = None
    floor: FiniteFloat | None = None
    on: Literal["high", "low", "value"] | None = None
    why: str = ""

    @model_validator(mode="after")
    def _limited(self) -> Self:
        if self.ceiling is None and self.floor is None:
            raise ValueError("a rule needs a ceiling, a floor or both")
        if self.ceiling is not None and self.floor is not None and self.floor > self.ceiling:
            raise ValueError("floor must not lie above ceiling")
        return self

    def matches(self, finding: Finding) -> bool:
        """Whether this rule is about `finding`."""
        return fnmatchcase(finding.id, self.finding) and fnmatchcase(finding.regime, self.regime)


class Policy(BaseModel):
    """A policy file: its rules, and whether insufficient evidence lets a build through.

    Args:
        insufficient: `fail` (exit status 3, the default) or `pass`.
        rule: the rules, at least one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    insufficient: Literal["fail", "pass"] = "fail"
    rule: list[Rule] = Field(min_length=1)

    @classmethod
    def load(cls, path: str | Path) -> Policy:
        """Reads a TOML policy file.

        Raises:
            PolicyError: no such file, not TOML, or a key or value that breaks its rule (with its line).
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
            return cls.model_validate(tomllib.loads(text))
        except ValidationError as error:
            raise PolicyError(_complaint(path, text, error), _EXAMPLE) from None
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise PolicyError(f"cannot read the policy {path} ({error})", _EXAMPLE) from None


def _complaint(path: str | Path, text: str, error: ValidationError) -> str:
    """The first complaint of pydantic as `path:line: key: what is wrong, got value`."""
    first = error.errors()[0]
    where = first["loc"]
    name = ".".join(str(part) for part in where) or "policy"
    line = _line(text, where)
    reason = (
        "is no key of a policy" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
    )
    got = "" if first["type"] in {"missing", "value_error"} else f", got {first['input']!r}"
    return f"{path}{f':{line}' if line else ''}: {name}: {reason}{got}"


def _line(text: str, where: tuple[int | str, ...]) -> int | None:
    """The 1-based line of a key, or of its rule's header; None where it is not written."""
    index = where[1] if len(where) > 1 and isinstance(where[1], int) else -1
    rule, header = -1, None
    for number, line in enumerate(text.splitlines(), start=1):
        if re.match(r"\s*\[\[\s*rule\s*\]\]", line):
            rule += 1
            header = number if rule == index else header
        elif rule == index and where and re.match(rf"""\s*['"]?{re.escape(str(where[-1]))}['"]?\s*=""", line):
            return number
    return header


@dataclass(frozen=True)
class Row:
    """One rule held against one finding; `finding` is None where none matched."""

    rule: Rule
    finding: Finding | None
    state: State

    def limit(self) -> str:
        """The limits in words, in the finding's unit."""
        limits = {"≤": self.rule.ceiling, "≥": self.rule.floor}
        shown = self.finding.figure if self.finding else "{:g}".format
        return " and ".join(f"{sign} {shown(limit)}" for sign, limit in limits.items() if limit is not None)

    def record(self) -> dict[str, object]:
        """The row as JSON values."""
        finding = self.finding
        measured = {name: getattr(finding, name) for name in ("value", "low", "high", "n")} if finding else {}
        return {
            "rule": self.rule.model_dump(exclude_none=True),
            "finding": finding.id if finding else None,
            "regime": finding.regime if finding else None,
            **measured,
            "state": self.state.value,
        }


@dataclass(frozen=True)
class GateReport:
    """What became of every rule, and the exit status that a build should see."""

    rows: tuple[Row, ...]
    insufficient: Literal["fail", "pass"]

    def count(self, *states: State) -> int:
        """How many rows are in one of `states`."""
        return sum(row.state in states for row in self.rows)

    @property
    def status(self) -> int:
        """0 all passed; 1 a rule is broken or unanswered; 3 nothing is broken, but the evidence is insufficient."""
        if self.count(State.BROKEN, State.MISSING):
            return 1
        return 3 if self.insufficient == "fail" and self.count(State.INSUFFICIENT) else 0

    def conclusion(self) -> str:
        """One line: open or closed, and the count of each state."""
        counts = ", ".join(f"{self.count(state)} {state.value}" for state in State if self.count(state))
        return f"gate {'closed' if self.status else 'open'}: {counts}"


def gate(results: Results, policy: Policy) -> GateReport:
    """Every rule of `policy` held against every finding of `results` that it is about.

    Raises:
        PolicyError: a limit on a fraction lies outside [-1, 1], so that the rule could never be broken (or kept).
    """
    rows = tuple(row for rule in policy.rule for row in _rows(rule, results))
    return GateReport(rows, policy.insufficient)


def _rows(rule: Rule, results: Results) -> Iterator[Row]:
    matched = [finding for finding in results if rule.matches(finding)]
    if not matched:
        yield Row(rule, None, State.MISSING)
    for finding in matched:
        yield Row(rule, finding, _state(rule, finding))


def _state(rule: Rule, finding: Finding) -> State:
    if finding.value is None or finding.verdict is Verdict.INSUFFICIENT_EVIDENCE:
        return State.INSUFFICIENT
    if finding.low is None and finding.high is None:
        low = high = finding.value
    else:  # an end that is not known could be anywhere
        low = -math.inf if finding.low is None else finding.low
        high = math.inf if finding.high is None else finding.high
    figures = {"low": low, "value": finding.value, "high": high}
    states = []
    if rule.ceiling is not None:
        _check_unit("ceiling", rule.ceiling, finding)
        states.append(_side(figures[rule.on or "high"] <= rule.ceiling, low > rule.ceiling))
    if rule.floor is not None:
        _check_unit("floor", rule.floor, finding)
        states.append(_side(figures[rule.on or "low"] >= rule.floor, high < rule.floor))
    return next(state for state in (State.BROKEN, State.INSUFFICIENT, State.PASSED) if state in states)


def _side(kept: bool, beyond: bool) -> State:
    if kept:
        return State.PASSED
    return State.BROKEN if beyond else State.INSUFFICIENT


def _check_unit(name: str, limit: float, finding: Finding) -> None:
    if finding.unit == "fraction" and not -1 <= limit <= 1:
        raise PolicyError(f"{name} = {limit:g} for {finding.id!r}, which is a fraction", "write 0.05 for 5%")
