"""Per-example risk: which texts a membership attack gives away, by label, length, activity of the user, and group.

An average hides those who leak most. Texts are put into groups, and a group's risk is the **membership advantage** in
it at one threshold for all:

    risk = share of its members that the attack names - share of its non-members that it names

where a text is named if its score reaches the threshold that at most floor(fpr * n) of a model's n non-members reach.
Lower is better, ideal 0: texts that merely look like members to every model are named on both sides, and cancel.

Scores come from one model that was trained on some of the texts, or from several (each shadow model in turn as the
target, with LiRA's log ratios for scores), which makes every text a member of some and a non-member of others.

Source: the advantage: Yeom et al. 2018, arXiv:1709.01604; by group: Kulynych et al. 2022, "Disparate Vulnerability to
Membership Inference Attacks", arXiv:1906.00389; at a low FPR: Carlini et al. 2022, arXiv:2112.03570.

What is kept of a single text is its scores, beside a **keyed hash** (HMAC-SHA256). A hash without a key would protect
nothing: whoever thinks that somebody wrote "call my mother" hashes this, and all other short texts there are, and
compares. With a key that is not in the file such a guess cannot be tried.

Shape legend: T models, N texts.
"""

from __future__ import annotations

import hmac
import json
import math
import os
import secrets
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trustnlp import checks, files
from trustnlp.attacks.membership import Margins
from trustnlp.data.corpus import Example
from trustnlp.data.membership_split import normalise
from trustnlp.errors import ArgumentError, GuaranteeError, RunError
from trustnlp.results import Direction, Finding, Verdict
from trustnlp.uncertainty import Interval, bonferroni, difference, effective_units, ratio

SOURCE = "membership advantage (Yeom et al. 2018, arXiv:1709.01604) within groups (Kulynych et al., arXiv:1906.00389)"
FILE_NAME, KEY_NAME = "risk.json", "risk.key"
# Below these a group is not judged: its interval would be too wide to say anything.
FEWEST_TEXTS, FEWEST_USERS = 30, 5
_ENOUGH = f"{FEWEST_TEXTS} members and as many non-members, that weigh as much as {FEWEST_USERS} users"
_NAMED = 5  # groups, of those that are too small to judge
_KEY_BYTES = 32
Array = NDArray[Any]


# --- groups of texts -------------------------------------------------------------------------------------------


def by_label(examples: Sequence[Example]) -> list[str | None]:
    """Each text's label."""
    return [example.label for example in examples]


def by_length(examples: Sequence[Example]) -> list[str | None]:
    """Each text's quarter of the pool by number of words, such as `5 to 7 words`."""
    return _quarters([len(example.tokens) for example in examples], "words")


def by_activity(examples: Sequence[Example]) -> list[str | None]:
    """Each text's quarter of the pool by how many texts of the pool its user wrote; None where the user is unknown."""
    written = Counter(example.user for example in examples)
    return _quarters([None if example.user is None else written[example.user] for example in examples], "texts a user")


def by_group(examples: Sequence[Example]) -> list[str | None]:
    """Each text's group."""
    return [example.group for example in examples]


AXES: Mapping[str, Callable[[Sequence[Example]], list[str | None]]] = {
    "label": by_label,
    "length": by_length,
    "activity": by_activity,
    "group": by_group,
}


def _quarters(values: Sequence[int | None], unit: str) -> list[str | None]:
    known = np.array([value for value in values if value is not None])
    if known.size == 0:
        return [None] * len(values)
    edges = np.unique(np.quantile(known, [0.25, 0.5, 0.75], method="inverted_cdf"))
    quarters = np.searchsorted(edges, known)  # those up to an edge, that included, are below it
    ends = {quarter: (known[quarters == quarter].min(), known[quarters == quarter].max()) for quarter in quarters}
    names = {
        quarter: f"{low} {unit}" if low == high else f"{low} to {high} {unit}" for quarter, (low, high) in ends.items()
    }
    return [None if value is None else names[np.searchsorted(edges, value)] for value in values]


