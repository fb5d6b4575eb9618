import os
from pathlib import Path

import pytest

from trustnlp.data.regard import RegardText, read_regard
from trustnlp.errors import CorpusError

DATA = os.environ.get("TRUSTNLP_DATA")


def test_labelled_texts_and_samples(tmp_path):
    (tmp_path / "train.tsv").write_text("-1\tXYZ stole.\n\n0\tXYZ sat.\n1\tXYZ won.\n2\tXYZ\n")
    assert [text.label for text in read_regard(tmp_path / "train.tsv")] == ["negative", "neutral", "positive", "other"]
    assert read_regard(tmp_path / "train.tsv")[0].text == "XYZ stole."
    (tmp_path / "samples.tsv").write_text('The man said "no.\nThe man sat.\n')
    found = read_regard(tmp_path / "samples.tsv")
    assert found == (RegardText('The man said "no.', None), RegardText("The man sat.", None))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0\tXYZ sat.\n5\tXYZ won.\n", ":2: no code and text parted by a tab; write -1, 0, 1 or 2 first"),
        ("0\tXYZ sat.\n1\t\n", ":2: no code and text"),
        ("0\tXYZ sat.\nXYZ won.\n", ":2: no code and text"),
        ("\n", "no texts in this file"),
    ],
)
def test_malformed_files_are_refused(tmp_path, content, message):
    (tmp_path / "a.tsv").write_text(content)
    with pytest.raises(CorpusError, match=message):
        read_regard(tmp_path / "a.tsv")


@pytest.mark.skipif(DATA is None, reason="needs $TRUSTNLP_DATA/regard")
def test_the_original_files():
    folder = Path(DATA) / "regard"
    assert sum(len(read_regard(folder / f"regard/{split}.tsv")) for split in ("train", "dev", "test")) == 302
    assert sum(len(read_regard(file)) for file in (folder / "generated_samples").glob("*.tsv")) == 12_240
