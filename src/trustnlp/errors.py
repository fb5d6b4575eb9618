"""The exceptions of trustnlp, all below one root, each saying what is wrong and how to mend it.

TrustnlpError
├── ArgumentError (ValueError)        an argument breaks its rule
├── CorpusError                       data that cannot be used
│   ├── CorpusNotFoundError           no corpus of that name or path
│   └── MalformedCorpusError          a file that breaks its format, with path and line
├── ModelError                        a model that cannot do what is asked, or is unsafe to load
├── GuaranteeError                    going on would make a guarantee, an interval or a figure wrong
├── RunError                          a run folder or results file that cannot be used
├── PolicyError                       a gate's policy file that cannot be used
└── MissingExtraError (ImportError)   an optional dependency is not installed
"""

from __future__ import annotations

from pathlib import Path


class TrustnlpError(Exception):
    """Root of every exception that trustnlp raises on purpose.

    Args:
        reason: what is wrong, in one clause.
        mend: what the user can do about it, in one clause; may be empty.
    """

    def __init__(self, reason: str, mend: str = "") -> None:
        super().__init__(f"{reason}; {mend}" if mend else reason)
        self.reason = reason
        self.mend = mend


class ArgumentError(TrustnlpError, ValueError):
    """An argument breaks its rule: name, rule, value received, mend."""

    def __init__(self, name: str, rule: str, value: object, mend: str = "") -> None:
        super().__init__(f"{name!r} must be {rule}, got {value!r}", mend)
        self.name = name


class CorpusError(TrustnlpError):
    """Data that cannot be used for what was asked."""


class CorpusNotFoundError(CorpusError):
    """No corpus of that name or path; the message lists what was looked for and where."""


class MalformedCorpusError(CorpusError):
    """A corpus file that breaks its format; `path` and 1-based `line` say where."""

    def __init__(self, path: str | Path, line: int | None, reason: str, mend: str = "") -> None:
        place = f"{path}:{line}" if line is not None else str(path)
        super().__init__(f"{place}: {reason}", mend)
        self.path = Path(path)
        self.line = line


class ModelError(TrustnlpError):
    """A model that cannot do what is asked, or that is not safe to load."""


class GuaranteeError(TrustnlpError):
    """Going on would make a privacy guarantee, an interval or a fairness figure wrong."""


class RunError(TrustnlpError):
    """A run folder or results file that is missing, foreign, damaged or already in use."""


class PolicyError(TrustnlpError):
    """A policy file that is missing, malformed, or holds a rule that could never be broken."""


class MissingExtraError(TrustnlpError, ImportError):
    """An optional dependency is not installed; the message is the exact command that mends it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package!r} is not installed", f'run: pip install "trustnlp[{extra}]"')
