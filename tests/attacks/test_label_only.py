import numpy as np
import pytest

from trustnlp.attacks.label_only import gap_score, robustness_score
from trustnlp.attacks.membership import auc
from trustnlp.errors import ArgumentError

TEXTS = ["play some jazz for me now", "will it rain in rome", "stop"]
LABELS = ["music", "weather", "other"]


def seeded(seed=0):
    return np.random.default_rng(seed)


def test_right_answers_look_like_members():
    assert gap_score([True, False]).tolist() == [1.0, 0.0]
    for bad in ([1, 0], [], [[True]]):
        with pytest.raises(ArgumentError, match="true and false"):
            gap_score(bad)


def test_a_model_that_holds_on_to_its_texts_gives_them_away():
    """Planted: of the same texts, half are answered right only as they were learned, half also when changed."""
    known = [f"text number {n} with a few more words" for n in range(40)]
    anchored = {f"{n}" for n in range(20)}

    def answer(asked):
        return ["yes" if text in known or anchored & set(text.split()) else "no" for text in asked]

    scores = robustness_score(answer, known, ["yes"] * 40, generator=seeded())
    assert ((scores >= 0) & (scores <= 1)).all()
    assert auc(scores[:20], scores[20:])[0] > 0.99
    assert (scores[20:] >= 1 / 17).all()  # the text itself counts as one of 1 + 16
    assert (gap_score(np.array(answer(known)) == "yes") == 1).all()  # the gap alone sees nothing


def test_the_score_is_the_share_of_right_answers():
    asked_for = []

    def answer(asked):
        asked_for.append(asked)
        return LABELS if len(asked_for) % 2 else ["music", "music", "other"]

    scores = robustness_score(answer, TEXTS, LABELS, generator=seeded(), draws=4, share=0.3)
    assert scores == pytest.approx([1, 3 / 5, 1])
    assert asked_for[0] == TEXTS
    assert len(asked_for) == 5


def test_the_same_seed_gives_the_same_score():
    def answer(asked):
        return ["music" if len(text) % 2 else "weather" for text in asked]

    first, again = (robustness_score(answer, TEXTS, LABELS, generator=seeded(3)) for _ in range(2))
    assert (first == again).all()


def test_bad_input_is_refused():
    with pytest.raises(ArgumentError, match="texts"):
        robustness_score(lambda asked: asked, [], [], generator=seeded())
    with pytest.raises(ArgumentError, match="one length"):
        robustness_score(lambda asked: asked, TEXTS, LABELS[:2], generator=seeded())
    with pytest.raises(ArgumentError, match="draws"):
        robustness_score(lambda asked: asked, TEXTS, LABELS, generator=seeded(), draws=0)
    with pytest.raises(ArgumentError, match="3 labels"):
        robustness_score(lambda asked: ["music"], TEXTS, LABELS, generator=seeded())
