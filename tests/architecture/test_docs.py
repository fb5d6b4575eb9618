"""The documents tell what there is: findings that are explained, papers whose modules and tests exist."""

import re
from pathlib import Path

import pytest

from trustnlp.report.explanations import EXPLANATIONS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def first_column(page: str) -> list[str]:
    return re.findall(r"^\| `([^`]+)` \|", page, flags=re.M)


def missing_paths(page: str, root: Path) -> list[str]:
    """Paths named in the page (in backticks, with a folder of ours in front) that do not exist."""
    named = re.findall(r"`((?:src|tests|docs|benchmarks|studies)/[^`:]+)(?:::(\w+))?`", page)
    found = []
    for path, name in named:
        place = root / path
        if not place.exists() or (name and not re.search(rf"def {name}\b", place.read_text())):
            found.append(f"{path}::{name}" if name else path)
    return found


def broken_links(page: Path) -> list[str]:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    return [target for target in targets if not (page.parent / target).exists()]


def test_every_explained_finding_is_in_the_reference_and_the_other_way_round() -> None:
    assert sorted(first_column((DOCS / "reference/findings.md").read_text())) == sorted(e.id for e in EXPLANATIONS)


def test_papers_name_what_exists() -> None:
    page = (DOCS / "papers.md").read_text()
    assert [f"S{number}" for number in range(1, 14)] == re.findall(r"^\| (S\d+) \|", page, flags=re.M)
    assert missing_paths(page, ROOT) == []


@pytest.mark.parametrize("page", [*sorted(DOCS.rglob("*.md")), *sorted(ROOT.glob("*.md"))], ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_a_missing_path_and_a_broken_link_are_found(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_a.py").write_text("def test_b(): ...")
    page = "`tests/test_a.py::test_b` `tests/test_a.py::test_c` `src/gone.py` `pip install`"
    assert missing_paths(page, tmp_path) == ["tests/test_a.py::test_c", "src/gone.py"]
    (tmp_path / "page.md").write_text("[a](tests/test_a.py) [b](gone.md#part) [c](https://example.org)")
    assert broken_links(tmp_path / "page.md") == ["gone.md"]
