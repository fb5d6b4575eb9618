from pathlib import Path

import pytest
import torch

from trustnlp.data import Example
from trustnlp.errors import ArgumentError
from trustnlp.models import losses
from trustnlp.randomness import Streams
from trustnlp.results import Verdict
from trustnlp.studies import language_training
from trustnlp.studies.language_training import FITTED, MEMORISED, PRIVATE, REFERENCE, build, train
from trustnlp.studies.recipes import PrivateRecipe, Recipe

TEXTS = tuple(Example(f"number {i} is {i * i}") for i in range(40))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_training, "_SHAPE", {"width": 16, "layers": 1, "heads": 2, "max_pieces": 32})
    plain = {REFERENCE: Recipe(3e-3, 8, 3, 1), FITTED: Recipe(3e-3, 8, 2), MEMORISED: Recipe(3e-3, 8, 6)}
    monkeypatch.setattr(language_training, "_PLAIN", plain)
    monkeypatch.setattr(language_training, "_PRIVATE", PrivateRecipe(5e-3, 8, 2, options={"dropout": 0.0}))


def trained(training: str, folder: Path, heard: list[int] | None = None) -> language_training.Trained:
    def progress(stage, done, total, figures):
        if heard is not None:
            heard.append(done)

    return train(
        training,
        TEXTS[:30],
        TEXTS[30:],
        vocabulary="bytes",
        streams=Streams(3),
        folder=folder,
        device="cpu",
        progress=progress,
    )


@pytest.mark.parametrize("training", [REFERENCE, FITTED, MEMORISED, PRIVATE])
def test_what_was_trained_is_taken_from_its_folder(training, tmp_path):
    first, heard = trained(training, tmp_path), []
    again = trained(training, tmp_path, heard)
    assert heard == []
    assert not again.model.training
    state = again.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in first.model.state_dict().items())
    assert again.findings == first.findings


def test_longer_training_fits_better(tmp_path):
    fitted, memorised = (trained(name, tmp_path / name).model for name in (FITTED, MEMORISED))
    assert losses(memorised, memorised.encode(TEXTS[:30])).mean() < losses(fitted, fitted.encode(TEXTS[:30])).mean()


def test_private_training_keeps_its_budget(tmp_path):
    (finding,) = trained(PRIVATE, tmp_path).findings
    assert (finding.id, finding.verdict) == ("epsilon", Verdict.WITHIN_BUDGET)
    assert 0.9 * language_training.EPSILON < finding.value <= language_training.EPSILON


def test_gpt2s_vocabulary_needs_its_files(monkeypatch):
    monkeypatch.delenv("TRUSTNLP_DATA", raising=False)
    with pytest.raises(ArgumentError, match=r"'vocabulary' must be 'bytes' or a folder where TRUSTNLP_DATA is not set"):
        build("gpt2", Streams(0))


def test_bytes_get_more_positions_as_a_text_has_more_of_them():
    assert build("bytes", Streams(0)).encoding.max_pieces == 64
