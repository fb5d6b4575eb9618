"""The losses that Hugging Face models compute themselves, as one figure per example.

Shape legend: B examples, T tokens, K classes, V vocabulary.

A model's own loss is a mean over the batch, over rows or over all rows' tokens, which no clipping per example can start
from. Here a row's loss is what the model itself says of a batch of that row alone:

| model                     | labels                          | loss of a row                                         |
|---------------------------|---------------------------------|-------------------------------------------------------|
| sequence classification   | (B,), (B, K) to regress or mark | cross-entropy; mean squared error; mean binary CE      |
| multiple choice           | (B,)                            | cross-entropy                                         |
| token classification      | (B, T)                          | mean cross-entropy of its labelled tokens             |
| masked language model     | (B, T)                          | the same, over its masked tokens                      |
| encoder-decoder           | (B, T)                          | the same, over its target's tokens                    |
| causal language model     | (B, T)                          | the same, each token predicted from those before it   |
| question answering        | start and end positions (B,)    | mean of both cross-entropies                          |

Rows without any label have loss 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trustnlp.errors import ArgumentError

Values = Mapping[str, Tensor]
TaskLoss = Callable[[Any, Any, Values], Tensor]
_IGNORED = -100
_LABELS = ("labels", "start_positions", "end_positions")


def task_loss(model: nn.Module) -> Callable[[Values], Tensor]:
    """The loss of `model` per example, batch -> (B,).

    Args:
        model: of Transformers, possibly with adapters of PEFT around it.

    Raises:
        ArgumentError: a model whose loss is none of those above.
    """
    get_base: Any = getattr(model, "get_base_model", None)  # of adapters
    base: Any = get_base() if get_base else model
    of_outputs = _kind(base)

    def loss(batch: Values) -> Tensor:
        inputs = {name: tensor for name, tensor in batch.items() if name not in _LABELS}
        needed = _LABELS[1:] if of_outputs is _question_answering else _LABELS[:1]
        missing = [name for name in needed if name not in batch]
        if missing:
            raise ArgumentError("train_dataset", f"of examples with {' and '.join(missing)}", sorted(batch))
        if of_outputs is _encoder_decoder and "decoder_input_ids" not in inputs:
            inputs["decoder_input_ids"] = base.prepare_decoder_input_ids_from_labels(labels=batch["labels"])
        return of_outputs(base, model(**inputs), batch)

    return loss


def check_task_loss(model: nn.Module, loss: Callable[[Values], Tensor], row: Values) -> None:
    """Checks on a batch of one, in evaluation mode, that `loss` is the loss that the model itself gives.

    Raises:
        ArgumentError: it is not, as where a model adds a term of its own.
    """
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            ours, own = float(loss(row)), float(model(**row).loss)
    finally:
        model.train(training)
    if own == own and abs(ours - own) > 1e-3 * (1 + abs(own)):  # NaN: the row has no label
        rule = f"given for {type(model).__name__}, whose own loss ({own:.6g}) is not the usual one ({ours:.6g})"
        raise ArgumentError("loss", rule, None, "pass batch -> (B,)")


def _kind(model: Any) -> TaskLoss:
    """The loss for a model's class, by the endings that Transformers gives to names."""
    name, config = type(model).__name__, getattr(model, "config", None)
    for part, of_outputs in _BY_NAME.items():
        if part in name:
            return of_outputs
    if getattr(config, "is_encoder_decoder", False) and hasattr(model, "prepare_decoder_input_ids_from_labels"):
        return _encoder_decoder
    if "ForCausalLM" in name or "LMHeadModel" in name:
        return _causal
    raise ArgumentError("loss", f"given for {name}, whose loss per example is not known", None, "pass batch -> (B,)")


def _classification(model: Any, outputs: Any, batch: Values) -> Tensor:
    config, labels, logits = model.config, batch["labels"], _precise(outputs.logits)
    if config.problem_type is None:  # as the model itself decides
        whole = labels.dtype in (torch.long, torch.int)
        many = "single_label_classification" if whole else "multi_label_classification"
        config.problem_type = "regression" if config.num_labels == 1 else many
    if config.problem_type == "single_label_classification":
        return F.cross_entropy(logits, labels.reshape(-1), reduction="none")
    labels = labels.reshape(logits.shape).to(logits.dtype)
    if config.problem_type == "regression":
        return (logits - labels).square().mean(1)
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(1)


def _multiple_choice(model: Any, outputs: Any, batch: Values) -> Tensor:
    del model
    return F.cross_entropy(_precise(outputs.logits), batch["labels"].reshape(-1), reduction="none")


def _tokens(model: Any, outputs: Any, batch: Values) -> Tensor:
    del model
    return _mean_over_tokens(outputs.logits, batch["labels"])


def _encoder_decoder(model: Any, outputs: Any, batch: Values) -> Tensor:
    return _tokens(model, outputs, batch)


def _causal(model: Any, outputs: Any, batch: Values) -> Tensor:
    del model
    prompt = outputs.logits.shape[1] - batch["labels"].shape[1]  # trained tokens of PEFT, in front
    return _mean_over_tokens(outputs.logits, F.pad(batch["labels"], (prompt, 1), value=_IGNORED)[:, 1:])


def _question_answering(model: Any, outputs: Any, batch: Values) -> Tensor:
    del model
    starts, ends = _precise(outputs.start_logits), _precise(outputs.end_logits)
    beyond = starts.shape[1]  # answers that were cut off
    start, end = (batch[name].reshape(-1).clamp(0, beyond) for name in _LABELS[1:])
    losses = [F.cross_entropy(s, p, ignore_index=beyond, reduction="none") for s, p in ((starts, start), (ends, end))]
    return (losses[0] + losses[1]) / 2


def _mean_over_tokens(logits: Tensor, labels: Tensor) -> Tensor:
    """(B,) mean cross-entropy over the labelled tokens of each row, from (B, T, V) and (B, T)."""
    losses = F.cross_entropy(
        _precise(logits).flatten(0, 1), labels.flatten(), ignore_index=_IGNORED, reduction="none"
    ).view(labels.shape)
    return losses.sum(1) / (labels != _IGNORED).sum(1).clamp(min=1)


def _precise(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


_BY_NAME: dict[str, TaskLoss] = {
    "ForSequenceClassification": _classification,
    "ForMultipleChoice": _multiple_choice,
    "ForTokenClassification": _tokens,
    "ForMaskedLM": _tokens,
    "ForQuestionAnswering": _question_answering,
}
