"""Findings and runs, and the results.json that holds them: the only contract with the report and the gate.

A Finding is one measured figure with its interval. Results are the findings of one run, with what is needed to
repeat it. Neither ever holds raw training text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from trustnlp import checks, files
from trustnlp.errors import ArgumentError, GuaranteeError, RunError

SCHEMA = 1
FILE_NAME = "results.json"
_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


class Tone(StrEnum):
    """What a verdict means for a reader in a hurry."""

    GOOD = "good"
    BAD = "bad"
    UNKNOWN = "unknown"
    NEUTRAL = "neutral"


class Verdict(StrEnum):
    """What a finding says, in words; `tone` says whether that is good."""

    MEASURED = "measured"
    LEAKS = "leaks"
    NO_LEAK_FOUND = "no leak found"
    WITHIN_BUDGET = "within budget"
    OVER_BUDGET = "over budget"
    FAIR_WITHIN_MARGIN = "fair within margin"
    DISPARITY = "disparity"
    BIASED_SPLIT = "biased split"
    NO_BIAS_FOUND = "no bias found"
    CONSISTENT = "consistent"
    VIOLATED = "violated"
    UNINFORMATIVE = "uninformative"
    REPRODUCED = "reproduced"
    NOT_REPRODUCED = "not reproduced"
    INSUFFICIENT_EVIDENCE = "insufficient evidence"

    @property
    def tone(self) -> Tone:
        """Good, bad, unknown or neutral."""
        return _TONES[self]


_TONES = {
    Verdict.MEASURED: Tone.NEUTRAL,
    Verdict.LEAKS: Tone.BAD,
    Verdict.NO_LEAK_FOUND: Tone.GOOD,
    Verdict.WITHIN_BUDGET: Tone.GOOD,
    Verdict.OVER_BUDGET: Tone.BAD,
    Verdict.FAIR_WITHIN_MARGIN: Tone.GOOD,
    Verdict.DISPARITY: Tone.BAD,
    Verdict.BIASED_SPLIT: Tone.BAD,
    Verdict.NO_BIAS_FOUND: Tone.GOOD,
    Verdict.CONSISTENT: Tone.GOOD,
    Verdict.VIOLATED: Tone.BAD,
    Verdict.UNINFORMATIVE: Tone.UNKNOWN,
    Verdict.REPRODUCED: Tone.GOOD,
    Verdict.NOT_REPRODUCED: Tone.BAD,
    Verdict.INSUFFICIENT_EVIDENCE: Tone.UNKNOWN,
}


class Direction(StrEnum):
    """Which way a figure gets better."""

    LOWER = "lower is better"
    HIGHER = "higher is better"
    IDEAL = "nearer the ideal is better"
    NONE = "neither way is better"


@dataclass(frozen=True)
class Finding:
    """One measured figure.

    Args:
        id: stable kebab-case name, documented; the same in every regime.
        title: the figure in words.
        value: the estimate, or None where it cannot be measured (the verdict is then insufficient evidence).
        low, high: ends of the interval; None where the figure is exact or cannot be measured.
        level: coverage of the interval, in (0, 1).
        n: how many independent units it rests on.
        unit: `fraction` (shown in percent), `bits`, `nats`, `epsilon`, `examples` or empty.
        direction, ideal: which way is better, and the best value where there is one.
        verdict: what it says.
        regime: which model of the run it is about; empty for the corpus itself.
        source: paper and equation, or the method's name.
        details: whatever else explains the figure (curves, rivals, settings); JSON values, never training text.

    Raises:
        ArgumentError: a field breaks its rule.
        GuaranteeError: a figure is NaN or infinite, or lies outside its interval.
    """

    id: str
    title: str
    value: float | None
    low: float | None = None
    high: float | None = None
    level: float = 0.95
    n: int | None = None
    unit: str = "fraction"
    direction: Direction = Direction.NONE
    ideal: float | None = None
    verdict: Verdict = Verdict.MEASURED
    regime: str = ""
    source: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise ArgumentError("id", "kebab-case", self.id)
        checks.inside("level", self.level, 0, 1)
        for name in ("value", "low", "high", "ideal"):
            figure = getattr(self, name)
            if figure is not None and not math.isfinite(figure):
                raise GuaranteeError(f"finding {self.id!r} has {name} = {figure}", "measure it on finite numbers")
        if self.value is None and self.verdict is not Verdict.INSUFFICIENT_EVIDENCE:
            raise GuaranteeError(f"finding {self.id!r} has no value but the verdict {self.verdict.value!r}")
        if self.value is not None and not self._low <= self.value <= self._high:
            raise GuaranteeError(f"finding {self.id!r}: {self.value} is outside [{self.low}, {self.high}]")

    @property
    def _low(self) -> float:
        return -math.inf if self.low is None else self.low

    @property
    def _high(self) -> float:
        return math.inf if self.high is None else self.high

    def of(self, regime: str) -> Finding:
        """The same finding, said of `regime`."""
        return replace(self, regime=regime)

    def figure(self, value: float | None) -> str:
        """`value` as a reader wants it, in this finding's unit."""
        if value is None:
            return "–"
        if self.unit == "fraction":
            return f"{100 * value:.2f}%" if abs(value) < 0.1 else f"{100 * value:.1f}%"
        digits = 4 if self.unit == "epsilon" else 3
        return f"{value:.{digits}g} {self.unit}".rstrip()

    def interval(self) -> str:
        """The interval in words, or nothing where there is none."""
        if self.low is None and self.high is None:
            return ""
        return f"{self.figure(self.low)} to {self.figure(self.high)}"

    def __str__(self) -> str:
        facts = [self.interval(), f"n={self.n}" if self.n is not None else "", self.verdict.value]
        regime = f" [{self.regime}]" if self.regime else ""
        return f"{self.title}{regime}: {self.figure(self.value)} ({', '.join(filter(None, facts))})"


