"""An existing checkpoint, attacked and measured without training: its word against two files of texts.

members file ────┐
non-members file ┴─ membership attacks (`attack_membership`), utility and fairness on the non-members
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trustnlp.data.corpus import Example
from trustnlp.models import LabelModel
from trustnlp.progress import Progress, silent
from trustnlp.results import Finding, Results
from trustnlp.studies import attack_membership, measures
from trustnlp.studies.attack_target import Request

__all__ = ["Request", "run"]


def run(
    request: Request, out: str | Path, *, progress: Progress = silent, overwrite: bool = False, command: str = ""
) -> Results:
    """Attacks and measures the checkpoint; writes results.json into `out` and returns the results.

    Raises:
        ModelError, GuaranteeError, CorpusError, ArgumentError, RunError: see `attack_membership.run`.
    """
    return attack_membership.run(
        request, out, progress=progress, overwrite=overwrite, command=command, also=utility_and_fairness
    )


def utility_and_fairness(model: Any, examples: Sequence[Example]) -> list[Finding]:
    """Utility and fairness on texts that the model was not trained on, where it answers labels or tags."""
    if not isinstance(model, LabelModel):
        return []
    found = measures.answers(model, examples)
    dataset = "non-members"
    return [
        *measures.utility(found, dataset=dataset, users=[example.user for example in examples]),
        *measures.fairness(model, examples, found, dataset=dataset, protected_group="group column"),
    ]
