"""Frozen records as a command line writes them: `activity:gamma=1,weighting=equal`."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, ClassVar, TypeVar, get_args, get_origin, get_type_hints

from trustnlp import checks
from trustnlp.errors import ArgumentError

Record = TypeVar("Record")


def named(what: str, text: str, kinds: Mapping[str, type[Record]], **fixed: Any) -> Record:
    """The record that `text` writes, `name` or `name:option=value,…`, of one of `kinds`.

    Args:
        what: the argument's name, for messages.
        text: as on the command line.
        kinds: frozen dataclasses by name, with fields that are numbers or words.
        fixed: fields that are not for the text to give.

    Raises:
        ArgumentError: no such name, or as for `record`.
    """
    name, _, options = text.partition(":")
    return record(what, options, kinds[checks.one_of(what, name.strip(), kinds)], **fixed)


def record(what: str, options: str, kind: type[Record], **fixed: Any) -> Record:
    """The record of `kind` that `options` write, `option=value,…`; what they leave out has its default.

    Args:
        what, options, kind: as for `named`.
        fixed: fields that are not for the text to give.

    Raises:
        ArgumentError: an unknown option, one given twice or left out, or a value that breaks the field's rule.
    """
    known = {name: one for name, one in get_type_hints(kind).items() if name not in fixed and not _shared(one)}
    given: dict[str, Any] = {}
    for option in filter(None, (part.strip() for part in options.split(","))):
        name, _, value = (part.strip() for part in option.partition("="))
        checks.one_of(f"option of {what}", name, known)
        if name in given:
            raise ArgumentError(what, f"with {name!r} once", options)
        given[name] = _value(name, value, known[name])
    try:
        return kind(**given, **fixed)
    except TypeError:
        raise ArgumentError(what, f"given with its options ({', '.join(known)})", options) from None


def _shared(kind: Any) -> bool:
    return get_origin(kind) is ClassVar


def _value(name: str, text: str, kind: Any) -> Any:
    if isinstance(kind, UnionType):  # a number, or None where it is left out
        kind = next(each for each in get_args(kind) if each is not NoneType)
    try:
        return kind(text)
    except ValueError:
        raise ArgumentError(name, "a whole number" if kind is int else "a number", text) from None
