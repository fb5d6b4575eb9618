from trustnlp.report.sections import answers, plain, question_of, regimes, sections, summary
from trustnlp.results import Direction, Finding, Results, Verdict


def leak(value: float, verdict: Verdict, regime: str = "plain", attack: str = "loss") -> Finding:
    id = f"membership-{attack}-tpr-at-1pct-fpr"
    return Finding(id, "TPR", value, n=100, verdict=verdict, regime=regime, direction=Direction.LOWER)


def test_the_worst_verdict_speaks_for_a_question() -> None:
    good, bad, worse = (Verdict.NO_LEAK_FOUND, Verdict.LEAKS, Verdict.LEAKS)
    findings = (leak(0.01, good, attack="a"), leak(0.2, bad, attack="b"), leak(0.3, worse, attack="c"))
    (row,) = answers(Results({}, findings))
    (cell,) = row.cells
    assert cell.verdict is Verdict.LEAKS
    assert cell.facts[0].says.startswith("30.0% of the training texts")
    assert cell.facts[0].sure == "n\u00a0=\u00a0100"
    assert cell.tally == "2 leaks · 1 no leak found"


def test_unknown_outranks_good_but_not_bad() -> None:
    unknown = leak(0.02, Verdict.INSUFFICIENT_EVIDENCE, attack="b")
    (row,) = answers(Results({}, (leak(0.01, Verdict.NO_LEAK_FOUND, attack="a"), unknown)))
    assert row.cells[0].verdict is Verdict.INSUFFICIENT_EVIDENCE
    (row,) = answers(Results({}, (leak(0.1, Verdict.LEAKS, attack="a"), unknown)))
    assert row.cells[0].verdict is Verdict.LEAKS


def test_a_figure_that_cannot_be_had_does_not_hide_those_that_can() -> None:
    missing = Finding(
        "membership-loss-tpr-at-0-1pct-fpr", "TPR", None, verdict=Verdict.INSUFFICIENT_EVIDENCE, regime="plain"
    )
    (row,) = answers(Results({}, (leak(0.01, Verdict.NO_LEAK_FOUND), missing)))
    assert row.cells[0].verdict is Verdict.NO_LEAK_FOUND
    assert row.cells[0].tally == "1 insufficient evidence · 1 no leak found"
    (row,) = answers(Results({}, (missing,)))
    assert row.cells[0].verdict is Verdict.INSUFFICIENT_EVIDENCE


def test_regimes_follow_the_run_then_the_findings() -> None:
    findings = (leak(0.1, Verdict.LEAKS, "audited"), leak(0.1, Verdict.LEAKS, "plain"))
    assert regimes(Results({"regimes": {"private": {}, "plain": {}}}, findings)) == ("private", "plain", "audited")
    assert regimes(Results({"regimes": "not a mapping"}, findings)) == ("audited", "plain")


def test_a_question_without_a_finding_for_a_model_says_so(results: Results) -> None:
    rows = {row.question.name: row for row in answers(results)}
    plain_cell, private_cell = rows["budget"].cells
    assert plain_cell.verdict is None
    assert "No budget was promised" in plain_cell.facts[0].says
    assert private_cell.verdict is Verdict.WITHIN_BUDGET


def test_findings_about_the_corpus_share_one_cell(results: Results) -> None:
    row = next(row for row in answers(results) if row.question.name == "soundness")
    assert row.shared
    assert len(row.cells) == 1


def test_summary_counts_concerns_and_open_questions(results: Results) -> None:
    assert summary(results) == [
        "plain raises two concerns, and leaves one question open for lack of evidence.",
        "private raises one concern, and leaves one question open for lack of evidence.",
    ]
    calm = Results({}, (leak(0.01, Verdict.NO_LEAK_FOUND),))
    assert summary(calm) == ["plain raises no concern that this run could find."]


def test_an_unknown_finding_goes_to_the_last_section(results: Results) -> None:
    odd = Finding("never-heard-of", "Odd", 3.0, unit="bits", regime="plain")
    extended = Results(results.run, (odd, results.get("epsilon", "private")))
    assert question_of(odd) == "other"
    last = sections(extended)[-1]
    assert last.question.name == "other"
    assert [card.id for card in last.cards] == ["never-heard-of"]


def test_sections_are_only_those_with_findings() -> None:
    made = sections(Results({}, (leak(0.1, Verdict.LEAKS),)))
    assert [section.question.name for section in made] == ["membership"]
    assert sections(Results({}, ())) == []


def test_an_explanation_is_not_repeated_card_after_card() -> None:
    findings = (leak(0.1, Verdict.LEAKS, attack="a"), leak(0.1, Verdict.LEAKS, attack="b"))
    first, second = sections(Results({}, findings))[0].cards
    assert first.means
    assert not second.means


def test_named_details_are_rows_and_the_rest_is_kept_aside() -> None:
    details = {"margin": 0.05, "attack_ceiling": {"0.01": 0.5}, "rule": "inclusion", "curve": [1, 2], "nothing": None}
    finding = Finding("label-error-gap", "Gap", 0.1, details={**details, "notes": ["one", "two"]})
    (card,) = sections(Results({}, (finding,)))[0].cards
    lines = {line.name: line.texts for line in card.lines}
    assert lines["Margin of the verdict"] == ("5.00%",)
    assert lines["No attack at all can recognise more than"] == ("50% at 1% false alarms",)
    assert lines["Notes"] == ("one; two",)
    assert [(line.name, line.texts) for line in card.more] == [("Rule", ("inclusion",))]


def test_plain_values_read_well() -> None:
    shown = [plain(value) for value in (None, True, 12408, 1e-6, 0.73219, [1, "a"], "text", 0.0)]
    assert shown == ["–", "yes", "12,408", "1e-6", "0.7322", "1; a", "text", "0"]
