import re

import pytest

from trustnlp.errors import ArgumentError
from trustnlp.report.heat_map import STYLE, Row, html

ROWS = [Row(["", "the", "<man>", "pays"], [9.0, 0.0, 2.0, 1.0], [0, 0, 1, 0], "grant & <b>"), Row(["a"], [0.5], [0.0])]


def test_everything_is_escaped_and_nothing_is_fetched() -> None:
    page = html(ROWS, figure='se"n')
    assert "<man>" not in page
    assert "&lt;man&gt;" in page
    assert "grant &amp; &lt;b&gt;" in page
    assert 'title="se&quot;n 2, tells the group"' in page
    assert not re.search(r"https?:|url\(|<script", page)


def test_colour_grows_with_the_figure_and_is_never_alone() -> None:
    page = html([Row(["low", "mid", "top"], [0.0, 2.0, 4.0], [0, 0, 1])])
    found = re.findall(r'<span class="t h(\d)( g)?" title="sensitivity ([\d.]+)[^"]*">(\w+)</span>', page)
    assert found == [("0", "", "0", "low"), ("2", "", "2", "mid"), ("4", " g", "4", "top")]
    assert "(sensitivity 4, tells the group)" in page  # for screen readers
    assert page.count('class="legend"') == 1


def test_special_tokens_are_left_out_and_all_zero_is_uncoloured() -> None:
    page = html([Row(["", "a"], [0.0, 0.0], [0, 0])])
    assert 'class="t h0"' in page
    assert "h4" not in page.replace(STYLE, "")
    assert ">a</span>" in page


@pytest.mark.parametrize("values", [[1.0], [1.0, -1.0], [1.0, float("nan")]])
def test_wrong_rows_are_refused(values: list[float]) -> None:
    with pytest.raises(ArgumentError, match=r"tokens|values"):
        Row(["a", "b"], values, [0, 0])
    with pytest.raises(ArgumentError, match="rows"):
        html([])
