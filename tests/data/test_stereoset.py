import json
import os
from collections import Counter
from pathlib import Path

import pytest

from trustnlp.data.stereoset import StereoItem, read_stereoset
from trustnlp.errors import CorpusError

DATA = os.environ.get("TRUSTNLP_DATA")


def entry(number=1, context="The BLANK baker sang.", labels=("unrelated", "stereotype", "anti-stereotype")):
    sentences = [{"id": label, "sentence": f"The {label} baker sang.", "gold_label": label} for label in labels]
    return {
        "id": f"i{number}",
        "target": "baker",
        "bias_type": "profession",
        "context": context,
        "sentences": sentences,
    }


def write(path, **kinds):
    path.write_text(json.dumps({"version": "1.0", "data": kinds}))
    return path


def test_both_kinds_are_read_with_sentences_by_their_labels(tmp_path):
    path = write(tmp_path / "dev.json", intersentence=[entry(2, "A baker came.")], intrasentence=[entry()])
    first, second = read_stereoset(path)
    assert first == StereoItem(
        "i1",
        "intrasentence",
        "profession",
        "baker",
        "The BLANK baker sang.",
        "The stereotype baker sang.",
        "The anti-stereotype baker sang.",
        "The unrelated baker sang.",
    )
    assert (second.id, second.kind, second.context) == ("i2", "intersentence", "A baker came.")


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ({}, "no object 'data' with items by kind"),
        ({"intrasentence": []}, "no items in this file"),
        ({"intrasentence": {}}, "the file has no list 'intrasentence'"),
        ({"intrasentence": [entry(), "x"]}, "intrasentence item 2 has no list 'sentences'"),
        ({"intrasentence": [entry(context="The baker sang.")]}, "intrasentence item 1 has no BLANK"),
        ({"intrasentence": [entry(labels=("stereotype", "unrelated"))]}, "item 1 has no text 'anti-stereotype'"),
        ({"intrasentence": [entry(labels=("stereotype",) * 3)]}, "two sentences labelled 'stereotype'"),
        ({"intrasentence": [entry(labels=("related",) * 3)]}, "'gold_label' is 'related'"),
        ({"intrasentence": [entry(), entry()]}, "two items have the id 'i1'"),
    ],
)
def test_malformed_files_are_refused(tmp_path, kinds, message):
    with pytest.raises(CorpusError, match=message) as caught:
        read_stereoset(write(tmp_path / "dev.json", **kinds))
    assert caught.value.mend
    assert "dev.json" in str(caught.value)


@pytest.mark.skipif(DATA is None, reason="needs $TRUSTNLP_DATA/stereoset")
def test_the_original_file():
    items = read_stereoset(Path(DATA) / "stereoset/dev.json")
    assert Counter(item.kind for item in items) == {"intrasentence": 2106, "intersentence": 2123}
    assert {item.bias_type for item in items} == {"gender", "profession", "race", "religion"}
