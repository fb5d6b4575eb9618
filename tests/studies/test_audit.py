"""Audits of checkpoints that were trained and saved by plain PyTorch and Hugging Face code."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertForSequenceClassification

from small_checkpoints import LABELS, classifier, language_model, rows, tokenizer, write
from trustnlp.errors import ArgumentError, RunError
from trustnlp.results import Results, Verdict
from trustnlp.studies import audit

SIZE = 120
MEMBERS, NONMEMBERS = rows(SIZE, 2)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {
        "classifier": classifier(MEMBERS, root / "classifier"),
        "language": language_model(MEMBERS, root / "language"),
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("files")
    return write(root / "in.csv", MEMBERS, "text", "label"), write(root / "out.csv", NONMEMBERS, "text", "label")


def plain_accuracy(folder: str) -> float:
    """Of the classifier on the non-members, without this package."""
    batch = tokenizer()([text for text, _ in NONMEMBERS], return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        answers = BertForSequenceClassification.from_pretrained(folder).eval()(**batch).logits.argmax(-1)
    return np.mean([LABELS[i] == label for i, (_, label) in zip(answers.tolist(), NONMEMBERS, strict=True)])


@pytest.fixture
def request_of(checkpoints: dict[str, Path], files: tuple[Path, Path]) -> audit.Request:
    return audit.Request(str(checkpoints["classifier"]), *files, seed=1)


def test_a_checkpoint_is_attacked_and_measured(request_of: audit.Request, tmp_path: Path) -> None:
    stages = []
    results = audit.run(request_of, tmp_path / "run", progress=lambda stage, *_: stages.append(stage), command="c")
    ids = {finding.id: finding for finding in results}
    assert {"label-accuracy", "label-error-gap", "counterfactual-flip-rate"} < set(ids)
    assert ids["membership-loss-auc"].verdict is Verdict.LEAKS
    assert ids["label-accuracy"].value == pytest.approx(plain_accuracy(request_of.model))
    assert ids["label-accuracy"].details["dataset"] == "non-members"
    assert {finding.regime for finding in results} == {"", "audited"}
    assert list(dict.fromkeys(stages)) == ["attack", "measuring"]
    assert Results.load(tmp_path / "run").findings == results.findings
    written = "".join(path.read_text() for path in (tmp_path / "run").iterdir())
    assert not any(text in written for text, _ in MEMBERS + NONMEMBERS)


def test_the_same_seed_gives_the_same_results(request_of: audit.Request, tmp_path: Path) -> None:
    one, same = (audit.run(request_of, tmp_path / name) for name in ("one", "same"))
    assert one.findings == same.findings
    assert audit.run(request_of, tmp_path / "one").findings == one.findings  # gone on with
    with pytest.raises(RunError, match=r"holds another run \(seed differ\)"):
        audit.run(replace(request_of, seed=2), tmp_path / "one")


def test_labels_by_number_are_known(request_of: audit.Request, tmp_path: Path) -> None:
    numbered = [(text, str(LABELS.index(label))) for text, label in NONMEMBERS]
    path = write(tmp_path / "out.csv", numbered, "text", "label")
    named = audit.run(request_of, tmp_path / "named")
    found = audit.run(replace(request_of, nonmembers=path), tmp_path / "run")
    assert found.get("label-accuracy", "audited") == named.get("label-accuracy", "audited")


def test_a_language_model_is_attacked_but_has_no_utility(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    sides = (write(tmp_path / "in.csv", MEMBERS, "text"), write(tmp_path / "out.csv", NONMEMBERS, "text"))
    results = audit.run(audit.Request(str(checkpoints["language"]), *sides, seed=1), tmp_path / "run")
    assert results.get("membership-loss-auc", "audited").verdict is Verdict.LEAKS
    assert not {"label-accuracy", "counterfactual-flip-rate"} & {finding.id for finding in results}


@pytest.mark.parametrize("missing", ["members", "nonmembers"])
def test_both_files_are_needed(request_of: audit.Request, missing: str) -> None:
    with pytest.raises(ArgumentError, match=f"'{missing}' must be given, as an audit compares"):
        replace(request_of, **{missing: None})
