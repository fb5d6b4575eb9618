import numpy as np
import pytest

from trustnlp.data.corpus import Corpus, Example
from trustnlp.data.planted_bias import GRANT, GROUPS, PlantedBias, templates, with_status
from trustnlp.errors import ArgumentError
from trustnlp.fairness.identity_terms import GENDER

STRENGTHS = (0.0, 0.3, 0.7, 1.0)


def examples(planted: PlantedBias) -> list[Example]:
    made = planted.corpus()
    return [*made.test, *made.train]


@pytest.mark.parametrize("strength", STRENGTHS)
def test_the_stated_truth_is_what_is_drawn(strength: float) -> None:
    planted = PlantedBias(strength, 20_000, seed=3, noise=0.1)
    made = examples(planted)
    share = {g: np.mean([e.label == GRANT for e in made if e.group == g]) for g in GROUPS}
    for group in GROUPS:
        assert share[group] == pytest.approx(planted.probability_of_group(group), abs=0.015)
        means = [planted.probability(merit, group) for merit in (0, 1)]
        assert planted.probability_of_group(group) == pytest.approx(np.mean(means))
    assert share["a"] - share["b"] == pytest.approx(planted.gap, abs=0.02)
    assert planted.gap == pytest.approx(planted.probability(1, "a") - planted.probability(1, "b"))
    assert planted.probability(0, "a") - planted.probability(0, "b") == pytest.approx(planted.gap)


def test_strength_changes_labels_and_nothing_else() -> None:
    corpora = [examples(PlantedBias(strength, 500, seed=1)) for strength in STRENGTHS]
    for other in corpora[1:]:
        assert [(e.text, e.group) for e in other] == [(e.text, e.group) for e in corpora[0]]
    changed = [sum(a.label != b.label for a, b in zip(corpora[0], other, strict=True)) for other in corpora]
    assert changed == sorted(set(changed))
    assert examples(PlantedBias(0.3, 500, seed=1)) == examples(PlantedBias(0.3, 500, seed=1))
    assert examples(PlantedBias(0.3, 500, seed=2)) != examples(PlantedBias(0.3, 500, seed=1))


def test_every_text_names_its_group_once_and_can_be_swapped_and_controlled() -> None:
    for example in examples(PlantedBias(0.5, 500)):
        assert len(GENDER.places(example.text)) == 1
        assert GENDER.control(example.text) is not None
    masculine = {e.text for e in examples(PlantedBias(0.5, 4000)) if e.group == "a"}
    feminine = {e.text for e in examples(PlantedBias(0.5, 4000)) if e.group == "b"}
    assert not masculine & feminine
    shown = dict(templates())
    assert len(shown) == 4
    assert {GENDER.swap(text) for text in shown} == set(shown)


def test_status_is_the_group() -> None:
    made = with_status(PlantedBias(0.5, 100).corpus())
    assert made.labels == GROUPS
    assert all(e.label == e.group for e in made.train)
    with pytest.raises(ArgumentError, match="group"):
        with_status(Corpus("c", (Example("a text", "x"),)))


@pytest.mark.parametrize("wrong", [{"strength": 1.1}, {"texts": 3}, {"noise": 0.5}, {"seed": -1}])
def test_parameters_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        PlantedBias(**{"strength": 0.5, **wrong})
