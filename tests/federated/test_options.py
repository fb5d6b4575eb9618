from dataclasses import dataclass

import pytest

from trustnlp import checks
from trustnlp.errors import ArgumentError
from trustnlp.federated import options


@dataclass(frozen=True)
class Box:
    width: float
    count: int = 2
    colour: str = "red"

    def __post_init__(self) -> None:
        checks.positive("width", self.width)


@dataclass(frozen=True)
class Bag:
    size: float = 1.0


KINDS = {"box": Box, "bag": Bag}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("bag", Bag()),
        ("bag:", Bag()),
        ("bag:size=inf", Bag(float("inf"))),
        ("box:width=2,count=3,colour=blue", Box(2.0, 3, "blue")),
        (" box : width = 2 ,", Box(2.0)),
    ],
)
def test_records_are_read(text, found):
    assert options.named("thing", text, KINDS) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sack", "'thing' must be one of 'box', 'bag', got 'sack'"),
        ("box:depth=1", "one of 'width', 'count', 'colour', got 'depth'"),
        ("box:width=1,width=2", "'width' once"),
        ("box:count=2", "options .width, count, colour."),
        ("box:width=wide", "'width' must be a number, got 'wide'"),
        ("box:width=1,count=1.5", "'count' must be a whole number, got '1.5'"),
        ("box:width=-1", "a number > 0"),
        ("box:width", "'width' must be a number, got ''"),
    ],
)
def test_what_cannot_be_read_is_refused(text, message):
    with pytest.raises(ArgumentError, match=message):
        options.named("thing", text, KINDS)
