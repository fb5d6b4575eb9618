"""What a language model answers at a few places, without scoring its whole vocabulary at all the others.

The head of a language model is often as dear as several of its layers, and (B, T, V) scores are its largest tensor. A
hook behind the body hands only the wanted hidden states on, so that whatever the architecture does with them (a
transform, a tied table, a scale or a cap) is done by its own code.

Shape legend: B batch, T tokens, D width, V vocabulary, M and N picked places.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def answers_at(model: nn.Module, rows: Tensor, places: Tensor, **inputs: Tensor) -> Tensor:
    """(N, M, V) the logits that `model(**inputs)` has at `rows` and `places`, both (N, M).

    Args:
        model: of Transformers, with a head that reads each hidden state by itself. Where it does not read those that
            its body hands on, all is computed and then picked.
        rows: of the batch.
        places: in the row.
        inputs: of the model, such as `input_ids` (B, T).
    """
    body = body_of(model)
    # Scores of all places show that the head read something else; where as many are wanted, they would look alike.
    if body is None or places.shape == inputs["input_ids"].shape:
        return _all(model, inputs)[rows, places]

    def pick(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state[rows, places]
        return output

    handle = body.register_forward_hook(pick)
    try:
        found = _all(model, inputs)
    finally:
        handle.remove()
    return found if found.shape[:2] == places.shape else found[rows, places]


def states(model: nn.Module, **inputs: Tensor) -> Tensor:
    """(B, T, D) the last hidden states, without the head's work where the body is set apart."""
    body = body_of(model)
    if body is None:
        last: Tensor = model(**inputs, output_hidden_states=True).hidden_states[-1]
        return last
    found: Tensor = body(**inputs).last_hidden_state
    return found


def body_of(model: nn.Module) -> nn.Module | None:
    """The part of a model that makes hidden states, `base_model` in Transformers; None where it is not set apart."""
    body = getattr(model, "base_model", None)
    return body if isinstance(body, nn.Module) and body is not model else None


def _all(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    logits: Tensor = model(**inputs).logits
    return logits
