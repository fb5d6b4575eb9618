import json
from pathlib import Path
from typing import Any

import pytest

from trustnlp.data import load, squad
from trustnlp.data.corpus import Answer, Example
from trustnlp.errors import MalformedCorpusError

TEXT = "Ada met Bob in Rome. Bob left."


def article(title: str = "Ada", answers: Any = None, question: str = "Whom did Ada meet?") -> dict[str, Any]:
    found = [{"answer_start": 8, "text": "Bob"}] if answers is None else answers
    return {"title": title, "paragraphs": [{"context": TEXT, "qas": [{"question": question, "answers": found}]}]}


def write(path: Path, *articles: Any) -> Path:
    path.write_text(json.dumps({"version": "1.1", "data": articles}))
    return path


def test_every_question_is_an_example_of_its_article(tmp_path: Path) -> None:
    two = [{"answer_start": 15, "text": "Rome"}, {"answer_start": 12, "text": "in Rome"}]
    path = write(tmp_path / "qa.json", article(), article("Bob", two, " Where? "))
    assert list(squad.read(path)) == [
        Example(TEXT, user="Ada", question="Whom did Ada meet?", answers=(Answer(8, "Bob"),)),
        Example(TEXT, user="Bob", question="Where?", answers=(Answer(15, "Rome"), Answer(12, "in Rome"))),
    ]


def test_a_folder_of_it_is_known_by_its_content(tmp_path: Path) -> None:
    write(tmp_path / "train-v1.1.json", article(), article("Bob"))
    write(tmp_path / "dev-v1.1.json", article("Eve"))
    corpus = load(tmp_path)
    assert (len(corpus.train), len(corpus.valid), len(corpus.test)) == (2, 1, 0)
    assert corpus.users == ("Ada", "Bob")
    assert load(tmp_path / "train-v1.1.json").train[0].question == "Whom did Ada meet?"


def test_other_json_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text('[{"text": "data", "label": "x"}]')
    assert load(tmp_path / "rows.json").train[0].label == "x"
    assert not squad.is_squad(tmp_path / "rows.json")
    (tmp_path / "object.json").write_text('{"text": "a"}')
    with pytest.raises(MalformedCorpusError, match="no JSON array"):
        load(tmp_path / "object.json")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (article(answers=[{"answer_start": 9, "text": "Bob"}]), "article 2, question 1: 'answers' must be pieces"),
        (article(answers=[{"answer_start": -3, "text": "Bob"}]), "must be pieces of the text, each at its place"),
        (article(answers=[{"answer_start": 99, "text": "x"}]), "got 'one of 1 characters at 99'"),
        (article(answers=[]), "article 2, question 1 has no answer; leave out what cannot be answered"),
        (article(answers=[{"text": "Bob"}]), "article 2, question 1: not in the form of SQuAD 1.1"),
        (article(question=" "), "'question' must be not empty"),
        ({"title": "x"}, "article 2 has no list 'paragraphs'"),
        ("x", "article 2 has no list 'paragraphs'"),
        ({"paragraphs": [{"context": TEXT}]}, "article 2 has no list 'qas'"),
        ({"paragraphs": [{"qas": article()["paragraphs"][0]["qas"]}]}, "not in the form of SQuAD 1.1"),
    ],
)
def test_what_breaks_the_format_is_refused_by_its_place(tmp_path: Path, broken: Any, message: str) -> None:
    with pytest.raises(MalformedCorpusError, match=message) as caught:
        list(squad.read(write(tmp_path / "qa.json", article(), broken)))
    assert "Ada met" not in str(caught.value)  # no text in messages


@pytest.mark.parametrize("content", ['{"data": 3}', '{"version": "1.1"}', '{"data": '])
def test_a_broken_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "qa.json").write_text(content)
    with pytest.raises(MalformedCorpusError, match=r"no list 'data'|not JSON"):
        list(squad.read(tmp_path / "qa.json"))


def test_an_empty_file_has_no_text(tmp_path: Path) -> None:
    with pytest.raises(MalformedCorpusError, match="no text in this file"):
        load(write(tmp_path / "qa.json"))