# --- findings --------------------------------------------------------------------------------------------------


def evaluate(
    scores: ArrayLike,
    inside: ArrayLike,
    examples: Sequence[Example],
    *,
    attack: str,
    fpr: float = 0.01,
    level: float = 0.95,
    margins: Margins | None = None,
) -> tuple[Finding, ...]:
    """Findings `risk-by-label`, `-length`, `-activity` and `-group`: the risk of the most exposed group of each kind.

    Lower is better, ideal 0. The intervals of all groups of a kind hold at once (Bonferroni), so that the largest risk
    lies between the largest lower and the largest upper end with probability `level`; the value itself, as every
    maximum of estimates, is biased upwards. Verdicts: `leaks` where the interval is above 0; `no leak found` where it
    is below the margin and no group is too small to be judged; `insufficient evidence` otherwise.

    Args:
        scores: (N,) of one model or (T, N) of several, higher = more member-like.
        inside: of the same shape, whether the model was trained on the text.
        examples: the N texts; a kind of group that none of them has is left out.
        attack: what made the scores, for the record.
        fpr: which share of a model's non-members the threshold lets be named, in (0, 1).
        level: of the intervals.
        margins: risk up to (tpr_ratio - 1) * fpr counts as no leak.

    Returns:
        `details["groups"]` has n, both shares, risk and interval of each group, the most exposed first;
        `details["not_compared"]` those too small. Units of the intervals are users, where they are known.

    Raises:
        ArgumentError: shapes that differ, a model without members or without non-members, or another argument breaks
            its rule.
        GuaranteeError: a score is NaN or infinite.
    """
    checks.inside("level", level, 0, 1)
    margin = ((margins or Margins()).tpr_ratio - 1) * fpr
    table, members = _tables(scores, inside)
    if len(examples) != table.shape[1]:
        raise ArgumentError("examples", f"one for each of {table.shape[1]} scores", len(examples))
    hits = named(table, members, fpr)
    counts = np.stack([hits & members, members, hits & ~members, ~members]).sum(1)
    units = [("text", i) if example.user is None else ("user", example.user) for i, example in enumerate(examples)]
    about = {"attack": attack, "fpr": fpr, "margin": margin, "models": len(table)}
    if math.floor(fpr * (~members).sum(1).min() + 1e-9) == 0:
        about["reason"] = f"a model's non-members cannot resolve an FPR of {fpr:g}: give at least {math.ceil(1 / fpr)}"
    kinds = {kind: groups(examples) for kind, groups in AXES.items()}
    return tuple(
        _finding(kind, _groups(groups, counts, units), level, {**about, "unknown": groups.count(None)})
        for kind, groups in kinds.items()
        if any(groups)
    )


def named(scores: ArrayLike, inside: ArrayLike, fpr: float) -> NDArray[np.bool_]:
    """(T, N) which texts are named: at or above the lowest non-member that at most floor(fpr * n) of n reach.

    A threshold at a non-member, not below it, keeps members from an advantage that none of them earned: where scores
    tell nothing, k named of n non-members come with k / (n + 1) of the members.

    Raises:
        ArgumentError: shapes that differ, a model without members or without non-members, fpr outside (0, 1).
        GuaranteeError: a score is NaN or infinite.
    """
    checks.inside("fpr", fpr, 0, 1)
    table, members = _tables(scores, inside)
    thresholds = [_threshold(row[~mine], fpr) for row, mine in zip(table, members, strict=True)]
    return table >= np.array(thresholds)[:, None]


def _threshold(outside: Array, fpr: float) -> float:
    most = math.floor(fpr * len(outside) + 1e-9)
    return float(outside[outside > np.sort(outside)[::-1][most]].min(initial=np.inf))


