import json
import os
from pathlib import Path

import pytest

from trustnlp.data.hatexplain import Annotation, Post, read_hatexplain
from trustnlp.errors import CorpusError

DATA = os.environ.get("TRUSTNLP_DATA")
HEADER = "id,annotators,rationales,post_tokens\n"
SAID = "{'label': [0, 2, 0], 'annotator_id': [7, 8, 9], 'target': [['Women', 'Other'], ['None'], ['Women', 'Men']]}"
NOTES = (
    Annotation("7", "hatespeech", ("Women",)),
    Annotation("8", "offensive", ()),
    Annotation("9", "hatespeech", ("Women", "Men")),
)
POST = Post("p1", "a b", "hatespeech", NOTES)


def write(path, said=SAID, tokens="['a', 'b']"):
    path.write_text(f'{HEADER}p1,"{said}",[],"{tokens}"\n')
    return path


def test_the_table_and_the_original_file_say_the_same(tmp_path):
    assert read_hatexplain(write(tmp_path / "val.csv")) == (POST,)
    notes = [
        {"label": "hatespeech", "annotator_id": 7, "target": ["Women", "Other"]},
        {"label": "offensive", "annotator_id": 8, "target": ["None"]},
        {"label": "hatespeech", "annotator_id": 9, "target": ["Women", "Men"]},
    ]
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"p1": {"post_id": "p1", "annotators": notes, "post_tokens": ["a", "b"]}}))
    assert read_hatexplain(path) == (POST,)


def test_targets_are_counted_by_annotators():
    assert POST.targets() == ("Women",)
    assert POST.targets(votes=1) == ("Men", "Women")


def test_three_different_labels_are_no_label(tmp_path):
    [post] = read_hatexplain(write(tmp_path / "val.csv", SAID.replace("[0, 2, 0]", "[0, 1, 2]")))
    assert post.label is None


def test_labels_without_annotators(tmp_path):
    (tmp_path / "train.json").write_text('[["a b", "normal"], ["c", "offensive"]]')
    assert read_hatexplain(tmp_path / "train.json") == (Post("1", "a b", "normal", ()), Post("2", "c", "offensive", ()))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"said": "{'label': ["}, ":2: a list or mapping that cannot be read"),
        ({"said": "{'label': [0], 'annotator_id': [7, 8], 'target': [[]]}"}, ":2: lists of several lengths"),
        ({"said": "{'label': [5], 'annotator_id': [7], 'target': [[]]}"}, ":2: the row has no text 'label'"),
        ({"said": "[]"}, ":2: 'annotators' has no list 'annotator_id'"),
        ({"tokens": "[3]"}, ":2: post 'p1' has no list of tokens"),
        ({"tokens": "__import__('os')"}, ":2: a list or mapping that cannot be read"),
    ],
)
def test_malformed_tables_are_refused(tmp_path, changed, message):
    with pytest.raises(CorpusError, match=message) as caught:
        read_hatexplain(write(tmp_path / "val.csv", **changed))
    assert caught.value.mend


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[["a", "nice"]]', "1 is 'nice'"),
        ('{"p": {"annotators": [{"label": "nice", "target": []}], "post_tokens": ["a"]}}', "'label' is 'nice'"),
        ('{"p": {"post_tokens": ["a"]}}', "post 'p' has no list 'annotators'"),
        ("{}", "no posts in this file"),
    ],
)
def test_malformed_json_is_refused(tmp_path, content, message):
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(CorpusError, match=message):
        read_hatexplain(tmp_path / "dataset.json")


@pytest.mark.skipif(DATA is None, reason="needs $TRUSTNLP_DATA/hatexplain")
def test_the_original_files():
    folder = Path(DATA) / "hatexplain"
    sizes = [len(read_hatexplain(folder / f"labels/{split}.json")) for split in ("train", "val", "test")]
    assert sizes == [15_383, 1_922, 1_924]
    posts = read_hatexplain(folder / "targets/df_test_processed.csv")
    assert (len(posts), {len(post.annotations) for post in posts}) == (1_924, {3})
    assert all(post.label for post in posts)
