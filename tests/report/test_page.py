import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from trustnlp import report
from trustnlp.report import page
from trustnlp.results import Finding, Results

VOID = {"meta", "link", "br", "img", "hr", "input"}
HOSTILE = [
    "<script>alert(1)</script>",
    "]]></svg><script>",
    "\" onload='x' x=\"",
    "{{ 7*7 }}",
    "\ud800\x00",
    "</style>",
]


class Outline(HTMLParser):
    """Checks that elements are closed in order, and collects what a page is made of."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def html(results: Results) -> str:
    return report.render(results)


@pytest.fixture(scope="module")
def outline(html: str) -> Outline:
    return Outline(html)


@pytest.fixture(scope="module")
def calm(with_region: Callable[[str], Results]) -> Outline:
    return Outline(report.render(with_region("north")))


def test_every_element_is_closed(outline: Outline) -> None:
    assert outline.open == []


def test_ids_are_unique_and_every_reference_is_met(outline: Outline) -> None:
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in outline.tags:
        for name in ("aria-labelledby", "aria-describedby"):
            assert attributes.get(name) is None or attributes[name] in ids
        href = attributes.get("href") or ""
        assert not href.startswith("#") or href[1:] in ids


def test_nothing_is_fetched_and_nothing_runs(outline: Outline, html: str) -> None:
    assert outline.all("script") == []
    assert all((attributes.get("href") or "#").startswith(("#", "data:,")) for _, attributes in outline.tags)
    assert not any(name == "src" or name.startswith("on") for _, attributes in outline.tags for name in attributes)
    assert not re.search(r"url\((?!#)|@import|https?://", html)
    policy = next(a["content"] for a in outline.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none';")


def test_verdicts_come_first_then_a_section_a_question(outline: Outline) -> None:
    sections = [attributes["id"] for attributes in outline.all("section")]
    assert sections == [
        "verdicts", "membership", "secrets", "budget", "utility", "fairness", "soundness", "made", "limits", "glossary",
    ]  # fmt: skip


def test_every_plot_has_a_text_alternative_and_a_table(outline: Outline) -> None:
    drawings = outline.all("svg")
    assert len(drawings) == 2 + 2 + 2 + 4
    assert all(drawing["role"] == "img" and drawing["aria-labelledby"] for drawing in drawings)
    assert len([a for a in outline.all("table") if a.get("class") == "data"]) == len(drawings) + 2  # and two histories


def test_every_figure_is_shown_with_interval_and_n(results: Results, outline: Outline) -> None:
    text = "".join(outline.text)
    for finding in results:
        assert finding.title in text
        for shown in (finding.value, finding.low, finding.high):
            assert shown is None or finding.figure(shown).removesuffix(" epsilon") in text
        assert finding.n is None or f"n\u00a0=\u00a0{finding.n:,}" in text


def test_same_results_same_bytes(results: Results, html: str, tmp_path: Path) -> None:
    results.save(tmp_path)
    assert report.render(Results.load(tmp_path)) == html


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_text_from_data_is_only_text(name: str, calm: Outline, with_region: Callable[[str], Results]) -> None:
    hostile = Outline(report.render(with_region(name)))
    assert hostile.open == []
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in calm.tags]
    assert [sorted(attributes) for _, attributes in hostile.tags] == [sorted(a) for _, a in calm.tags]


def test_half_a_surrogate_can_be_written(with_region: Callable[[str], Results], tmp_path: Path) -> None:
    path = report.write(tmp_path, with_region("\ud800"))
    assert path == tmp_path / "report.html"
    assert "�" in path.read_text(encoding="utf-8") or "?" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("run", [{}, {"corpus": "tickets", "regimes": 7, "created": 5, "seconds": None}])
def test_a_run_that_says_little(run: dict[str, object]) -> None:
    assert Outline(report.render(Results(run, ()))).open == []
    one = Results(run, (Finding("slot-f1", "F1", 0.5, regime="audited"),))
    assert "an existing model, not trained here" in report.render(one)


def test_only_findings_of_the_corpus() -> None:
    assert "all models" in report.render(Results({}, (Finding("blind-classifier-auc", "Blind", 0.5),)))


def test_the_seed_of_private_training_is_not_shown(results: Results) -> None:
    run = {**results.run, "command": "trustnlp assess --seed 20250314 --data x"}
    assert "20250314" not in report.render(Results(run, (results.get("epsilon", "private"),)))
    assert "20250314" in report.render(Results(run, (results.get("slot-f1", "plain"),)))


def test_a_time_is_written_out() -> None:
    assert page._day("2025-03-14T09:26:53+00:00") == "14 March 2025, 09:26 UTC"
    assert page._day("yesterday") == "yesterday"
    assert page._day(None) == ""


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)  # the well-known grey that just fails


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_meets_wcag_aa(scheme: int) -> None:
    css = (Path(page.__file__).parent / "page.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", css, flags=re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#\w{6});", blocks[scheme]))
    for name in ("ink", "muted", "first", "second", "accent", "good", "bad", "unknown", "neutral"):
        assert contrast(colours[name], colours["page"]) >= 4.5, name
    for name in ("good", "bad", "unknown", "neutral"):
        assert contrast(colours[name], colours[f"{name}-soft"]) >= 4.5, name