def _tables(scores: ArrayLike, inside: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    table, members = np.atleast_2d(np.asarray(scores, dtype=float)), np.atleast_2d(np.asarray(inside))
    if table.ndim != 2 or members.dtype != np.bool_ or members.shape != table.shape:
        raise ArgumentError(
            "inside", f"true or false for each of {table.shape} scores", f"{members.dtype} {members.shape}"
        )
    if not (members.any(1) & ~members.all(1)).all():
        raise ArgumentError("inside", "with members and non-members of every model", "a model without one of them")
    if bad := int((~np.isfinite(table)).sum()):
        raise GuaranteeError(f"{bad} of {table.size} scores are NaN or infinite", "leave these texts out")
    return table, members


@dataclass(frozen=True, eq=False)
class _Group:
    """A group's texts: how often each was named by models trained on it, by how many such; the same of the others."""

    name: str
    counts: Array  # (4, n)
    units: Sequence[Hashable]

    @property
    def n(self) -> int:
        return len(self.units)

    @property
    def enough(self) -> bool:
        return all(
            (seen > 0).sum() >= FEWEST_TEXTS and _effective(seen, self.units) >= FEWEST_USERS
            for seen in self.counts[1::2]
        )

    @property
    def shares(self) -> tuple[float, float]:
        inside_named, inside, outside_named, outside = self.counts.sum(1)
        return float(inside_named / inside), float(outside_named / outside)

    @property
    def risk(self) -> float:
        return self.shares[0] - self.shares[1]

    def interval(self, level: float) -> Interval:
        inside_named, inside, outside_named, outside = self.counts
        of_members = ratio(inside_named, inside, level, self.units)
        of_others = ratio(outside_named, outside, level, self.units)
        return difference(self.shares[0], of_members, self.shares[1], of_others)


def _groups(names: Sequence[str | None], counts: Array, units: Sequence[Hashable]) -> list[_Group]:
    found = []
    for name in sorted({name for name in names if name is not None}):
        rows = [i for i, each in enumerate(names) if each == name]
        found.append(_Group(name, counts[:, rows], [units[i] for i in rows]))
    return found


def _effective(sizes: Array, units: Sequence[Hashable]) -> float:
    weights: dict[Hashable, float] = {}
    for unit, size in zip(units, sizes, strict=True):
        weights[unit] = weights.get(unit, 0.0) + float(size)
    return effective_units(list(weights.values()))


def _finding(kind: str, groups: Sequence[_Group], level: float, about: Mapping[str, Any]) -> Finding:
    judged = [group for group in groups if group.enough]
    small = [group for group in groups if not group.enough]
    details: dict[str, Any] = {
        **about,
        "not_compared": [{"group": group.name, "n": group.n} for group in small],
        "notes": [_too_small(kind, small)] if small else [],
    }
    entry: dict[str, Any] = {
        "id": f"risk-by-{kind}",
        "title": f"Membership risk of the most exposed texts by {kind}",
        "level": level,
        "n": len({unit for group in judged for unit in group.units}),
        "direction": Direction.LOWER,
        "ideal": 0.0,
        "source": SOURCE,
    }
    if not judged or "reason" in about:
        details.setdefault("reason", f"no group has {_ENOUGH}")
        return Finding(value=None, verdict=Verdict.INSUFFICIENT_EVIDENCE, details=details, **entry)
    each = bonferroni(level, len(judged))
    intervals = {group.name: group.interval(each) for group in judged}
    judged.sort(key=lambda group: -group.risk)
    low, high = (max(getattr(found, end) for found in intervals.values()) for end in ("low", "high"))
    return Finding(
        value=judged[0].risk,
        low=low,
        high=high,
        verdict=_verdict(low, high, about["margin"], bool(small)),
        details={"groups": [_record(group, intervals[group.name]) for group in judged], **details},
        **entry,
    )


def _too_small(kind: str, small: Sequence[_Group]) -> str:
    named = ", ".join(f"{group.name!r} (n={group.n})" for group in small[:_NAMED])
    more = f" and {len(small) - _NAMED} more" if len(small) > _NAMED else ""
    return f"risk by {kind}: insufficient evidence for {named}{more}"


def _record(group: _Group, found: Interval) -> dict[str, Any]:
    inside, outside = group.shares
    shares = {"members_named": inside, "nonmembers_named": outside}
    return {"group": group.name, "n": group.n, "risk": group.risk, "low": found.low, "high": found.high, **shares}


def _verdict(low: float, high: float, margin: float, unjudged: bool) -> Verdict:
    if low > 0:
        return Verdict.LEAKS
    return Verdict.NO_LEAK_FOUND if high < margin and not unjudged else Verdict.INSUFFICIENT_EVIDENCE


# --- single texts ----------------------------------------------------------------------------------------------


def fingerprint(text: str, key: bytes) -> str:
    """The keyed hash of a text, case and white space aside: HMAC-SHA256 in hexadecimal (RFC 2104).

    Raises:
        ArgumentError: a key of less than 32 bytes.
    """
    checks.at_least("key", len(key), _KEY_BYTES, "draw it by secrets.token_bytes(32)")
    return hmac.new(key, normalise(text).encode(), "sha256").hexdigest()


def save(folder: str | Path, scores: ArrayLike, inside: ArrayLike, examples: Sequence[Example]) -> Path:
    """Writes what each text scored into `folder`/risk.json, by its keyed hash, and returns that path.

    A text has its mean score over the models that were trained on it and over the others (None where there are none):
    the wider apart, the more it gives away. Rows stand in the order of the hashes, so their places tell nothing.

    The key is in `risk.key` beside it, readable by its owner alone, drawn at random and never from a seed; a folder
    that has one keeps it. Who holds the key can ask for the score of a text (`look_up`); without it the rows tell of
    nobody. So hand on risk.json alone, and delete the key when nobody needs to ask any more.

    Raises:
        ArgumentError, GuaranteeError: as for `evaluate`.
        RunError: the folder's key is damaged.
    """
    table, members = _tables(scores, inside)
    if len(examples) != table.shape[1]:
        raise ArgumentError("examples", f"one for each of {table.shape[1]} scores", len(examples))
    key = _key(Path(folder))
    rows = [
        {"hash": fingerprint(example.text, key), "inside": _mean(row[mine]), "outside": _mean(row[~mine])}
        for example, row, mine in zip(examples, table.T, members.T, strict=True)
    ]
    path = Path(folder) / FILE_NAME
    files.write_json(path, {"hash": "HMAC-SHA256", "texts": sorted(rows, key=lambda row: str(row["hash"]))})
    return path


def look_up(folder: str | Path, texts: Sequence[str]) -> list[tuple[dict[str, float | None], ...]]:
    """For each text, the scores `inside` and `outside` of its rows in `folder`/risk.json; none where it is not there.

    Raises:
        RunError: the scores or their key are missing or damaged.
    """
    path = Path(folder) / FILE_NAME
    key_path = Path(folder) / KEY_NAME
    if not key_path.exists():
        raise RunError(f"there is no {key_path}, so nobody can tell whose scores these are", "keep the key to ask")
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["texts"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} cannot be read ({error})", "measure the risk again") from error
    key = _key(Path(folder))
    found: dict[str, list[dict[str, float | None]]] = {}
    for row in rows:
        found.setdefault(row["hash"], []).append({"inside": row["inside"], "outside": row["outside"]})
    return [tuple(found.get(fingerprint(text, key), ())) for text in texts]


def _mean(scores: Array) -> float | None:
    return float(scores.mean()) if scores.size else None


def _key(folder: Path) -> bytes:
    """The folder's key, drawn where it has none."""
    path = folder / KEY_NAME
    folder.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return _held_key(path)
    with os.fdopen(handle, "w", encoding="ascii") as out:
        key = secrets.token_bytes(_KEY_BYTES)
        out.write(key.hex())
    return key


def _held_key(path: Path) -> bytes:
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read as a key ({error})", "delete it and risk.json") from error
    if len(key) != _KEY_BYTES:
        raise RunError(f"{path} is no whole key", "delete it and risk.json, and measure the risk again")
    return key
