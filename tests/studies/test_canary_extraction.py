from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from trustnlp.attacks import inversion
from trustnlp.data import synthetic
from trustnlp.data.canaries import Canary
from trustnlp.errors import CorpusError
from trustnlp.models.many import run_jobs
from trustnlp.progress import silent
from trustnlp.results import Finding, Verdict
from trustnlp.studies import canary_extraction, corpora, defences
from trustnlp.studies.canary_extraction import (
    ALL,
    BORROWED,
    CROWD,
    MATCHED,
    NONE,
    OWN,
    PRIVATE,
    STUDY,
    Cell,
    Condition,
    grid,
    rank,
)
from trustnlp.studies.study import Request

CORPUS = synthetic.corpus(size=300, canaries=False)


def generator() -> np.random.Generator:
    return np.random.default_rng(0)


class TestGrid:
    @pytest.mark.parametrize("quick", [False, True])
    def test_no_cell_is_named_twice(self, quick: bool) -> None:
        names = Counter(tuple(cell.named("c").values()) for cell in grid(quick))
        assert set(names.values()) == {1}

    def test_what_is_matched_comes_after_what_it_is_matched_to(self) -> None:
        cells = list(grid(False))
        for place, cell in enumerate(cells):
            if cell.matched:
                assert replace(cell, defence=ALL, matched=False) in cells[:place]

    def test_the_control_and_every_defence_at_every_number_of_copies_are_there(self) -> None:
        copies: dict[str, set[int]] = {}
        for cell in grid(False):
            if cell.condition is OWN:
                copies.setdefault(cell.named("c")["defence"], set()).add(cell.copies)
        assert copies.pop("none") == {0, 1, 10, 100}
        assert len(copies) == 8
        assert {MATCHED, "all three", "privacy, epsilon 8", "privacy, epsilon 50"} < set(copies)
        assert all(found == {1, 10, 100} for found in copies.values())

    def test_quick_cells_are_cells_of_the_full_study(self) -> None:
        assert set(grid(True)) < set(grid(False))


class TestCondition:
    def test_a_secret_with_labels_of_its_own(self) -> None:
        canary = OWN.canary(CORPUS, 10, generator())
        assert canary.label not in CORPUS.labels
        assert canary.tags[-4:] == ("B-code", "I-code", "I-code", "I-code")
        assert set(canary.tags[:-4]) == {"O"}
        assert (len(canary.secret), canary.repetitions) == (4, 10)

    def test_a_secret_with_labels_that_others_have(self) -> None:
        canary = BORROWED.canary(CORPUS, 1, generator())
        assert canary.label in CORPUS.labels
        assert set(canary.tags) <= set(CORPUS.tags)

    def test_colours(self) -> None:
        assert set(Condition("c", length=6, alphabet="colours").canary(CORPUS, 1, generator()).alphabet) >= {"red"}


