"""How a partition is asked for in one line: `method:parameter=value,parameter=value`.

iid                              quantity:beta=1[,least=1]
label:alpha=0.5                  activity:exponent=1
cluster:clusters=10,alpha=0.5    user
  [,vectors=tfidf|minilm]        time:periods=4
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from trustnlp import checks
from trustnlp.errors import ArgumentError
from trustnlp.federated.feature_clusters import VECTORS

REQUIRED = object()


@dataclass(frozen=True)
class Parameter:
    """A parameter's rule: how it is read from text and checked, and its value where it is left out."""

    read: Callable[[str, str], Any]
    default: Any = REQUIRED


def _positive(name: str, text: str) -> float:
    return checks.positive(name, _float(name, text))


def _non_negative(name: str, text: str) -> float:
    return checks.non_negative(name, _float(name, text))


def _count(name: str, text: str) -> int:
    if not text.isdecimal():
        raise ArgumentError(name, "a whole number >= 1", text)
    return checks.at_least(name, int(text), 1)


def _vectors(name: str, text: str) -> str:
    return checks.one_of(name, text, VECTORS)


def _float(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ArgumentError(name, "a number", text) from None


METHODS: Mapping[str, Mapping[str, Parameter]] = {
    "iid": {},
    "label": {"alpha": Parameter(_positive)},
    "cluster": {
        "clusters": Parameter(_count),
        "alpha": Parameter(_positive),
        "vectors": Parameter(_vectors, "tfidf"),
    },
    "quantity": {"beta": Parameter(_positive), "least": Parameter(_count, 1)},
    "activity": {"exponent": Parameter(_non_negative)},
    "user": {},
    "time": {"periods": Parameter(_count)},
}


@dataclass(frozen=True)
class Spec:
    """A method and all its parameters; `str` gives the line that asks for it."""

    method: str
    parameters: tuple[tuple[str, Any], ...] = ()

    def __getitem__(self, name: str) -> Any:
        return dict(self.parameters)[name]

    def __str__(self) -> str:
        return ":".join(filter(None, [self.method, ",".join(f"{name}={value}" for name, value in self.parameters)]))


def parse(text: str) -> Spec:
    """What `text`, such as `label:alpha=0.5`, asks for.

    Raises:
        ArgumentError: no such method or parameter, one that is missing, given twice or breaks its rule.
    """
    method, _, rest = text.strip().partition(":")
    rules = METHODS[checks.one_of("partition", method, METHODS)]
    given: dict[str, str] = {}
    for part in filter(None, rest.split(",")):
        name, sign, value = (piece.strip() for piece in part.partition("="))
        if name not in rules or not sign or name in given:
            raise ArgumentError("partition", f"{_form(method)}, each parameter once", text)
        given[name] = value
    lacking = [name for name, rule in rules.items() if rule.default is REQUIRED and name not in given]
    if lacking:
        raise ArgumentError("partition", f"{_form(method)}, with {' and '.join(lacking)}", text)
    values = {name: rule.read(name, given[name]) if name in given else rule.default for name, rule in rules.items()}
    return Spec(method, tuple(values.items()))


def _form(method: str) -> str:
    """The grammar of one method, for messages."""
    rules = METHODS[method].items()
    parts = [f"{name}=…" if rule.default is REQUIRED else f"[{name}=…]" for name, rule in rules]
    return f"like {method}:{','.join(parts)}" if parts else f"{method} without parameters"
