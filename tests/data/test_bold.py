import json
import os
from pathlib import Path

import pytest

from trustnlp.data.bold import Prompt, read_bold, read_bold_continuations
from trustnlp.errors import CorpusError

DATA = os.environ.get("TRUSTNLP_DATA")


def test_prompts_and_their_continuations_go_together(tmp_path):
    (tmp_path / "race_prompt.json").write_text(
        json.dumps({"A": {"Ada": ["Ada is ", "Ada was\nnot "]}, "B": {"Bo": []}})
    )
    (tmp_path / "gender_prompt.json").write_text(json.dumps({"C": {"Cy": ["Cy has "]}}))
    (tmp_path / "race_wiki.json").write_text(json.dumps({"A": {"Ada": ["Ada is here.", "Ada was\nnot."]}}))
    first, second, third = read_bold(tmp_path)
    assert first == Prompt("gender", "C", "Cy", "Cy has")
    assert (second, third) == (Prompt("race", "A", "Ada", "Ada is"), Prompt("race", "A", "Ada", "Ada was\nnot"))
    assert [one.text for one in read_bold_continuations(tmp_path)] == ["Ada is here.", "Ada was\nnot."]
    assert read_bold(tmp_path / "race_prompt.json") == (second, third)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "the file is no JSON object"),
        ('{"A": []}', "group 'A' is no JSON object"),
        ('{"A": {"Ada": "x"}}', "subject 'Ada' has no list of texts"),
        ('{"A": {"Ada": [3]}}', "subject 'Ada' has no list of texts"),
        ("{}", "no texts in this file"),
        ('{\n"A": }', ":2: not JSON"),
    ],
)
def test_malformed_files_are_refused(tmp_path, content, message):
    (tmp_path / "race_prompt.json").write_text(content)
    with pytest.raises(CorpusError, match=message) as caught:
        read_bold(tmp_path / "race_prompt.json")
    assert caught.value.mend


@pytest.mark.skipif(DATA is None, reason="needs $TRUSTNLP_DATA/bold")
def test_the_original_files():
    prompts, sentences = read_bold(Path(DATA) / "bold/prompts"), read_bold_continuations(Path(DATA) / "bold/wikipedia")
    assert len(prompts) == len(sentences) == 23_679
    assert [one.subject for one in prompts] == [one.subject for one in sentences]
    assert all(whole.text.startswith(begun.text) for begun, whole in zip(prompts, sentences, strict=True))