class TestRank:
    """Against losses that put the planted secret at a known place."""

    @pytest.fixture
    def canary(self) -> Canary:
        return OWN.canary(CORPUS, 1, generator())

    def rank(self, monkeypatch: pytest.MonkeyPatch, canary: Canary, better: int, most: int) -> tuple[int, int]:
        """The rank where `better` of the other secrets have a smaller loss."""
        chosen = [secret for secret in canary.candidates() if secret != canary.secret][:better]
        known = {canary.example(secret).text: 0.0 for secret in chosen} | {canary.example().text: 0.5}

        def losses(_: object, examples: list, batch_size: int = 0) -> np.ndarray:
            return np.array([known.get(example.text, 1.0) for example in examples])

        everything = [canary.example(secret) for secret in canary.candidates()]
        monkeypatch.setattr(canary_extraction, "losses", losses)
        monkeypatch.setattr(inversion, "exhaustive", lambda model, _: losses(model, everything))
        found = rank(type("Model", (), {"encode": staticmethod(list)})(), canary, generator(), most)
        return found.rank, found.candidates

    @pytest.mark.parametrize("better", [0, 1, 4321])
    def test_among_all_candidates(self, canary: Canary, monkeypatch: pytest.MonkeyPatch, better: int) -> None:
        assert self.rank(monkeypatch, canary, better, 10_000) == (better + 1, 10_000)

    def test_among_a_sample(self, canary: Canary, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.rank(monkeypatch, canary, 0, 500) == (1, 500)
        assert self.rank(monkeypatch, canary, 9_999, 500) == (500, 500)
        place, _ = self.rank(monkeypatch, canary, 5_000, 500)
        assert 200 < place < 300


def exact(defence: str, copies: str, value: float, verdict: Verdict, corpus: str = "snips") -> Finding:
    cell = {"corpus": corpus, "secret": OWN.name, "defence": defence, "copies": copies}
    low, high = max(value - 0.2, 0), min(value + 0.2, 1)
    details = {"cell": cell, "ranks": [5, 7, 9000], "candidates": 10_000}
    return Finding("inversion-exact-match", "Exact", value, low, high, n=20, verdict=verdict, details=details)


OUT = exact("none", "10", 0.9, Verdict.LEAKS)
IN = [exact(str(defence), "10", 0.0, Verdict.NO_LEAK_FOUND) for defence in (ALL, PRIVATE[-1])]
OPEN = exact("all three", "1", 0.0, Verdict.INSUFFICIENT_EVIDENCE)
LEAK = exact("all three", "100", 0.4, Verdict.LEAKS)


class TestClaim:
    @pytest.mark.parametrize(
        ("found", "said"),
        [
            ([OUT, *IN], Verdict.REPRODUCED),
            ([OUT, *IN, OPEN], Verdict.INSUFFICIENT_EVIDENCE),
            ([OUT, *IN, LEAK], Verdict.NOT_REPRODUCED),
            ([replace(OUT, value=0.6, low=0.4), *IN], Verdict.INSUFFICIENT_EVIDENCE),
            ([exact("none", "10", 0.1, Verdict.LEAKS), *IN], Verdict.NOT_REPRODUCED),
            ([OUT, *IN, exact("none", "10", 0.1, Verdict.LEAKS, "atis")], Verdict.NOT_REPRODUCED),
            ([OUT, *IN, exact("dropout", "10", 0.9, Verdict.LEAKS)], Verdict.REPRODUCED),
        ],
    )
    def test_by_the_rule_fixed_before(self, found: list[Finding], said: Verdict) -> None:
        assert canary_extraction._claim(found).verdict is said

    def test_the_best_cell_of_the_worst_corpus_is_quoted(self) -> None:
        others = [exact("none", "1", 0.3, Verdict.LEAKS), exact("none", "10", 0.7, Verdict.LEAKS, "atis")]
        claim = canary_extraction._claim([OUT, *others, *IN])
        assert claim.title.startswith("atis, 10 copies")
        assert claim.value == 0.7

    def test_every_defence_has_its_sentence(self) -> None:
        worth = replace(OUT, id="slot-f1", value=0.75, verdict=Verdict.MEASURED)
        said = canary_extraction._claim([OUT, worth, *IN, OPEN]).details["says"]
        assert said[0] == (
            "snips, none: leaks with 10 copies (90% come out, median rank 7 of 10,000); slot F1 75% to 75%."
        )
        assert said[1] == (
            "snips, all three: no leak found with 10 copies (0% come out, median rank 7 of 10,000); "
            "insufficient evidence with 1 copy (0% come out, median rank 7 of 10,000)."
        )


def test_a_corpus_without_slots_is_refused(table: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no intents or no slots"):
        STUDY.run(Request((str(table),)), tmp_path / "run", progress=silent)


@pytest.mark.usefixtures("hasty")
def test_a_small_study_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = Condition("one digit", length=1)
    cells = [Cell(small, NONE, 0), Cell(small, ALL, 9), Cell(small, NONE, 9, matched=True), Cell(small, PRIVATE[1], 9)]
    monkeypatch.setattr(canary_extraction, "OWN", small)
    monkeypatch.setattr(
        canary_extraction, "grid", lambda _: iter([*cells, Cell(replace(CROWD, length=1, background=5), NONE, 9)])
    )
    monkeypatch.setattr(canary_extraction, "run_jobs", partial(run_jobs, way="serial"))  # workers know no patches
    monkeypatch.setattr(canary_extraction, "_SEARCH", inversion.Search(restarts=1, steps=5))
    monkeypatch.setattr(canary_extraction, "_QUICK_CODES", 6)
    monkeypatch.setattr(canary_extraction, "_TEXTS", 60)
    monkeypatch.setattr(corpora, "_QUICK_SIZE", 300)
    monkeypatch.setattr(defences, "EPOCHS", 2)
    monkeypatch.setattr(defences, "_SHAPE", {"hidden": 8, "width": 8, "buckets": 256, "word_dropout": 0.0})
    results = STUDY.run(Request(("synthetic",), quick=True), tmp_path / "run", progress=silent)
    found = {(f.id, f.details["cell"]["defence"], f.details["cell"]["copies"]): f for f in results if f.id != "claim"}
    assert {id for id, *_ in found} == {
        "inversion-exact-match", "inversion-hamming", "canary-rank", "canary-exposure", "label-accuracy", "slot-f1",
    }  # fmt: skip
    stopped, matched = (found["inversion-exact-match", row, "9"] for row in ("all three", MATCHED))
    assert matched.details["epochs"] == stopped.details["epochs"]
    assert found["inversion-exact-match", "privacy, epsilon 8", "9"].details["epsilon"] <= 8
    assert all(len(f.details["ranks"]) == 6 for f in found.values() if f.id == "inversion-exact-match")
    again = STUDY.run(Request(("synthetic",), quick=True), tmp_path / "run", progress=silent)
    assert again.findings == results.findings  # nothing is trained twice
