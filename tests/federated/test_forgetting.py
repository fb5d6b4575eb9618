"""Forgetting, against matrices worked out by hand and against what a model loses by construction."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.federated import forgetting
from trustnlp.results import Direction, Verdict

# Period 0 is forgotten from .9 over .7 to .5; period 1 was best in the middle, at .8, and ends at .6.
MATRIX = [[0.9, 0.2, 0.1], [0.7, 0.8, 0.3], [0.5, 0.6, 0.7]]

scores = st.integers(2, 5).flatmap(lambda p: arrays(float, (p, p), elements=st.floats(0, 1)))


def test_by_hand() -> None:
    assert forgetting.average(MATRIX) == pytest.approx((0.5 + 0.6 + 0.7) / 3)
    assert forgetting.forgetting(MATRIX) == pytest.approx(((0.9 - 0.5) + (0.8 - 0.6)) / 2)
    assert forgetting.backward_transfer(MATRIX) == pytest.approx(((0.5 - 0.9) + (0.6 - 0.8)) / 2)
    assert forgetting.all_data_gap(MATRIX, [0.8, 0.8, 0.8]) == pytest.approx(0.2)


def test_the_best_need_not_be_at_the_end_of_its_own_period() -> None:
    """The two measures differ where a later period first teaches, and a still later one takes away."""
    found = [[0.5, 0, 0], [0.9, 0.5, 0], [0.6, 0.5, 0.5]]
    assert forgetting.forgetting(found) == pytest.approx(((0.9 - 0.6) + 0) / 2)
    assert forgetting.backward_transfer(found) == pytest.approx((0.1 + 0) / 2)


def test_planted_truth() -> None:
    """A model that knows its own period alone forgets all; one that keeps everything forgets nothing."""
    assert forgetting.forgetting(np.eye(4)) == 1
    assert forgetting.backward_transfer(np.eye(4)) == -1
    assert forgetting.average(np.eye(4)) == 0.25
    kept = np.tril(np.ones((4, 4)))
    assert forgetting.forgetting(kept) == forgetting.backward_transfer(kept) == 0
    assert forgetting.average(kept) == 1
    assert forgetting.all_data_gap(kept, np.ones(4)) == 0


@given(scores)
def test_forgetting_is_at_least_what_backward_transfer_says(matrix: np.ndarray) -> None:
    assert -1 <= forgetting.forgetting(matrix) <= 1
    assert forgetting.forgetting(matrix) >= -forgetting.backward_transfer(matrix) - 1e-12


def test_findings_are_means_over_seeds() -> None:
    matrices = np.array([MATRIX, np.array(MATRIX) * 0.9, np.array(MATRIX) * 0.8])
    found = {f.id: f for f in forgetting.findings(matrices, matrices[:, 2] + 0.1)}
    assert list(found) == ["average-accuracy", "forgetting", "backward-transfer", "all-data-gap"]
    lost = found["forgetting"]
    assert lost.value == pytest.approx(0.3 * 0.9)
    # Student's interval of .30, .27, .24: mean .27, standard error .03 / sqrt(3), t(2) = 4.303 at 97.5%.
    assert (lost.low, lost.high) == pytest.approx(
        (0.27 - 4.3027 * 0.03 / 3**0.5, 0.27 + 4.3027 * 0.03 / 3**0.5), abs=1e-4
    )
    assert (lost.direction, lost.ideal, lost.n) == (Direction.LOWER, 0.0, 3)
    assert found["all-data-gap"].value == pytest.approx(0.1)
    np.testing.assert_allclose(found["average-accuracy"].details["scores"], np.array(MATRIX) * 0.9)
    alone = forgetting.findings(matrices[:1])
    assert len(alone) == 3
    assert all(f.verdict is Verdict.INSUFFICIENT_EVIDENCE and f.low is None for f in alone)


def test_what_is_no_matrix_of_scores_is_refused() -> None:
    with pytest.raises(ArgumentError, match="a row for each period"):
        forgetting.forgetting([[0.5, 0.5]])
    with pytest.raises(ArgumentError, match="at least 2"):
        forgetting.backward_transfer([[0.5]])
    with pytest.raises(GuaranteeError, match="NaN or outside"):
        forgetting.average([[np.nan]])
    with pytest.raises(ArgumentError, match="one length"):
        forgetting.all_data_gap(MATRIX, [0.5])
    with pytest.raises(ArgumentError, match="seeds"):
        forgetting.findings(MATRIX)
