import re
from typing import Any

import pytest

from trustnlp.report import figures
from trustnlp.results import Finding, Results, Verdict

DAMAGED: list[Any] = [
    None, "text", 7, [], {}, [1, 2], {"fpr": [0, 1]}, {"fpr": [0, 1], "tpr": [0]}, {"fpr": "ab", "tpr": "ab"},
    {"fpr": [0, float("nan")], "tpr": [0, 1]}, {"fpr": [0, 2], "tpr": [0, 1]},
    [{"repetitions": "x", "exposure": 1}], [None],
]  # fmt: skip


def own(results: Results, *prefixes: str) -> list[Finding]:
    return [finding for finding in results if finding.id.startswith(prefixes)]


def test_a_roc_for_every_model_with_its_figures_as_a_table(results: Results) -> None:
    made = figures.of("membership", own(results, "membership"))
    assert [figure.title for figure in made] == ["plain", "private"]
    plain = made[0]
    assert plain.header == ("false alarms", "by loss", "by reference model")
    # the fixture's curve is tpr = fpr ** (1 / (1 + strength)), strength 0.7 and 1.6
    assert plain.rows[1][0] == "1.0%"
    assert [float(text.rstrip("%")) for text in plain.rows[1][1:]] == pytest.approx(
        [100 * 0.01 ** (1 / 1.7), 100 * 0.01 ** (1 / 2.6)], rel=0.05
    )


def test_the_table_reads_a_step_curve_from_the_left() -> None:
    curve = {"fpr": [0.0, 0.02, 1.0], "tpr": [0.3, 0.6, 1.0]}
    (figure,) = figures.of("membership", [Finding("membership-loss-auc", "AUC", 0.7, details={"roc": curve})])
    assert figure.title == "all models"
    assert [row[1] for row in figure.rows] == ["30.0%", "30.0%", "60.0%", "60.0%"]


def test_of_many_attacks_the_clearest_are_drawn_and_the_table_has_all() -> None:
    def attack(name: str, reached: float) -> Finding:
        curve = {"fpr": [0.0, 0.01, 1.0], "tpr": [0.0, reached, 1.0]}
        return Finding(f"membership-{name}-auc", "AUC", 0.7, details={"roc": curve})

    names = {"loss": 0.1, "min-k": 0.5, "zlib": 0.2, "lira": 0.6, "rmia": 0.05, "gap": 0.0}
    (figure,) = figures.of("membership", [attack(*pair) for pair in names.items()])
    assert figure.header == ("false alarms", "by loss", "min k", "zlib", "lira", "rmia", "gap")
    assert [name in figure.svg for name in (">by loss<", ">min k<", ">zlib<", ">lira<", ">rmia<", ">gap<")] == [
        *[True] * 4,
        *[False] * 2,
    ]
    assert figure.caption.endswith("The 4 clearest of 6 attacks are drawn; the table has all.")
    (alone,) = figures.of("membership", [attack("gap", 0.0)])
    assert ">gap<" in alone.svg
    assert "clearest" not in alone.caption


def test_exposure_has_a_dot_for_every_canary(results: Results) -> None:
    plain, private = figures.of("secrets", own(results, "canary"))
    assert len(plain.rows) == len(private.rows) == 12
    assert plain.rows[-1] == ("64", "1", "13.3", "10,000")
    assert "13.3 is a secret read out exactly" in plain.svg


def ladder(**details: Any) -> Finding:
    bounds = [
        {"method": "one-run-binomial", "epsilon": 0.9, "cap": 4.4, "level": 0.975, "n": 1000, "assumes": ""},
        {
            "method": "one-run-f-dp",
            "epsilon": 2.1,
            "cap": 11.0,
            "level": 0.975,
            "n": 1000,
            "assumes": "a Gaussian curve",
        },
    ]
    verdict = Verdict.CONSISTENT
    return Finding(
        "epsilon-ladder", "Ladder", 2.1, unit="epsilon", verdict=verdict, details={"bounds": bounds} | details
    )


def test_a_ladder_has_a_rung_for_every_bound_and_a_line_for_the_promise() -> None:
    (figure,) = figures.of("audit", [ladder(target=8.0)])
    assert figure.rows == (
        ("one run binomial", "0.9", "4.4", "97.5%", "1,000"),
        ("one run f-DP *", "2.1", "11", "97.5%", "1,000"),
    )
    assert "promised 8" in figure.svg
    assert "at least 2.1; 8 was promised." in figure.svg
    assert figure.caption.endswith("breaks it. * takes a Gaussian curve for granted.")


def test_a_ladder_without_a_promise_has_no_line() -> None:
    (figure,) = figures.of("audit", [ladder()])
    assert "promised" not in figure.svg.replace("nothing was promised", "")
    assert "breaks it" not in figure.caption


