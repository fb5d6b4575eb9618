"""`trustnlp --help` stays quick because it imports none of the heavy packages."""

import subprocess
import sys

HEAVY = ("torch", "numpy", "scipy", "sklearn", "transformers", "matplotlib", "pyarrow", "dp_accounting", "pydantic")


def heavy_imports(code: str) -> list[str]:
    """Which heavy packages are loaded after running `code` in a fresh interpreter."""
    probe = f"{code}\nimport sys\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.splitlines()[-1].split()


def test_the_command_line_imports_nothing_heavy() -> None:
    help_page = "from typer.testing import CliRunner\nfrom trustnlp.cli.app import app\n"
    help_page += "assert CliRunner().invoke(app, ['--help']).exit_code == 0"
    assert heavy_imports(help_page) == []


def test_the_package_and_its_data_room_import_no_model_library() -> None:
    assert set(heavy_imports("import trustnlp, trustnlp.data")) <= {"numpy"}


def test_a_heavy_import_is_found() -> None:
    assert heavy_imports("import trustnlp.models.protocol") == ["torch", "numpy"]
