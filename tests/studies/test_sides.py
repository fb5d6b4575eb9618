from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from trustnlp.attacks import one_run
from trustnlp.data.corpus import Example
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.studies.sides import Sides, read


def texts(name: str, count: int) -> tuple[Example, ...]:
    return tuple(Example(f"{name} {i}") for i in range(count))


def test_the_order_is_members_first() -> None:
    sides = Sides(texts("in", 2), texts("out", 3))
    assert [example.text for example in sides.every] == ["in 0", "in 1", "out 0", "out 1", "out 2"]
    assert sides.inside.tolist() == [True, True, False, False, False]
    assert [half.tolist() for half in sides.halves(np.arange(5))] == [[0, 1], [2, 3, 4]]
    assert sides.texts == (["in 0", "in 1"], ["out 0", "out 1", "out 2"])
    assert dict(sides.each()) == {"members": sides.members, "non-members": sides.nonmembers}


def test_all_texts_of_two_files(tmp_path: Path) -> None:
    for name in ("in", "out"):
        rows = "".join(f"{name} {i},a\n" for i in range(30))
        (tmp_path / f"{name}.csv").write_text(f"said,label\n{rows}")
    sides = Sides.read(tmp_path / "in.csv", tmp_path / "out.csv", columns={"text": "said"})
    assert {example.text for example in sides.members} == {f"in {i}" for i in range(30)}
    assert len(sides.nonmembers) == 30
    assert len(set(sides.digests)) == 2
    assert read(tmp_path / "in.csv", columns={"text": "said"}) == (sides.members, sides.digests[0])
    assert len(Sides.read(tmp_path / "in.csv", tmp_path / "out.csv", columns={"text": "said"}, limit=7).members) == 7


def test_a_side_that_is_empty_or_shared_is_refused() -> None:
    with pytest.raises(ArgumentError, match="'nonmembers' must be not empty"):
        Sides(texts("in", 2), ())
    with pytest.raises(GuaranteeError, match="1 texts are both members and non-members"):
        Sides(texts("in", 2), (Example("IN  1"), Example("out")))


@pytest.mark.parametrize(("fpr", "needed"), [(0.01, 100), (0.001, 1000), (0.03, 34), (0.5, 2)])
def test_non_members_must_resolve_the_asked_fpr(fpr: float, needed: int) -> None:
    Sides(texts("in", 2), texts("out", needed)).require(fpr)
    too_few = Sides(texts("in", 2), texts("out", needed - 1))
    with pytest.raises(
        GuaranteeError, match=rf"'fpr' must be at least 1/{needed - 1}, .*got {fpr:g}; give at least {needed}"
    ):
        too_few.require(fpr)


def test_an_fpr_is_a_share() -> None:
    with pytest.raises(ArgumentError, match="'fpr' must be a number with 0 < fpr < 1, got 1"):
        Sides(texts("in", 2), texts("out", 2)).require(1)


@pytest.mark.parametrize(("inside", "outside"), [(120, 120), (400, 90), (3, 5), (2, 2)])
def test_coins_are_fair_and_take_each_text_once(inside: int, outside: int) -> None:
    sides = Sides(texts("in", inside), texts("out", outside))
    heads = []
    for seed in range(300):
        places, included = sides.by_coins(np.random.default_rng(seed))
        assert len(set(places.tolist())) == len(places)
        assert (sides.inside[places] == included).all()
        heads.append(int(included.sum()))
    count = len(places)
    assert count >= min(inside, outside)
    assert count >= 2 * min(inside, outside) - 8 * min(inside, outside) ** 0.5
    # Of a fixed number of fair coins, heads are binomial: their total over the runs is, too.
    assert stats.binomtest(sum(heads), 300 * count).pvalue > 1e-4
    assert np.var(heads) == pytest.approx(count / 4, rel=0.35)


def test_a_bound_on_coins_raises_no_more_false_alarms_than_it_may() -> None:
    # Members and non-members score alike, as under a model that saw neither; their numbers differ on purpose.
    sides, runs = Sides(texts("in", 60), texts("out", 90)), 300
    alarms = 0
    for run in range(runs):
        generator = np.random.default_rng(run)
        places, included = sides.by_coins(generator)
        scores = generator.normal(size=150)[places]
        bound = one_run.from_scores(scores, included, delta=1e-5, analysis="approximate", generator=generator)
        alarms += bound.epsilon > 0
    assert stats.binom.sf(alarms - 1, runs, 0.05) > 1e-3