def test_groups_that_are_too_small_are_shown_as_such(results: Results) -> None:
    made = figures.of("fairness", own(results, "label-error-gap"))
    assert [figure.title for figure in made] == ["plain", "private"]
    assert made[0].rows[-1] == ("islands", "–", "– to –", "9")
    assert "too little data" in made[0].svg
    assert "From 5.2% for “south” to 12.1% for “north”." in made[0].svg


def test_the_groups_of_one_finding_share_an_axis(results: Results) -> None:
    one, other = figures.of("fairness", own(results, "label-error-gap"))
    ticks = [re.findall(r">(\d+%)</text>", figure.svg) for figure in (one, other)]
    assert ticks[0] == ticks[1] != []


def test_models_are_compared_only_where_there_are_two(results: Results) -> None:
    assert [figure.title for figure in figures.of("utility", own(results, "label-accuracy", "slot-f1"))][:1] == [
        "Label accuracy"
    ]
    assert figures.of("utility", [results.get("label-accuracy", "plain")]) == []


def spread(**details: Any) -> Finding:
    columns = [{"devices": 2, "shares": [0.9, 0.1]}, {"devices": 1, "shares": [0.3, 0.7]}]
    sizes = [
        {"rank": 1, "size": 40, "reached": 40}, {"rank": 2, "size": 40, "reached": 80},
        {"rank": 3, "size": 20, "reached": 100},
    ]  # fmt: skip
    own = {"labels": ["news", "sport"], "prior": [0.7, 0.3], "columns": columns, "sizes": sizes}
    return Finding("partition", "Explained", 0.25, n=100, details=own | details)


def test_a_partition_has_a_map_of_labels_and_a_curve_of_sizes() -> None:
    labels, sizes = figures.of("devices", [spread(distance_to_whole=0.5, distance_by_chance=0.1)])
    assert labels.rows == (
        ("news", "70.0%", "30.0%", "90.0%", "90.0%"),
        ("sport", "30.0%", "10.0%", "70.0%", "70.0%"),
    )
    assert labels.caption.startswith("A column is the mean of 1 to 2 devices;")
    assert labels.caption.endswith("to the mix of all texts: 0.50, where chance alone makes it 0.10.")
    assert "2 labels on 3 devices. The commonest label of a column holds 70.0% to 90.0% of its texts" in labels.svg
    assert "explains 25.0% of the variation" in labels.svg
    assert sizes.rows == (("1", "40", "40.0%"), ("2", "40", "80.0%"), ("3", "20", "100.0%"))
    assert "about 2 devices hold half of all 100" in sizes.svg
    single = [{"devices": 1, "shares": [0.9, 0.1]}]
    assert figures.of("devices", [spread(columns=single)])[0].caption.startswith("A column is one device;")


@pytest.mark.parametrize("damage", [*DAMAGED, [{"devices": 1, "shares": [0.5]}], [{"devices": 1}]], ids=repr)
def test_a_damaged_partition_has_no_figures(damage: Any) -> None:
    assert figures.of("devices", [spread(columns=damage, sizes=damage)]) == []
    assert len(figures.of("devices", [spread(labels=damage)])) == 1
    assert len(figures.of("devices", [spread(prior=damage)])) == 1


def test_a_partition_of_nothing_has_no_curve() -> None:
    nothing = [{"rank": 1, "size": 0, "reached": 0}]
    assert [figure.title for figure in figures.of("devices", [spread(sizes=nothing)])] == ["Labels by device"]


@pytest.mark.parametrize("damage", DAMAGED, ids=repr)
def test_details_of_another_shape_leave_the_plot_out(damage: Any) -> None:
    attack = Finding("membership-loss-auc", "AUC", 0.6, details={"roc": damage})
    canary = Finding("canary-exposure", "Exposure", 2.0, unit="bits", details={"canaries": damage})
    gap = Finding("label-error-gap", "Gap", 0.1, details={"groups": damage})
    assert figures.of("audit", [ladder(bounds=damage)]) == []
    assert figures.of("membership", [attack]) == []
    assert figures.of("secrets", [canary]) == []
    assert figures.of("fairness", [gap]) == []


def test_a_question_without_plots_has_none(results: Results) -> None:
    assert figures.of("budget", own(results, "epsilon")) == []


def test_an_unmeasured_figure_beside_measured_ones() -> None:
    findings = [
        *(Finding("slot-f1", "F1", value, regime=str(value)) for value in (0.5, 0.7)),
        Finding("slot-f1", "F1", None, verdict=Verdict.INSUFFICIENT_EVIDENCE, regime="none"),
    ]
    (figure,) = figures.of("utility", findings)
    assert figure.rows[-1] == ("none", "–", "–", "–")
