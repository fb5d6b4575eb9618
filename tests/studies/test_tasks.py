from typing import Any

import pytest

from trustnlp import models
from trustnlp.data.corpus import Answer, Corpus, Example
from trustnlp.data.registry import Task
from trustnlp.randomness import Streams
from trustnlp.studies import tasks

CASES: dict[Task, tuple[Example, type[Any], dict[str, int]]] = {
    Task.SLOTS: (
        Example("play jazz", "music", ("O", "B-x")),
        models.NLUModel,
        {"width": 8, "hidden": 8, "buckets": 64},
    ),
    Task.CLASSIFICATION: (Example("play jazz", "music"), models.NLUModel, {"width": 8, "hidden": 8, "buckets": 64}),
    Task.TAGGING: (Example("play jazz", None, ("O", "B-x")), models.NLUModel, {"width": 8, "hidden": 8, "buckets": 64}),
    Task.SPAN_QA: (
        Example("it rains in rome", question="where", answers=(Answer(12, "rome"),)),
        models.SpanModel,
        {"width": 8, "hidden": 8, "buckets": 64},
    ),
    Task.SEQ2SEQ: (Example("hello there", target="hello to you"), models.Seq2SeqModel, {"width": 8, "hidden": 8}),
    Task.LANGUAGE: (Example("play jazz"), models.LanguageModel, {"width": 8, "layers": 1, "heads": 1}),
}


@pytest.mark.parametrize("task", CASES)
def test_every_task_is_known_built_and_judged(task: Task) -> None:
    example, kind, options = CASES[task]
    corpus = Corpus("tiny", (example, example))
    assert tasks.task_of(corpus) is task
    model = tasks.build(None, corpus, streams=Streams(0), **options)
    assert isinstance(model, kind)
    found = models.evaluate(model, model.encode(corpus.train))
    assert 0 <= found["score"] <= 1
