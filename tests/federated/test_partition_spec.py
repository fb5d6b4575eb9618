import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustnlp.errors import ArgumentError
from trustnlp.federated.partition_spec import METHODS, Spec, parse

SPECS = [
    "iid", "label:alpha=0.5", "quantity:beta=1.0,least=1", "activity:exponent=0.0", "user", "time:periods=4",
    "cluster:clusters=10,alpha=0.5,vectors=tfidf",
]  # fmt: skip


@pytest.mark.parametrize("text", SPECS)
def test_a_spec_is_read_back_from_its_own_words(text):
    assert str(parse(text)) == text
    assert parse(str(parse(text))) == parse(text)


def test_every_method_has_a_spec_here():
    assert {parse(text).method for text in SPECS} == set(METHODS)


@given(st.floats(min_value=1e-300, max_value=1e300), st.integers(1, 10**6))
def test_numbers_are_read_exactly(alpha, clusters):
    spec = parse(f" cluster: clusters = {clusters} , alpha={alpha!r},vectors=minilm ")
    assert (spec["alpha"], spec["clusters"], spec["vectors"]) == (alpha, clusters, "minilm")


def test_what_is_left_out_has_its_default():
    assert parse("quantity:beta=2") == Spec("quantity", (("beta", 2.0), ("least", 1)))
    assert parse("cluster:alpha=1,clusters=3")["vectors"] == "tfidf"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'partition' must be one of 'iid', 'label'"),
        ("labels:alpha=1", "'partition' must be one of 'iid', 'label'"),
        ("label", r"'partition' must be like label:alpha=…, with alpha, got 'label'"),
        ("label:alpha", r"like label:alpha=…, each parameter once"),
        ("label:beta=1", r"like label:alpha=…, each parameter once"),
        ("label:alpha=1,alpha=2", "each parameter once"),
        ("iid:alpha=1", "iid without parameters, each parameter once"),
        ("cluster:vectors=tfidf", r"like cluster:clusters=…,alpha=…,\[vectors=…\], with clusters and alpha"),
        ("label:alpha=many", "'alpha' must be a number, got 'many'"),
        ("label:alpha=0", "'alpha' must be a number > 0"),
        ("label:alpha=inf", "'alpha' must be a number > 0"),
        ("label:alpha=nan", "'alpha' must be a number > 0"),
        ("activity:exponent=-1", "'exponent' must be a number >= 0"),
        ("time:periods=0", "'periods' must be a whole number >= 1"),
        ("time:periods=2.5", "'periods' must be a whole number >= 1, got '2.5'"),
        ("cluster:clusters=2,alpha=1,vectors=bert", "'vectors' must be one of 'tfidf', 'minilm', got 'bert'"),
    ],
)
def test_what_is_not_understood_is_said(text, message):
    with pytest.raises(ArgumentError, match=message):
        parse(text)
