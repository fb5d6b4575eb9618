import re
from xml.etree import ElementTree

import pytest

from trustnlp.report import plots

SEEN = plots.Alternative("one", "A plot", "Something is seen.")
CURVE = ([0.0, 0.001, 0.01, 0.1, 1.0], [0.01, 0.02, 0.09, 0.4, 1.0])
HOSTILE = [
    "<script>alert(1)</script>",
    "]]>",
    "\"quoted\" 'twice'",
    "$x$ $\\frac{",
    "&amp; & <!--",
    "\x00\x1b\ud800",
    "漢字",
    "",
    "%s {0}",
]


def parse(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)  # noqa: S314 - our own drawing


def draw(label: str = "north") -> str:
    return plots.dots([plots.Dot(label, 0.5, 0.4, 0.6)], "error", True, SEEN, (0.0, 1.0))


def every_plot() -> list[str]:
    roc = plots.roc({"loss": CURVE}, [(0.01, 0.09, 0.05, 0.12), (0.001, 0.0, None, None)], SEEN)
    rungs = [plots.Dot("one run", 0.9, None, 4.4), plots.Dot("two samples", 0.0, None, 6.0)]
    ladders = [plots.ladder(rungs, 8.0, SEEN), plots.ladder(rungs[1:], None, SEEN)]
    return [
        *ladders,
        draw(),
        roc,
        plots.exposure([(0, 1.0), (4, 13.3)], 13.3, SEEN),
        plots.exposure([(1, 0.0)], None, SEEN),
        plots.shares(["a", "b"], [0.6, 0.4], [[1.0, 0.0], [0.2, 0.8]], "devices", SEEN),
        plots.activity([(1, 90), (2, 7), (300, 1)], 2, SEEN),
        plots.activity([(1, 5)], 1, SEEN),
    ]


@pytest.mark.parametrize("svg", every_plot())
def test_a_plot_is_part_of_the_page(svg: str) -> None:
    root = parse(svg)
    assert root.tag == "svg"
    assert root.attrib["role"] == "img"
    named = {element.get("id"): element.text for element in root.iter() if element.get("id")}
    assert named[root.attrib["aria-labelledby"]] == "A plot"
    assert named[root.attrib["aria-describedby"]] == "Something is seen."
    assert "http" not in svg
    assert "font-family" not in svg
    assert not re.search("<(style|metadata|script|image)", svg)
    assert all(name.startswith("one-") for name in named if name)


@pytest.mark.parametrize("svg", every_plot())
def test_colours_follow_the_page(svg: str) -> None:
    colours = set(re.findall(r"(?:fill|stroke): ([^;\"]+)", svg))
    assert colours <= {"none", "#000000", *(f"var({name})" for name in plots._VARIABLES.values())}
    visible = re.sub(r"<(clipPath|defs).*?</\1>", "", svg, flags=re.DOTALL)
    assert "#000000" not in visible


@pytest.mark.parametrize("svg", every_plot())
def test_references_within_a_plot_are_kept(svg: str) -> None:
    ids = set(re.findall(r' id="([^"]*)"', svg))
    used = set(re.findall(r"url\(#([^)]*)\)", svg)) | set(re.findall(r'href="#([^"]*)"', svg))
    assert used <= ids


def test_the_same_data_give_the_same_bytes() -> None:
    assert every_plot() == every_plot()


@pytest.mark.parametrize("label", HOSTILE, ids=ascii)
def test_any_label_is_only_text(label: str) -> None:
    root = parse(draw(label))
    texts = [element.text for element in root.iter("text")]
    expected = plots._short(label, 28)
    assert not expected or expected in texts
    assert {element.tag for element in root.iter()} <= {
        "svg",
        "title",
        "desc",
        "g",
        "path",
        "defs",
        "clipPath",
        "rect",
        "text",
        "use",
    }


def test_a_long_label_is_cut() -> None:
    assert plots._short("a  name\nthat is much longer than a plot") == "a name that is mu…"


def test_the_text_of_the_alternative_is_escaped() -> None:
    hostile = plots.Alternative("one", "</title><script>", "</desc>]]>")
    svg = plots.dots([plots.Dot("a", 0.5)], "", True, hostile, (0, 1))
    assert "<script" not in svg
    assert parse(svg)[0].text == "</title><script>"


def test_thinning_keeps_shape_and_end() -> None:
    fpr = [index / 5000 for index in range(5001)]
    xs, ys = plots._thin(fpr, [rate**0.5 for rate in fpr], 5e-4)
    assert len(xs) < 800
    assert xs == sorted(xs)
    assert (xs[-1], ys[-1]) == (1.0, 1.0)
    assert all(y == x**0.5 for x, y in zip(xs[1:], ys[1:], strict=True))  # points are left out, never moved


def test_the_higher_curve_is_named_first() -> None:
    svg = plots.roc({"low": ([0, 1], [0, 1]), "high": ([0, 0.001, 1], [0, 0.5, 1])}, [], SEEN)
    texts = [element.text for element in parse(svg).iter("text")]
    assert texts.index("high") < texts.index("low")


def test_a_heat_map_has_the_shade_of_every_share() -> None:
    """The darkness is the square root: 1/2 of the share 1/4, 1/4 of 1/16; a share of 0 has no box."""
    svg = plots.shares(["a", "b", "c"], [0.25, 0.0625, 0.0], [[1.0, 0.0, 0.0]], "devices", SEEN)
    boxes = re.findall(r'd="([^"]*)" (clip-path="[^"]*" )?style="fill: var\(--first\)(?:; opacity: ([0-9.]+))?"', svg)
    drawn = {float(shade or 1): path.count("z") for path, clipped, shade in boxes if clipped}
    assert drawn == {0.25: 1, 0.5: 1, 1.0: 1}
    scale = [float(shade or 1) for _, clipped, shade in boxes if not clipped]
    assert scale == pytest.approx([0.05**0.5, 0.2**0.5, 0.5**0.5, 1], abs=1 / 32)


def test_cells_of_one_shade_are_one_path() -> None:
    svg = plots.shares(["a", "b"], [0.5, 0.5], [[0.5, 0.5]] * 30, "devices", SEEN)
    (cells,) = re.findall(r'd="([^"]*)" clip-path="[^"]*" style="fill: var\(--first\)', svg)
    assert cells.count("z") == 62
