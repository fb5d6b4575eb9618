"""The ledger: an append-only record of what was released, written before it can be seen.

The file has one JSON value per line: a header with the plan and its digest, then one line per step:

    {"ledger": 2, "digest": "…", "plan": {…}}
    {"step": 0, "block": 0, "sample_rate": 0.02, "noise_multiplier": 1.1}

and, where draws are truncated, `examples` and `largest_batch` besides.
A step is on the disk before its result exists, so a crash can only count too much. A line that a crash has torn
counts as one step of the plan. Whatever else makes the count doubtful is refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trustnlp import files
from trustnlp.dp import accounting
from trustnlp.errors import GuaranteeError, RunError, TrustnlpError

if TYPE_CHECKING:
    from trustnlp.dp.plan import PrivacyPlan

FILE_NAME = "ledger.jsonl"
_VERSION = 2


class Ledger:
    """Steps spent of a plan; `spend` is the only way to get a noise block.

    Make one by `Ledger.open` (new or resumed, in a file), `Ledger.read` (to look at) or `Ledger.in_memory`.

    Args:
        plan: what may be spent.
        events: what has been spent, one event per step.
        path: the file, or None for memory alone.
    """

    def __init__(self, plan: PrivacyPlan, events: Sequence[accounting.Event] = (), path: Path | None = None) -> None:
        self.plan = plan
        self._events = list(events)
        self._path = path
        self._size = path.stat().st_size if path else 0

    @classmethod
    def in_memory(cls, plan: PrivacyPlan) -> Ledger:
        """A ledger that does not survive the process."""
        return cls(plan)

    @classmethod
    def open(cls, path: str | Path, plan: PrivacyPlan) -> Ledger:
        """The ledger at `path`, made anew where there is none.

        Raises:
            GuaranteeError: it belongs to another plan, or lines are missing.
            RunError: it is not a ledger.
        """
        path = Path(path)
        if not path.exists():
            header = {"ledger": _VERSION, "digest": plan.digest(), "plan": plan.as_dict()}
            files.write_text(path, json.dumps(header, allow_nan=False) + "\n")
            _keep_name(path)
        ledger = cls.read(path)
        if ledger.plan != plan:
            raise GuaranteeError(
                f"{path} has {ledger.spent} steps of another plan, and their privacy cannot be spent again",
                "resume with the plan in its first line, or start a run in another folder",
            )
        return ledger

    @classmethod
    def read(cls, path: str | Path) -> Ledger:
        """The ledger at `path`, with the plan that it was made for.

        Raises:
            GuaranteeError: lines are missing, double or out of order.
            RunError: there is no ledger, or its header is damaged.
        """
        path = Path(path)
        if not path.is_file():
            raise RunError(f"there is no ledger {path}", "give the ledger.jsonl of a private run")
        header, *lines = path.read_bytes().removesuffix(b"\n").split(b"\n")
        plan = _plan(path, header)
        return cls(plan, [_event(path, line, step, plan) for step, line in enumerate(lines)], path)

    @property
    def spent(self) -> int:
        """How many steps were released, or may have been."""
        return len(self._events)

    def spent_epsilon(self) -> float:
        """Epsilon at the plan's delta of all that was spent, computed from the lines."""
        return accounting.epsilon(self._events, self.plan.delta)

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


def _line(step: int, event: accounting.Event) -> str:
    fields = asdict(event)
    del fields["count"]
    if not event.largest_batch:
        del fields["examples"], fields["largest_batch"]
    return json.dumps({"step": step, "block": step, **fields}, allow_nan=False)


def _plan(path: Path, header: bytes) -> PrivacyPlan:
    from trustnlp.dp.plan import PrivacyPlan

    try:
        record: dict[str, Any] = json.loads(header)
        plan = PrivacyPlan.from_dict(record["plan"])
        if (record["ledger"], record["digest"]) != (_VERSION, plan.digest()):
            raise ValueError("version or digest do not match")
    except (ValueError, KeyError, TypeError, TrustnlpError) as error:
        raise RunError(f"{path} has no header of a ledger ({error})", "restore the file from a backup") from error
    return plan


def _event(path: Path, line: bytes, step: int, plan: PrivacyPlan) -> accounting.Event:
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
