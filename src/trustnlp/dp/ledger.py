"""The ledger: an append-only record of what was released, written before it can be seen.

The file has one JSON value per line: a header with the plan and its digest, then one line per step:

    {"ledger": 2, "kind": "PrivacyPlan", "digest": "…", "plan": {…}}
    {"step": 0, "block": 0, "sample_rate": 0.02, "noise_multiplier": 1.1}

and, where draws are truncated, `examples` and `largest_batch` besides; neither rate nor multiplier where the steps
before have paid for this one. The plan names unit, adjacency and delta. A header without kind is of a PrivacyPlan.
A step is on the disk before its result exists, so a crash can only count too much. A line that a crash has torn
counts as one step of the plan. Whatever else makes the count doubtful is refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trustnlp import files
from trustnlp.dp import accounting
from trustnlp.dp.ledger_plan import LedgerPlan
from trustnlp.dp.plan import PrivacyPlan
from trustnlp.errors import GuaranteeError, RunError, TrustnlpError

FILE_NAME = "ledger.jsonl"
_VERSION = 2


class Ledger:
    """Steps spent of a plan; `spend` is the only way to get a noise block.

    Make one by `Ledger.open` (new or resumed, in a file), `Ledger.read` (to look at) or `Ledger.in_memory`.

    Args:
        plan: what may be spent.
        events: what has been spent, one event per step; None where the steps before have paid for it.
        path: the file, or None for memory alone.
    """

    def __init__(
        self, plan: LedgerPlan, events: Sequence[accounting.Event | None] = (), path: Path | None = None
    ) -> None:
        self.plan: Any = plan
        self._events = list(events)
        self._path = path
        self._size = path.stat().st_size if path else 0

    @classmethod
    def in_memory(cls, plan: LedgerPlan) -> Ledger:
        """A ledger that does not survive the process."""
        return cls(plan)

    @classmethod
    def open(cls, path: str | Path, plan: LedgerPlan) -> Ledger:
        """The ledger at `path`, made anew where there is none.

        Raises:
            GuaranteeError: it belongs to another plan, or lines are missing.
            RunError: it is not a ledger.
        """
        path = Path(path)
        if not path.exists():
            header = {
                "ledger": _VERSION,
                "kind": type(plan).__name__,
                "digest": plan.digest(),
                "plan": plan.as_dict(),
            }
            files.write_text(path, json.dumps(header, allow_nan=False) + "\n")
            _keep_name(path)
        kind = _kind(path)
        ledger = cls.read(path, (type(plan),)) if kind == type(plan).__name__ else None
        if ledger is None or ledger.plan != plan:
            spent = f"steps of a {kind}" if ledger is None else f"{ledger.spent} steps of another plan"
            raise GuaranteeError(
                f"{path} has {spent}, and their privacy cannot be spent again",
                "resume with the plan in its first line, or start a run in another folder",
            )
        return ledger

    @classmethod
    def read(cls, path: str | Path, kinds: Collection[type[LedgerPlan]] = (PrivacyPlan,)) -> Ledger:
        """The ledger at `path`, with the plan that it was made for.

        Args:
            path: of the file.
            kinds: of plans that it may be of; `federated.private_rounds.read_ledger` knows all.

        Raises:
            GuaranteeError: lines are missing, double or out of order.
            RunError: there is no ledger, its header is damaged, or it is of no plan of these kinds.
        """
        path = Path(path)
        header, *lines = _lines(path)
        plan = _plan(path, header, kinds)
        return cls(plan, [_event(path, line, step, plan) for step, line in enumerate(lines)], path)

    @property
    def spent(self) -> int:
        """How many steps were released, or may have been."""
        return len(self._events)

    def spent_epsilon(self) -> float:
        """Epsilon at the plan's delta of all that was spent, computed from the lines."""
        return accounting.epsilon(self.events(), self.plan.delta)

    def events(self) -> tuple[accounting.Event, ...]:
        """What was released, or may have been, for an accountant to add up."""
        return tuple(event for event in self._events if event is not None)

    def spend(self) -> int:
        """Writes the next step down and returns its noise block; on the disk when it returns.

        Raises:
            GuaranteeError: the plan is used up, or somebody else has written to the file.
        """
        step = self.spent
        if step >= self.plan.steps:
            raise GuaranteeError(
                f"all {self.plan.steps} steps of the plan are spent", "make a plan with more steps for the next run"
            )
        event = self.plan.event(step)
        if self._path is not None:
            self._append(self._path, _line(step, event))
        self._events.append(event)
        return step

    def _append(self, path: Path, line: str) -> None:
        if path.stat().st_size != self._size:
            raise GuaranteeError(f"{path} was changed by another process", "let only one process train a run")
        _end_torn_line(path)
        files.append_line(path, line)
        self._size = path.stat().st_size


def _line(step: int, event: accounting.Event | None) -> str:
    fields = {} if event is None else asdict(event)
    fields.pop("count", None)
    if event is not None and not event.largest_batch:
        del fields["examples"], fields["largest_batch"]
    return json.dumps({"step": step, "block": step, **fields}, allow_nan=False)


def _lines(path: Path) -> list[bytes]:
    if not path.is_file():
        raise RunError(f"there is no ledger {path}", "give the ledger.jsonl of a private run")
    return path.read_bytes().removesuffix(b"\n").split(b"\n")


def _kind(path: Path) -> str:
    """The kind of plan that a header names; what is no header is for `_plan` to refuse."""
    try:
        return str(json.loads(_lines(path)[0]).get("kind", PrivacyPlan.__name__))
    except (ValueError, AttributeError) as error:
        raise _damaged(path, error) from error


def _plan(path: Path, header: bytes, kinds: Collection[type[LedgerPlan]]) -> LedgerPlan:
    named, kind = {each.__name__: each for each in kinds}, _kind(path)
    if kind not in named:
        raise RunError(f"{path} is of a {kind}, and not of {' or '.join(named)}", "read it with the plan's own module")
    try:
        record: dict[str, Any] = json.loads(header)
        plan = named[kind].from_dict(record["plan"])
        if (record["ledger"], record["digest"]) != (_VERSION, plan.digest()):
            raise ValueError("version or digest do not match")
    except (ValueError, KeyError, TypeError, TrustnlpError) as error:
        raise _damaged(path, error) from error
    return plan


def _damaged(path: Path, error: Exception) -> RunError:
    return RunError(f"{path} has no header of a ledger ({error})", "restore the file from a backup")


def _event(path: Path, line: bytes, step: int, plan: LedgerPlan) -> accounting.Event | None:
    try:
        record = json.loads(line)
        found = (record.pop("step"), record.pop("block"))
        event = accounting.Event(**record, count=1)
    except (ValueError, KeyError, TypeError, AttributeError):  # torn by a crash: the step may have been released
        return plan.event(step)
    if found != (step, step):
        raise GuaranteeError(
            f"{path}: step and block {found} stand where {(step, step)} should, so steps are missing or double",
            "restore the file from a backup; without it the privacy spent is unknown",
        )
    return event


def _end_torn_line(path: Path) -> None:
    """Ends the last line where a crash has cut it, so that the next line stands alone."""
    with path.open("rb+") as log:
        log.seek(-1, os.SEEK_END)
        if log.read(1) != b"\n":
            log.write(b"\n")


def _keep_name(path: Path) -> None:
    """Flushes the folder, so that the new file's name survives a power cut."""
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
