"""Progress in a terminal: one bar a stage, its newest figures, and the estimated time left."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

SHOWN = ("loss", "accuracy", "slot_f1", "tag_accuracy")


class LiveProgress:
    """A `trustnlp.progress.Progress` that draws bars on a terminal, and one line a stage elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tasks: dict[str, TaskID] = {}
        self._unsaid = ""
        self._bars = Progress(
            TextColumn("  {task.description:<24}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> LiveProgress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        self._say()

    def __call__(self, stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        """Moves the bar of `stage`, making it where there is none."""
        shown = "  ".join(f"{name} {figures[name]:.3f}" for name in SHOWN if name in figures)
        if stage not in self._tasks:
            self._say()
            self._tasks[stage] = self._bars.add_task(stage, total=total, figures=shown)
        self._bars.update(self._tasks[stage], completed=done, total=total, figures=shown)
        self._unsaid = f"  {stage:<24} {done}/{total}  {shown}".rstrip()
        if done == total:
            self._say()

    def _say(self) -> None:
        """The newest stage's line, once and only where there are no bars; a stage may stop before its total."""
        if self._unsaid and not self._console.is_terminal:
            self._console.print(self._unsaid, highlight=False, markup=False, soft_wrap=True)
        self._unsaid = ""
