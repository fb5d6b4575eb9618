from dataclasses import replace

from trustnlp.report import render
from trustnlp.report.study import claim, is_study, sections
from trustnlp.results import Finding, Results, Verdict

AXES = {"panel": ("corpus",), "rows": ("mechanism",), "columns": ("epsilon",)}
HOSTILE = "<script>alert(1)</script>"


def cell(id: str, value: float, unit: str = "fraction", **cell: str) -> Finding:
    regime = ", ".join(cell.values())
    return Finding(id, "Accuracy", value, value - 0.01, value + 0.01, unit=unit, regime=regime, details={"cell": cell})


RESULTS = Results(
    {
        "command": "trustnlp study some-study",
        "study": {"name": "some-study", "system": "S1", "claim": f"It is so {HOSTILE}.", "axes": AXES},
    },
    (
        Finding("claim", "Largest", 1.25, 1.2, 1.3, unit="", verdict=Verdict.NOT_REPRODUCED),
        cell("label-accuracy", 0.9, corpus="snips", mechanism="plain"),
        cell("label-accuracy", 0.5, corpus="snips", mechanism="exact", epsilon="1"),
        cell("label-accuracy", 0.7, corpus="snips", mechanism="exact", epsilon="8"),
        cell("training-time-ratio", 1.2, "", corpus=HOSTILE, mechanism="exact"),
    ),
)


def test_a_study_is_known_by_its_record() -> None:
    assert is_study(RESULTS)
    assert not is_study(Results({}, ()))
    assert claim(RESULTS).value == 1.25


def test_every_figure_is_a_section_with_a_plot_and_a_table_for_each_panel() -> None:
    accuracy, time = sections(RESULTS)
    assert (accuracy.id, time.id) == ("label-accuracy", "training-time-ratio")
    assert len(accuracy.plots) == len(accuracy.tables) == 1
    assert "plain no epsilon: 90.0%" in accuracy.plots[0].svg
    assert "exact epsilon 8: 70.0%" in accuracy.plots[0].svg


def test_the_page_shows_claim_verdict_and_cells_and_escapes_what_comes_from_a_run() -> None:
    page = render(RESULTS)
    assert "<h1>Some study</h1>" in page
    assert "not reproduced" in page
    assert "1.25" in page
    for shown in ("90.0%", "50.0%", "70.0%", "epsilon 8", "no epsilon"):
        assert shown in page
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page


def test_more_rows_than_lines_can_show_get_a_plot_for_each_column() -> None:
    many = [
        cell("label-accuracy", 0.5, corpus="snips", mechanism=f"m{row}", epsilon=epsilon)
        for row in range(5)
        for epsilon in ("1", "8")
    ]
    (accuracy,) = sections(Results(RESULTS.run, tuple(many)))
    assert [plot.title for plot in accuracy.plots] == ["snips, epsilon 1", "snips, epsilon 8"]
    assert len({plot.svg.split('aria-labelledby="')[1].split('"')[0] for plot in accuracy.plots}) == 2


def test_the_studys_own_sentences_and_the_verdicts_of_its_cells_are_shown() -> None:
    said = Finding("claim", "Largest", 1.25, unit="", details={"says": [f"Dropout leaks {HOSTILE}."]})
    leak = replace(cell("label-accuracy", 0.9, corpus="snips", mechanism="plain"), verdict=Verdict.LEAKS)
    page = render(Results(RESULTS.run, (said, leak)))
    assert "Dropout leaks &lt;script&gt;" in page
    assert page.count('<span class="verdict bad">') == 1


def test_texts_that_may_be_shown_are_a_heat_map() -> None:
    row = {"tokens": ["the", HOSTILE], "values": [0.1, 0.4], "marked": [0.0, 1.0], "said": "grant"}
    shown = replace(
        cell("label-accuracy", 0.9, corpus="snips"), details={"cell": {"corpus": "snips"}, "attributions": [row]}
    )
    plain = cell("label-accuracy", 0.8, corpus="atis")
    (section,) = sections(Results(RESULTS.run, (shown, plain)))
    assert len(section.heat) == 1
    page = render(Results(RESULTS.run, (shown, plain)))
    assert page.count('<div class="heat">') == 1
    assert HOSTILE not in page
