import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustnlp import checks
from trustnlp.errors import ArgumentError, TrustnlpError

NOT_NUMBERS = [math.nan, math.inf, -math.inf, "3", None, True]


@pytest.mark.parametrize("value", [*NOT_NUMBERS, 0, -1])
def test_positive_refuses(value: object) -> None:
    with pytest.raises(ArgumentError, match="'epsilon' must be a number > 0, got"):
        checks.positive("epsilon", value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [*NOT_NUMBERS, -1e-9])
def test_non_negative_refuses(value: object) -> None:
    with pytest.raises(ArgumentError, match="'margin' must be a number >= 0, got"):
        checks.non_negative("margin", value)  # type: ignore[arg-type]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_interval_checks_agree_with_python(value: float) -> None:
    for check, holds in ((checks.inside, 0 < value < 1), (checks.within, 0 <= value <= 1)):
        if holds:
            assert check("delta", value, 0, 1) == value
        else:
            with pytest.raises(ArgumentError, match="'delta' must be"):
                check("delta", value, 0, 1)


@pytest.mark.parametrize("value", [2, 2.5, True, "4", None])
def test_at_least_wants_whole_numbers(value: object) -> None:
    with pytest.raises(ArgumentError, match="'seed' must be a whole number >= 3, got"):
        checks.at_least("seed", value, 3)  # type: ignore[arg-type]


def test_one_of_lists_the_options() -> None:
    assert checks.one_of("unit", "user", ("user", "example")) == "user"
    with pytest.raises(ArgumentError, match=r"one of 'user', 'example', got 'word'"):
        checks.one_of("unit", "word", ("user", "example"))


def test_same_length_names_both_partners() -> None:
    assert checks.same_length(gold=[1], predicted=[2]) == 1
    with pytest.raises(ArgumentError, match=r"'gold' and 'predicted'.*'gold': 1, 'predicted': 2"):
        checks.same_length(gold=[1], predicted=[2, 3])


def test_not_empty() -> None:
    with pytest.raises(ArgumentError, match="'texts' must be not empty"):
        checks.not_empty("texts", [])


def test_an_argument_error_is_a_value_error_and_ends_with_the_mend() -> None:
    with pytest.raises(ValueError, match=r"; give a budget such as 8$") as caught:
        checks.positive("epsilon", -1, mend="give a budget such as 8")
    assert isinstance(caught.value, TrustnlpError)
