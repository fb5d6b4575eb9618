"""The rooms import only downward; the rule itself is tested by planting a violation."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def lint_imports(project: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--config", "pyproject.toml", "--no-cache"]
    environment = {"PYTHONPATH": str(project / "src"), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("checks.py", "trustnlp.results"),
        ("data/corpus.py", "trustnlp.models"),
        ("models/protocol.py", "trustnlp.dp"),
        ("attacks/__init__.py", "trustnlp.dp"),
        ("report/__init__.py", "torch"),
    ],
)
def test_an_import_that_points_up_is_found(project: Path, module: str, imported: str) -> None:
    assert lint_imports(project).returncode == 0
    planted = project / "src/trustnlp" / module
    planted.write_text(f"{planted.read_text()}\nimport {imported}\n")
    checked = lint_imports(project)
    assert checked.returncode == 1
    assert re.search(r"BROKEN", checked.stdout)
