"""Trained models as folders: `model.safetensors`, `config.json`, and `tokenizer.json` where there is one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from trustnlp import files
from trustnlp.data.encoding import Subwords
from trustnlp.errors import ModelError
from trustnlp.models import builder, language_model, masked_language_model, seq2seq, span_qa
from trustnlp.models.heads import NLUModel
from trustnlp.models.language_model import LanguageModel
from trustnlp.models.masked_language_model import MaskedLanguageModel
from trustnlp.models.seq2seq import Pairs, Seq2SeqModel
from trustnlp.models.span_qa import SpanModel

FORMAT = "trustnlp model 1"
CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
Saved = NLUModel | LanguageModel | MaskedLanguageModel | SpanModel | Seq2SeqModel
# By the kind in their configuration; kinds that are not named here are those of `builder`.
_REBUILD: Mapping[str, Callable[[Mapping[str, Any], str | None], Saved]] = {
    language_model.KIND: language_model.rebuild,
    masked_language_model.KIND: masked_language_model.rebuild,
    seq2seq.KIND: seq2seq.rebuild,
    span_qa.KIND: span_qa.rebuild,
    span_qa.PRETRAINED_KIND: span_qa.rebuild,
}
_WITH_TOKENIZER = (
    builder.PRETRAINED,
    language_model.KIND,
    masked_language_model.KIND,
    seq2seq.KIND,
    span_qa.PRETRAINED_KIND,
)


def save(model: Saved, folder: str | Path) -> None:
    """Writes the model. `config.json` comes last and names the weights' hash, so a torn folder never loads.

    Raises:
        ModelError: a model that was trained elsewhere, of which only Transformers can write what it needs.
    """
    if not model.config:
        reason = f"a {type(model).__name__} cannot be built again by trustnlp"
        raise ModelError(reason, "use model.model.save_pretrained")
    folder = Path(folder)
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    with files.whole(folder / WEIGHTS) as part:
        save_file(tensors, part)
    if isinstance(model.encoding, Subwords | Pairs):
        files.write_text(folder / TOKENIZER, model.encoding.to_json())
    files.write_json(
        folder / CONFIG, {"format": FORMAT, "weights_sha256": files.sha256(folder / WEIGHTS), **model.config}
    )


def is_ours(folder: str | Path) -> bool:
    """Whether `save` wrote the folder."""
    try:
        return bool(json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8")).get("format") == FORMAT)
    except (OSError, ValueError, AttributeError):
        return False


def load(folder: str | Path) -> Saved:
    """The model that `save` wrote, bit for bit, in evaluation mode and on the CPU.

    Raises:
        ModelError: the folder was not written by `save`, is not whole, or is damaged.
    """
    folder = Path(folder)
    if not is_ours(folder):
        raise ModelError(
            f"{str(folder)!r} has no {CONFIG} of a trustnlp model", "give a folder written by trustnlp, or train one"
        )
    config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    del config["format"]
    try:
        if files.sha256(folder / WEIGHTS) != config.pop("weights_sha256"):
            raise ModelError(f"{str(folder / WEIGHTS)!r} does not belong to its {CONFIG}", "train and save it again")
        tokenizer = (folder / TOKENIZER).read_text(encoding="utf-8") if config["kind"] in _WITH_TOKENIZER else None
        with torch.random.fork_rng(devices=[]):
            model = _REBUILD.get(config["kind"], builder.rebuild)(config, tokenizer)
        model.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, KeyError, RuntimeError, TypeError, SafetensorError) as error:
        raise ModelError(f"{str(folder)!r} cannot be loaded ({error})", "train and save it again") from error
    return model.eval()
