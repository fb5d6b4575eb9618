import pytest

from trustnlp.data.civil_comments import IDENTITIES, Comment, read_civil_comments
from trustnlp.errors import CorpusError

HEADER = "id,target,comment_text,male,female,black\n"


def write(path, *rows):
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows))
    return path


def test_identities_are_shares_or_absent(tmp_path):
    path = write(tmp_path / "train.csv", '1,0.25,"Well, no.",0,1.0,0.5', "2,0,Yes.,,,")
    assert read_civil_comments(path) == (
        Comment("Well, no.", 0.25, {"male": 0.0, "female": 1.0, "black": 0.5}),
        Comment("Yes.", 0.0, {}),
    )
    assert len(IDENTITIES) == 24


def test_json_lines_with_the_later_names(tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text('{"text": "No.", "toxicity": 1, "muslim": 0.5, "jewish": null}\n')
    assert read_civil_comments(path) == (Comment("No.", 1.0, {"muslim": 0.5}),)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,1.5,No.,0,0,0", ":2: 'target' is '1.5'; give a number from 0 to 1"),
        ("1,,No.,0,0,0", ":2: the comment has no toxicity"),
        ("1,0.5,,0,0,0", ":2: the row has no text 'comment_text'"),
        ("1,0.5,No.,x,0,0", ":2: 'male' is 'x'"),
        ("1,0.5,No.,nan,0,0", ":2: 'male' is 'nan'"),
    ],
)
def test_malformed_rows_are_refused(tmp_path, row, message):
    with pytest.raises(CorpusError, match=message) as caught:
        read_civil_comments(write(tmp_path / "train.csv", row))
    assert caught.value.mend


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("target,comment_text", "no column of an identity"),
        ("target,body,male", "no column 'comment_text' or 'text'"),
        ("label,comment_text,male", "no column 'target' or 'toxicity'"),
    ],
)
def test_missing_columns_are_named(tmp_path, header, message):
    (tmp_path / "train.csv").write_text(f"{header}\n" + ",".join("1" for _ in header.split(",")) + "\n")
    with pytest.raises(CorpusError, match=message):
        read_civil_comments(tmp_path / "train.csv")