@dataclass(frozen=True)
class Results:
    """The findings of one run and the record of how they were made.

    Args:
        run: JSON values: command, versions, seed, hashes, hardware, created, seconds, and what the study adds.
        findings: in the order a reader should meet them; (id, regime) is unique.
    """

    run: Mapping[str, Any]
    findings: tuple[Finding, ...]

    def __post_init__(self) -> None:
        keys = [(finding.id, finding.regime) for finding in self.findings]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise ArgumentError("findings", "unique by id and regime", twice)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def get(self, id: str, regime: str = "") -> Finding:
        """The finding of that id and regime.

        Raises:
            RunError: there is none.
        """
        for finding in self.findings:
            if (finding.id, finding.regime) == (id, regime):
                return finding
        raise RunError(f"no finding {id!r} for regime {regime!r}", "see the ids in results.json")

    def save(self, folder: str | Path) -> Path:
        """Writes `folder`/results.json, whole or not at all, and returns its path."""
        path = Path(folder) / FILE_NAME
        record = {"schema": SCHEMA, "run": dict(self.run), "findings": [asdict(f) for f in self.findings]}
        files.write_json(path, record)
        return path

    @classmethod
    def load(cls, folder: str | Path) -> Results:
        """Reads a run folder's results.json (or that file itself).

        Raises:
            RunError: no such file, not JSON, another schema, or a finding that breaks its rules.
        """
        path = Path(folder)
        path = path / FILE_NAME if path.is_dir() else path
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["schema"] != SCHEMA:
                raise RunError(f"{path} has schema {record['schema']!r}, this version reads {SCHEMA}")
            return cls(record["run"], tuple(_finding(entry) for entry in record["findings"]))
        except FileNotFoundError:
            raise RunError(f"there is no {path}", "give a folder that 'trustnlp assess' has written") from None
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path} is not a results file ({error})") from error


def _finding(entry: dict[str, Any]) -> Finding:
    typed = {"verdict": Verdict(entry["verdict"]), "direction": Direction(entry["direction"])}
    return Finding(**{**entry, **typed})
