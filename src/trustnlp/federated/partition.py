"""How a corpus is spread over devices: one function a method, all of them for every task.

    what differs from device to device      method
    nothing                                 iid
    the mix of labels, or of any key        by_label
    what the texts are about                by_cluster
    how many texts                          by_quantity (drawn), activity (Zipf)
    who wrote them                          by_user
    when they were written                  by_time

Shape legend: N examples, K devices, L labels. All methods are simulations on a server that sees the corpus; on real
devices the partition is given by where the texts are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from trustnlp import checks
from trustnlp.data import bio
from trustnlp.data.corpus import Example
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.federated import partition_dirichlet
from trustnlp.federated.feature_clusters import VECTORS, k_means
from trustnlp.federated.partition_spec import Spec, parse

Indices = NDArray[np.int64]
Key = TypeVar("Key", bound=Hashable)
FROM_FILE = "file"
NO_ENTITY = "O"


@dataclass(frozen=True, eq=False)
class Partition:
    """Which examples of a split lie on which device.

    Args:
        method: how it was made: `iid`, `label`, `cluster`, `quantity`, `activity`, `user`, `time` or `file`.
        devices: of each device the indices of its examples, ascending. Over all devices every index from 0 on occurs
            exactly once. Only in a partition `file` may a device be empty.
        details: the method's parameters and what else a report should say; JSON values, no texts, no names of users.

    Raises:
        ArgumentError: no device, or indices that are no ascending whole numbers.
        GuaranteeError: an index lies on two devices or on none, or a device is empty: figures by device, and the
            protection of a device's user, would be wrong.
    """

    method: str
    devices: tuple[Indices, ...]
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checks.not_empty("devices", self.devices)
        for number, own in enumerate(self.devices):
            _check_device(number, own, may_be_empty=self.method == FROM_FILE)
        _check_cover(np.concatenate(self.devices))
        object.__setattr__(self, "devices", tuple(own.copy() for own in self.devices))
        for own in self.devices:
            own.flags.writeable = False

    def __len__(self) -> int:
        """K."""
        return len(self.devices)

    @property
    def sizes(self) -> Indices:
        """(K,) how many examples each device has: its activity."""
        return np.array([len(own) for own in self.devices], dtype=np.int64)

    @property
    def examples(self) -> int:
        """N."""
        return int(self.sizes.sum())

    @property
    def device_of(self) -> Indices:
        """(N,) the device of each example."""
        found = np.empty(self.examples, dtype=np.int64)
        found[np.concatenate(self.devices)] = np.repeat(np.arange(len(self)), self.sizes)
        return found

    def __str__(self) -> str:
        parameters = ", ".join(f"{name} {value:g}" for name, value in self.details.items() if _is_number(value))
        sizes = self.sizes
        spread = f"{sizes.min():,} to {sizes.max():,} each, median {np.median(sizes):,.0f}"
        spread = spread if np.ptp(sizes) else f"{sizes[0]:,} each"
        method = f"{self.method} ({parameters})" if parameters else self.method
        return f"{method}: {self.examples:,} texts on {len(self):,} devices, {spread}"


def iid(examples: int, devices: int, generator: np.random.Generator) -> Partition:
    """Every device holds a random sample, all of one size up to 1.

    Args:
        examples: N.
        devices: K, 1 to N.
        generator: drawn from.

    Raises:
        ArgumentError: more devices than examples.
    """
    _check_devices(devices, examples)
    return _shuffled("iid", _even(examples, devices), {}, generator)


def by_label(
    labels: Sequence[Hashable],
    devices: int,
    alpha: float,
    generator: np.random.Generator,
    *,
    method: str = "label",
) -> Partition:
    """Devices of one size (up to 1) whose mixes of labels are drawn from Dir(alpha * prior); the prior is that of all.

    Args:
        labels: (N,) the label of each text, or any other key that is to be skewed: `label_of` for tagging, a genre, a
            cluster. Where texts have no labels (span QA, sequence to sequence, language), FedNLP and we use clusters.
        devices: K, 1 to N.
        alpha: in (0, inf): towards 0 a device has one label as far as the labels go round, towards infinity the prior.
        generator: drawn from.
        method: what the partition is called.

    Raises:
        ArgumentError: more devices than texts, alpha not above 0, a text without label.

    Source: Lin et al. 2022, FedNLP, arXiv:2104.08815, section 3.2; labels that run out: see `allocate`.
    """
    _check_devices(devices, len(labels))
    codes, names = numbered(labels)
    supply = np.bincount(codes, minlength=len(names))
    given = partition_dirichlet.allocate(supply, _even(len(labels), devices), alpha, generator)
    device_of = np.empty(len(labels), dtype=np.int64)
    for code in range(len(names)):
        device_of[generator.permutation(np.flatnonzero(codes == code))] = np.repeat(np.arange(devices), given[:, code])
    return _of(method, device_of, devices, {"alpha": alpha, f"{method}s": len(names)})


def by_cluster(
    vectors: NDArray[Any], devices: int, alpha: float, clusters: int, generator: np.random.Generator
) -> Partition:
    """Devices of one size (up to 1) that differ in what their texts are about: `by_label` on clusters of vectors.

    Args:
        vectors: (N, D) of the texts in the order of the split, from `feature_clusters`.
        devices: K, 1 to N.
        alpha: see `by_label`.
        clusters: of the k-means, at least 1 and at most the different vectors.
        generator: drawn from.

    Raises:
        ArgumentError: as `by_label`; more clusters than different vectors.

    Source: Lin et al. 2022, FedNLP, arXiv:2104.08815, section 3.2.
    """
    found = k_means(vectors, clusters, generator)
    return by_label(found.tolist(), devices, alpha, generator, method="cluster")


def by_quantity(examples: int, devices: int, beta: float, generator: np.random.Generator, least: int = 1) -> Partition:
    """Random samples whose sizes are drawn: `least` for every device, and of the rest shares from Dir(beta).

    FedNLP draws all sizes until none is 0, which for a small beta never happens; reserving `least` always ends.

    Args:
        examples: N.
        devices: K, with K * least at most N.
        beta: in (0, inf): towards 0 one device has nearly all, towards infinity all have the same.
        generator: drawn from.
        least: examples that every device has, at least 1.

    Raises:
        ArgumentError: beta not above 0, or fewer examples than `least` for each device.

    Source: Lin et al. 2022, FedNLP, arXiv:2104.08815, section 3.2.
    """
    _check_devices(devices, examples, least)
    sizes = partition_dirichlet.dirichlet_sizes(examples, devices, beta, least, generator)
    return _shuffled("quantity", sizes, {"beta": beta, "least": least}, generator)


def activity(examples: int, devices: int, exponent: float, generator: np.random.Generator) -> Partition:
    """Random samples as active as people are: Zipf's law, device r having a share in proportion to (r + 1)^-exponent.

    For corpora that do not name users. Unlike `by_quantity` the sizes are fixed, ordered (device 0 is the most active)
    and have the long tail of real users. Every device has at least one example.

    Args:
        examples: N.
        devices: K, 1 to N.
        exponent: >= 0; 0 is one size for all, about 1 is what is found among people.
        generator: drawn from.

    Raises:
        ArgumentError: more devices than examples, or a negative exponent.
    """
    _check_devices(devices, examples)
    checks.non_negative("exponent", exponent)
    logs = -exponent * np.log(np.arange(1, devices + 1))
    shares = np.exp(logs - logs.max())
    sizes = 1 + partition_dirichlet.apportion(shares / shares.sum(), examples - devices)
    return _shuffled("activity", sizes, {"exponent": exponent}, generator)


def by_user(users: Sequence[Hashable]) -> Partition:
    """One device a user, in the order in which they first appear.

    A text without user is refused: a device of its own would say that nobody else wrote it, one device for all of them
    that one person wrote them all, and either makes a promise to users wrong.

    Args:
        users: (N,) whose each text is.

    Raises:
        ArgumentError: no text, or a text without user.
    """
    codes, names = numbered(users, "users", "leave such texts out, or spread them by another method")
    return _of("user", codes, len(names), {})


def by_time(times: Sequence[float | None], devices: int) -> Partition:
    """Consecutive periods of about as many texts each; texts of one time stay together.

    Args:
        times: (N,) when each text was written, finite.
        devices: how many periods K, at most as many as there are different times.

    Raises:
        ArgumentError: a text without time, or fewer different times than periods.
    """
    moments, inverse = np.unique(_times(times), return_inverse=True)
    rule = f"at most the {len(moments)} different times"
    checks.at_least("devices", devices, 1)
    if devices > len(moments):
        raise ArgumentError("devices", rule, devices, "ask for fewer periods")
    first = _first_moments(np.bincount(inverse), devices)
    period = np.searchsorted(first, np.arange(len(moments)), side="right") - 1
    return _of("time", period[inverse], devices, {"periods": devices})


def label_of(example: Example) -> str | None:
    """What a text is skewed by: its label, or for tagging the type of most of its spans (of most words, where tags are
    parts of speech and not BIO).

    Ties go to the type that comes first in the alphabet; a tagged text without a span is `O`; a text with neither
    label nor tags has none.
    """
    if example.label is not None or example.tags is None:
        return example.label
    begun = (tag.removeprefix("B-") for tag in example.tags if tag.startswith("B-") or not bio.is_tag(tag))
    types = Counter(begun)
    return min(types, key=lambda name: (-types[name], name), default=NO_ENTITY)


def of_corpus(
    spec: str | Spec,
    examples: Sequence[Example],
    devices: int | None,
    generator: np.random.Generator,
    key: Callable[[Example], Hashable] | None = None,
) -> Partition:
    """The partition of a split that the command line's grammar names, such as `label:alpha=0.5`.

    Args:
        spec: see `partition_spec.parse`.
        examples: a split of a corpus of any task, in its order.
        devices: K; None for `user` and `time`, which know it themselves.
        generator: drawn from.
        key: what `label` skews by; `label_of` without it.

    Raises:
        ArgumentError: the spec breaks its grammar, its method's rules, or contradicts `devices`.
    """
    spec = parse(spec) if isinstance(spec, str) else spec
    if spec.method == "user":
        return _agreeing(by_user([example.user for example in examples]), devices)
    if spec.method == "time":
        return _agreeing(by_time([example.time for example in examples], spec["periods"]), devices)
    n, k = len(examples), _asked(spec, devices)
    match spec.method:
        case "iid":
            return iid(n, k, generator)
        case "quantity":
            return by_quantity(n, k, spec["beta"], generator, spec["least"])
        case "activity":
            return activity(n, k, spec["exponent"], generator)
        case "label":
            return by_label(_labels(examples, key), k, spec["alpha"], generator)
        case _:
            vectors = VECTORS[spec["vectors"]]([example.text for example in examples], generator)
            return by_cluster(vectors, k, spec["alpha"], spec["clusters"], generator)


def numbered(keys: Sequence[Key], name: str = "labels", mend: str = "") -> tuple[Indices, tuple[Key, ...]]:
    """(N,) keys as numbers in the order of first appearance, and the keys by number.

    Raises:
        ArgumentError: there is no key, or one is None.
    """
    checks.not_empty(name, keys)
    numbers: dict[Key, int] = {}
    codes = np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)
    if None in numbers:
        without = sum(key is None for key in keys)
        raise ArgumentError(name, "known for every text", f"{without:,} texts without", mend)
    return codes, tuple(numbers)


def _asked(spec: Spec, devices: int | None) -> int:
    if devices is None:
        raise ArgumentError("devices", f"given for the method {spec.method!r}", devices, "say how many")
    return devices


def _agreeing(partition: Partition, devices: int | None) -> Partition:
    if devices not in {None, len(partition)}:
        rule = f"left out or {len(partition):,}, which the method {partition.method!r} makes of this corpus"
        raise ArgumentError("devices", rule, devices)
    return partition


def _labels(examples: Sequence[Example], key: Callable[[Example], Hashable] | None) -> list[Hashable]:
    labels = [(key or label_of)(example) for example in examples]
    if None in labels:
        without = sum(label is None for label in labels)
        mend = "spread texts without labels by 'cluster', or give a key"
        raise ArgumentError("labels", "known for every text", f"{without:,} texts without", mend)
    return labels


def _of(method: str, device_of: Indices, devices: int, details: Mapping[str, Any]) -> Partition:
    order = np.argsort(device_of, kind="stable")
    ends = np.cumsum(np.bincount(device_of, minlength=devices))[:-1]
    return Partition(method, tuple(np.split(order, ends)), details)


def _shuffled(method: str, sizes: Indices, details: Mapping[str, Any], generator: np.random.Generator) -> Partition:
    device_of = generator.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return _of(method, device_of, len(sizes), details)


def _even(examples: int, devices: int) -> Indices:
    return np.asarray(examples // devices + (np.arange(devices) < examples % devices), dtype=np.int64)


def _times(times: Sequence[float | None]) -> NDArray[np.float64]:
    checks.not_empty("times", times)
    found = np.array([np.nan if time is None else time for time in times], dtype=float)
    if not np.isfinite(found).all():
        without = int((~np.isfinite(found)).sum())
        raise ArgumentError("times", "known for every text", f"{without:,} texts without", "leave such texts out")
    return found


def _first_moments(texts: Indices, periods: int) -> Indices:
    """Of each period the number of its first moment, so that texts are shared evenly and every period has a moment."""
    before = np.concatenate([[0], np.cumsum(texts)])
    halfway = (before[:-1] + before[1:]) / 2
    nearest = np.searchsorted(halfway, np.arange(periods) * before[-1] / periods)
    numbers = np.arange(periods)
    ascending = np.maximum.accumulate(nearest - numbers) + numbers
    return np.minimum(ascending, len(texts) - periods + numbers)


def _check_devices(devices: int, examples: int, least: int = 1) -> None:
    checks.at_least("devices", devices, 1)
    checks.at_least("least", least, 1)
    if devices * least > examples:
        each = f" with at least {least} each" if least > 1 else ""
        raise ArgumentError("devices", f"at most the {examples:,} examples{each}", devices, "ask for fewer devices")


def _check_device(number: int, own: Indices, *, may_be_empty: bool) -> None:
    if not (isinstance(own, np.ndarray) and own.ndim == 1 and own.dtype == np.int64):
        raise ArgumentError(f"devices[{number}]", "a one-dimensional array of int64", own)
    if (np.diff(own) < 0).any():
        raise ArgumentError(f"devices[{number}]", "ascending", "indices out of order", "sort them")
    if not len(own) and not may_be_empty:
        raise GuaranteeError(f"device {number} is empty", "ask for fewer devices, or leave it out")


def _check_cover(indices: Indices) -> None:
    """Raises unless the indices are 0, 1, 2, … in some order."""
    found, expected = np.sort(indices), np.arange(len(indices))
    if np.array_equal(found, expected):
        return
    twice = found[1:][np.diff(found) == 0]
    reason = f"{twice[0]} occurs twice" if len(twice) else f"{np.setdiff1d(expected, found)[0]} is missing"
    raise GuaranteeError(f"a partition must hold every example exactly once: {reason}", "make it of one whole split")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
