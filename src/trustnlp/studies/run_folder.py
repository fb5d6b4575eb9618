"""The folder of one run: made once, resumed by the same request, never mixed with another run's files."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from trustnlp import __version__, files
from trustnlp.errors import RunError
from trustnlp.results import Finding, Results

REQUEST = "request.json"
_PACKAGES = ("torch", "transformers", "numpy", "scipy", "scikit-learn", "dp-accounting")


@dataclass
class RunFolder:
    """An open run folder; `seconds` fills up as stages are timed."""

    path: Path
    request: Mapping[str, Any]
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the seconds that the block takes to `stage`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = round(self.seconds.get(stage, 0) + time.perf_counter() - start, 2)

    def log(self, line: str) -> None:
        """Appends a line with its time to the run's log."""
        files.append_line(self.path / "log.txt", f"{_now()} {line}")

    def record(self, command: str, *, secret_seed: bool = False) -> dict[str, Any]:
        """What `results.json` says of how the run was made; a secret seed stays in the request alone."""
        return {
            "command": re.sub(r"--seed[ =]\d+", "--seed …", command) if secret_seed else command,
            "created": _now(),
            "seconds": dict(self.seconds),
            "versions": {"trustnlp": __version__, "python": platform.python_version(), **_versions()},
            "seed": None if secret_seed else self.request.get("seed"),
            "hashes": {"request": _digest({name: self.request[name] for name in self.request if name != "seed"})},
            "hardware": {"machine": platform.machine(), "system": platform.system(), "cores": os.cpu_count()},
        }

    def finish(
        self, findings: Iterable[Finding], command: str, *, secret_seed: bool, facts: Mapping[str, Any]
    ) -> Results:
        """Writes results.json: what was found, and `facts` beside what `record` says."""
        results = Results({**self.record(command, secret_seed=secret_seed), **facts}, tuple(findings))
        results.save(self.path)
        return results


def open_run(path: str | Path, request: Mapping[str, Any], *, overwrite: bool = False) -> RunFolder:
    """Opens `path` for the run that `request` (JSON values) describes.

    A folder that already holds the same request is gone on with; `overwrite` starts afresh in a folder that holds
    a run of ours.

    Raises:
        RunError: the folder holds another run, or files that are no run's.
    """
    path = Path(path)
    _refuse_foreign(path)
    if overwrite and path.exists():
        shutil.rmtree(path)
    held = held_request(path)
    if held is not None and held != json.loads(json.dumps(request)):
        changed = sorted(key for key in {*held, *request} if held.get(key) != request.get(key))
        raise RunError(f"{path} holds another run ({', '.join(changed)} differ)", "give another --out, or --overwrite")
    if held is None:
        files.write_json(path / REQUEST, dict(request))
    return RunFolder(path, request)


def choose_seed(path: str | Path, asked: int | None) -> int:
    """The seed of a run: the one asked for, else that of the run already in `path`, else one nobody can guess.

    The noise of a private run is drawn from its seed, so a seed that is known or guessed undoes the protection.
    """
    if asked is not None:
        return asked
    held = (held_request(Path(path)) or {}).get("seed")
    return held if isinstance(held, int) else secrets.randbits(62)


def _refuse_foreign(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise RunError(f"{path} is a file", "give a folder that is empty or new")
    if path.exists() and any(path.iterdir()) and not (path / REQUEST).exists():
        raise RunError(f"{path} holds files of something else", "give a folder that is empty or new")


def held_request(path: Path) -> dict[str, Any] | None:
    """The request of the run in `path`, or None where there is no run.

    Raises:
        RunError: its file is damaged.
    """
    try:
        held = json.loads((path / REQUEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RunError(f"{path / REQUEST} is damaged ({error})", "give another --out, or --overwrite") from None
    return held if isinstance(held, dict) else {}


def _versions() -> dict[str, str]:
    return {package: metadata.version(package) for package in _PACKAGES}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
