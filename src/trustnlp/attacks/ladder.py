"""The ladder: what was promised (the accountant's epsilon, above) against what attacks have shown (bounds from below).

    each = uncertainty.bonferroni(0.95, 2)
    bounds = [one_run.from_scores(..., level=each), two_sample.lower_bound(..., level=each)]
    found = finding(upper=8.0, bounds=bounds, delta=1e-6)

A lower bound above the promise means that the promise is broken: by a bug, or by a guarantee for other training than
this. A lower bound below it means something only if the audit could have gone above; that is what the caps are for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trustnlp import checks
from trustnlp.attacks.lower_bound import LowerBound
from trustnlp.errors import GuaranteeError
from trustnlp.results import Direction, Finding, Verdict
from trustnlp.uncertainty import bonferroni


def finding(
    upper: float | None, bounds: Sequence[LowerBound], *, delta: float | None = None, level: float = 0.95
) -> Finding:
    """Finding `epsilon-ladder`: the best lower bound on epsilon, beside the promise; lower is better, ideal 0.

    Verdicts, with a promise: `violated` where a lower bound lies above it (a false alarm in at most 1 - level of
    trainings that keep it); else `consistent` where the audit could have contradicted it, that is, where a cap lies
    above it; else `uninformative`. Without a promise: `leaks` where a lower bound lies above 0, else `uninformative`.

    Args:
        upper: the promised epsilon; None where nothing was promised.
        bounds: at least one; at levels high enough to hold all at once, as above.
        delta: of the promise; by default the bounds' own.
        level: at which the bounds must hold all at once.

    Raises:
        ArgumentError: no bound, or an argument breaks its rule.
        GuaranteeError: bounds at another delta than the promise, or at levels too low to hold all at once.
    """
    checks.not_empty("bounds", bounds)
    checks.inside("level", level, 0, 1)
    if upper is not None:
        checks.non_negative("upper", upper)
    delta = _common_delta(bounds, delta)
    _check_simultaneous(bounds, level)
    best = max(bounds, key=lambda bound: bound.epsilon)
    return Finding(
        "epsilon-ladder",
        "What attacks show of epsilon, against what was promised",
        best.epsilon,
        level=level,
        n=best.n,
        unit="epsilon",
        direction=Direction.LOWER,
        ideal=0.0,
        verdict=_verdict(upper, bounds),
        source="; ".join(dict.fromkeys(bound.source for bound in bounds if bound.source)),
        details=_details(upper, bounds, best, delta),
    )


def _verdict(upper: float | None, bounds: Sequence[LowerBound]) -> Verdict:
    promised = upper or 0.0
    if any(bound.epsilon > promised for bound in bounds):
        return Verdict.LEAKS if upper is None else Verdict.VIOLATED
    could_contradict = upper is not None and any(bound.cap > promised for bound in bounds)
    return Verdict.CONSISTENT if could_contradict else Verdict.UNINFORMATIVE


def _details(upper: float | None, bounds: Sequence[LowerBound], best: LowerBound, delta: float) -> dict[str, Any]:
    details: dict[str, Any] = {
        "resolution_cap": max(bound.cap for bound in bounds),
        "delta": delta,
        "best": best.method,
        "bounds": [_rung(bound) for bound in bounds],
    }
    if upper is not None:
        details["target"] = upper
    if best.assumes:
        details["assumes"] = best.assumes
    return details


def _rung(bound: LowerBound) -> dict[str, Any]:
    names = ("method", "epsilon", "cap", "level", "n", "assumes")
    return {name: getattr(bound, name) for name in names}


def _common_delta(bounds: Sequence[LowerBound], delta: float | None) -> float:
    deltas = sorted({bound.delta for bound in bounds} | ({delta} if delta is not None else set()))
    if len(deltas) > 1:
        raise GuaranteeError(
            f"bounds and promise have different deltas ({', '.join(f'{each:g}' for each in deltas)})",
            "compute every bound at the delta of the promise",
        )
    return deltas[0]


def _check_simultaneous(bounds: Sequence[LowerBound], level: float) -> None:
    error = sum(1 - bound.level for bound in bounds)
    if error > 1 - level + 1e-9:
        raise GuaranteeError(
            f"{len(bounds)} bounds hold all at once only at level {max(0.0, 1 - error):.4g}, not {level:g}",
            f"compute each at level {bonferroni(level, len(bounds)):.6g} (uncertainty.bonferroni)",
        )
