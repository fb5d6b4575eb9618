"""Any encoder-decoder of Transformers behind the contract of `seq2seq`, such as BART, T5 or Marian.

Shape legend: B batch, T pieces of the target, V vocabulary.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel

from trustnlp.errors import ModelError
from trustnlp.models.heads import word_mask
from trustnlp.models.pretrained import open_subwords, open_weights, pad_of
from trustnlp.models.protocol import Batch
from trustnlp.models.seq2seq import Pairs, Seq2SeqModel


class PretrainedSeq2Seq(Seq2SeqModel):
    """A pretrained encoder-decoder, to be trained further or asked as it is.

    Args:
        model: of Transformers, with logits (B, T, V).
        encoding: its tokenizer, which puts the ends there itself.
    """

    def __init__(self, model: PreTrainedModel, encoding: Pairs) -> None:
        super().__init__(encoding)
        self.model = model

    def logits(self, batch: Batch) -> dict[str, Tensor]:
        """`pieces` (B, T, V)."""
        pieces = batch.inputs["pieces"]
        mask = word_mask(batch.inputs["spans"], pieces.shape[1]).long()
        found = self.model(
            input_ids=pieces, attention_mask=mask, decoder_input_ids=batch.inputs["previous"], use_cache=False
        )
        return {"pieces": found.logits}

    def search(self, batch: Batch, width: int, longest: int) -> list[list[int]]:
        """Transformers' own greedy or beam search."""
        pieces = batch.inputs["pieces"]
        mask = word_mask(batch.inputs["spans"], pieces.shape[1]).long()
        found = self.model.generate(
            input_ids=pieces, attention_mask=mask, num_beams=width, do_sample=False, max_new_tokens=longest
        )
        rows: list[list[int]] = found[:, 1:].tolist()
        return rows


def load_seq2seq(source: str | Path, *, max_pieces: int = 256) -> PretrainedSeq2Seq:
    """The encoder-decoder at `source`, in evaluation mode.

    Args:
        source: a Hugging Face folder or hub name with safetensors weights and a fast tokenizer.
        max_pieces: longer texts and targets are cut here, or at the model's own limit.

    Raises:
        ModelError: it cannot be opened, is not safe to open, is no encoder-decoder, or lacks weights.
    """
    model, lacking = open_weights(source, AutoModelForSeq2SeqLM)
    if lacking:
        raise ModelError(f"{str(source)!r} lacks weights, such as {min(lacking)!r}", "give a whole checkpoint")
    config = model.config
    begin, end = config.decoder_start_token_id, config.eos_token_id
    if not isinstance(begin, int) or not isinstance(end, int):
        reason = f"{str(source)!r} does not say which piece begins and which ends a target"
        raise ModelError(reason, "set decoder_start_token_id and eos_token_id in its config.json")
    subwords = open_subwords(source, config, max_pieces=max_pieces)
    tokenizer = Tokenizer.from_str(subwords.to_json())
    encoding = Pairs(tokenizer, begin, end, pad_of(config), subwords.max_pieces, special=True)
    return PretrainedSeq2Seq(model, encoding)
