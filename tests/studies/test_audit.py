"""Audits of checkpoints that were trained and saved by plain PyTorch and Hugging Face code."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from trustnlp import data
from trustnlp import models as ours
from trustnlp.errors import ArgumentError, CorpusError, GuaranteeError, ModelError, RunError
from trustnlp.randomness import Streams
from trustnlp.results import Results, Verdict
from trustnlp.studies import audit

VOCABULARY = """
    he she him her his music rain alarm call play stop wake please now today loud again twice never soft the a my red
    green seven nine home train door light milk bread river stone cloud paper glass
"""
WORDS = VOCABULARY.split()
LABELS = ("alarm", "music", "phone")
SIZE = 120
MEMBERSHIP = {f"membership-loss-{figure}" for figure in ("auc", "tpr-at-1pct-fpr", "tpr-at-0-1pct-fpr")}

Row = tuple[str, str]


def rows() -> tuple[list[Row], list[Row]]:
    """Members and non-members of one distribution: random words and random labels, which can only be memorised."""
    generator = np.random.default_rng(0)
    texts = {" ".join(generator.choice(WORDS, 6)) for _ in range(2 * SIZE)}
    drawn = [(text, str(generator.choice(LABELS))) for text in sorted(texts)]
    generator.shuffle(drawn)
    found = [(str(text), str(label)) for text, label in drawn]
    return found[:SIZE], found[SIZE:]


MEMBERS, NONMEMBERS = rows()


def write(path: Path, given: list[Row], *columns: str) -> Path:
    """A CSV file with these columns and a group column, by turns a and b."""
    with path.open("w", newline="") as out:
        table = csv.writer(out)
        table.writerow([*columns, "group"])
        table.writerows([*row[: len(columns)], "ab"[i % 2]] for i, row in enumerate(given))
    return path


def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")  # noqa: S106


def save(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def overfit(model: Any, steps: int, **targets: torch.Tensor) -> None:
    batch = tokenizer()([text for text, _ in MEMBERS], return_tensors="pt", return_token_type_ids=False)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        model(**batch, **targets or {"labels": batch["input_ids"]}).loss.backward()
        optimizer.step()


def bert(**more: Any) -> BertConfig:
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    size = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 96}
    return BertConfig(vocab_size=len(WORDS) + 2, max_position_embeddings=16, **size, **none, **more)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {name: i for i, name in enumerate(LABELS)}}
    none = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    size = {"n_embd": 48, "n_layer": 1, "n_head": 2, "n_positions": 16, "bos_token_id": 0, "eos_token_id": 0}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        classifier = BertForSequenceClassification(bert(**names)).train()
        overfit(classifier, 60, labels=torch.tensor([LABELS.index(label) for _, label in MEMBERS]))
        language = GPT2LMHeadModel(GPT2Config(vocab_size=len(WORDS) + 2, **size, **none)).train()
        overfit(language, 120)
        made = {"classifier": classifier, "language": language, "masked": BertForMaskedLM(bert())}
        return {name: save(model, root / name) for name, model in made.items()}


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


def test_an_overfitted_classifier_leaks(request_of: audit.Request, tmp_path: Path) -> None:
    stages = []
    results = audit.run(request_of, tmp_path / "run", progress=lambda stage, *_: stages.append(stage), command="c")
    ids = {finding.id: finding for finding in results}
    assert set(ids) == MEMBERSHIP | {
        "blind-classifier-auc",
        "label-accuracy",
        "label-error-gap",
        "counterfactual-flip-rate",
    }
    assert ids["membership-loss-auc"].verdict is Verdict.LEAKS
    assert ids["membership-loss-auc"].low > 0.8
    assert ids["membership-loss-tpr-at-0-1pct-fpr"].verdict is Verdict.INSUFFICIENT_EVIDENCE  # 120 cannot resolve it
    assert ids["blind-classifier-auc"].verdict is not Verdict.BIASED_SPLIT
    assert ids["label-accuracy"].value == pytest.approx(plain_accuracy(request_of.model))
    assert {finding.regime for finding in results} == {"", "audited"}
    assert stages == ["attack", "measuring"]
    assert results.run["corpus"] == {"name": "out", "members": SIZE, "nonmembers": SIZE}

    assert Results.load(tmp_path / "run").findings == results.findings
    written = "".join(path.read_text() for path in (tmp_path / "run").iterdir())
    assert not any(text in written for text, _ in MEMBERS + NONMEMBERS)


def test_the_same_seed_gives_the_same_results(request_of: audit.Request, tmp_path: Path) -> None:
    one, same = (audit.run(request_of, tmp_path / name) for name in ("one", "same"))
    assert one.findings == same.findings
    assert audit.run(request_of, tmp_path / "one").findings == one.findings  # gone on with
    with pytest.raises(RunError, match=r"holds another run \(seed differ\)"):
        audit.run(replace(request_of, seed=2), tmp_path / "one")


def test_a_language_model_is_attacked_but_has_no_utility(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    sides = (write(tmp_path / "in.csv", MEMBERS, "text"), write(tmp_path / "out.csv", NONMEMBERS, "text"))
    results = audit.run(audit.Request(str(checkpoints["language"]), *sides, seed=1), tmp_path / "run")
    assert {finding.id for finding in results} == MEMBERSHIP | {"blind-classifier-auc"}
    assert results.get("membership-loss-auc", "audited").verdict is Verdict.LEAKS


def test_a_folder_of_ours_is_audited_too(files: tuple[Path, Path], tmp_path: Path) -> None:
    model = ours.build("bilstm", data.load(files[0]), streams=Streams(0), buckets=64, width=8, hidden=8)
    ours.save(model, tmp_path / "model")
    results = audit.run(audit.Request(str(tmp_path / "model"), *files, seed=1), tmp_path / "run")
    assert results.get("membership-loss-auc", "audited").verdict is not Verdict.LEAKS  # it was never trained


@pytest.mark.parametrize("disguise", [str, str.upper, lambda text: f"  {text.replace(' ', '  ')} "])
def test_texts_on_both_sides_are_refused_and_not_shown(
    request_of: audit.Request, tmp_path: Path, disguise: Any
) -> None:
    shared = [(disguise(text), label) for text, label in MEMBERS[:3]]
    spoiled = write(tmp_path / "out.csv", NONMEMBERS + shared, "text", "label")
    with pytest.raises(GuaranteeError, match="3 texts are both members and non-members") as refused:
        audit.run(replace(request_of, nonmembers=spoiled), tmp_path / "run")
    assert not any(text.lower() in str(refused.value).lower() for text, _ in MEMBERS[:3])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("missing", ["members", "nonmembers"])
def test_both_files_are_needed(request_of: audit.Request, missing: str) -> None:
    with pytest.raises(ArgumentError, match=f"'{missing}' must be given, as an audit compares"):
        replace(request_of, **{missing: None})


def test_a_masked_language_model_is_refused(
    request_of: audit.Request, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="BertForMaskedLM"):
        audit.run(replace(request_of, model=str(checkpoints["masked"])), tmp_path / "run")
    assert not (tmp_path / "run").exists()


class TestWithoutALoss:
    """A text that the model cannot score is never left out in silence."""

    @pytest.mark.parametrize("side", ["members", "nonmembers"])
    def test_no_label_column(self, request_of: audit.Request, tmp_path: Path, side: str) -> None:
        bare = write(tmp_path / "bare.csv", MEMBERS if side == "members" else NONMEMBERS, "text")
        with pytest.raises(CorpusError, match=r"members have no label, .*; add a label column to both files"):
            audit.run(replace(request_of, **{side: bare}), tmp_path / "run")
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("side", ["members", "nonmembers"])
    def test_a_label_that_the_model_does_not_know(self, request_of: audit.Request, tmp_path: Path, side: str) -> None:
        texts = MEMBERS if side == "members" else NONMEMBERS
        strange = write(tmp_path / "strange.csv", [(texts[0][0], "karaoke"), *texts[1:]], "text", "label")
        with pytest.raises(GuaranteeError, match=rf"1 of {SIZE} (non-)?members have no loss under this model"):
            audit.run(replace(request_of, **{side: strange}), tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_labels_by_number_are_known(self, request_of: audit.Request, tmp_path: Path) -> None:
        numbered = [(text, str(LABELS.index(label))) for text, label in NONMEMBERS]
        named = audit.run(request_of, tmp_path / "named")
        found = audit.run(
            replace(request_of, nonmembers=write(tmp_path / "out.csv", numbered, "text", "label")), tmp_path / "run"
        )
        assert found.get("label-accuracy", "audited") == named.get("label-accuracy", "audited")

    def test_a_text_too_short_for_a_language_model(
        self, checkpoints: dict[str, Path], files: tuple[Path, Path], tmp_path: Path
    ) -> None:
        short = write(tmp_path / "out.csv", [*NONMEMBERS, ("rain", "")], "text")
        request = audit.Request(str(checkpoints["language"]), files[0], short, seed=1)
        with pytest.raises(GuaranteeError, match=rf"1 of {SIZE + 1} non-members have no loss"):
            audit.run(request, tmp_path / "run")
