"""The words of the built-in tests: enough of them, none twice, known to a common vocabulary, and of use."""

import os
from pathlib import Path

import numpy as np
import pytest

from trustnlp.fairness.association import FEWEST_TARGETS
from trustnlp.fairness.gender_tests import PERSONS, PROFESSION_PROBABILITIES, WORD_TESTS
from trustnlp.fairness.ilps import ilps
from trustnlp.fairness.scorer import open_scorer
from trustnlp.fairness.weat import seat
from trustnlp.models import build_masked_language_model
from trustnlp.randomness import Streams

DATA = os.environ.get("TRUSTNLP_DATA")


@pytest.mark.parametrize("test", WORD_TESTS, ids=lambda test: test.name)
def test_sets_are_disjoint_and_large_enough(test):
    sets = (test.targets_x, test.targets_y, test.attributes_a, test.attributes_b)
    words = [word for each in sets for word in each]
    assert len(words) == len(set(words))
    assert min(map(len, sets)) >= 2 * FEWEST_TARGETS
    assert len(test.targets_x) == len(test.targets_y)
    assert all(word == word.lower() for word in words)


@pytest.fixture(scope="module")
def vocabulary():
    if DATA is None:
        pytest.skip("TRUSTNLP_DATA is not set")
    return Path(DATA) / "tokenizers" / "bert" / "vocab.txt"


def test_group_words_are_single_pieces_of_a_common_vocabulary(vocabulary):
    pieces = set(vocabulary.read_text().split())
    assert {word for pair in PERSONS for word in pair} <= pieces
    assert {word for test in WORD_TESTS for word in (*test.targets_x, *test.targets_y)} - pieces <= {
        "plumber", "hairdresser", "midwife", "babysitter", "receptionist", "florist", "nanny",
    }  # fmt: skip


def test_a_model_without_training_is_asked_end_to_end(vocabulary):
    model = build_masked_language_model(vocabulary, streams=Streams(0), width=16, heads=2).eval()
    scorer = open_scorer(model)
    found = [
        *seat(scorer, WORD_TESTS[:1], generator=np.random.default_rng(0), sentences=["This is {}."]),
        *ilps(scorer, [PROFESSION_PROBABILITIES], generator=np.random.default_rng(0)),
    ]
    assert [finding.id for finding in found] == ["seat-career-family", "ilps-professions"]
    assert abs(found[1].value) < 0.1
