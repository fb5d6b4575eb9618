"""How much a text classifier's probabilities change with each token's vector: gradients, reduced to one number a token.

    S[k, l] = || d f_k / d x_l ||        f_k probability of class k, x_l the vector of token l

The absolute value, or norm, is taken of every class by itself, so the gradients of K classes need K backward passes
over one forward pass; classes of weight 0 need none, and the class predicted for each text needs one in all. A token's
vector is what the model's first layer makes of that token alone: for models over hashed words the hashed embedding
and, beside it, what the character CNN says of the word's spelling; for Hugging Face models the row of the table of
pieces. Gradients stop there: characters are part of the model, not of its input space.

Shape legend: B texts of a batch, N texts, L tokens, D width, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from tokenizers import Tokenizer
from torch import Tensor

from trustnlp import checks
from trustnlp.data.corpus import Example
from trustnlp.data.encoding import Subwords
from trustnlp.errors import ArgumentError, GuaranteeError, ModelError
from trustnlp.models.existing import CLASSIFICATION, ExistingLabeller, load_checkpoint
from trustnlp.models.heads import LabelModel
from trustnlp.models.pretrained import pad_of
from trustnlp.models.protocol import Batch

PREDICTED, UNIFORM = "predicted", "uniform"
NORMS = {"l1": 1.0, "l2": 2.0, "linf": float("inf")}
_BATCH = 64
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Saliency:
    """What was found for one text.

    Args:
        places: (L, 2) where each token begins and ends in the text, in characters; (0, 0) for special tokens.
        values: (L,) sum over classes of the class's weight times S, >= 0, in probability per unit of the vectors.
        probabilities: (K,) of the classes.
        step: a typical move of a vector, in that unit: the root mean square c of the coordinates of the text's vectors
            times D^(1 - 1/p) for the norm of order p, so that `values * step` bounds, to first order, the change of
            probability when every coordinate moves by c.
    """

    places: NDArray[np.int64]
    values: Floats
    probabilities: Floats
    step: float


def open_classifier(model: str | Path | LabelModel | Any, tokenizer: Any = None, *, device: str = "cpu") -> LabelModel:
    """A text classifier whose tokens have vectors, in evaluation mode.

    Args:
        model: a folder that trustnlp wrote, a Hugging Face folder or hub name (safetensors, a fast tokenizer), a
            `LabelModel` such as `models.build` makes, or a sequence classifier of Transformers.
        tokenizer: of a sequence classifier of Transformers: its fast tokenizer.
        device: where it computes.

    Raises:
        ArgumentError: no tokenizer, or one too many.
        ModelError: it cannot be opened; it does not choose among labels; its input is not one vector per token.
    """
    held = load_checkpoint(model) if isinstance(model, str | Path) else model
    if not isinstance(held, LabelModel) and type(held).__name__.endswith("ForSequenceClassification"):
        held = ExistingLabeller(held, _subwords(held, tokenizer), CLASSIFICATION)
    elif tokenizer is not None:
        raise ArgumentError("tokenizer", "left out for a model that has its own", type(tokenizer).__name__)
    name = type(held).__name__
    if not isinstance(held, LabelModel):
        reason = f"a {name} has no vectors of tokens that a probability could be differentiated by"
        raise ModelError(reason, "give a LabelModel (with embed and logits_of_vectors) or a sequence classifier")
    if len(held.schema.labels) < 2:
        raise ModelError(f"this {name} does not choose one of several labels", "give a text classifier")
    return held.to(device).eval()


def saliencies(
    classifier: LabelModel, texts: Sequence[str], *, classes: str | ArrayLike = PREDICTED, norm: str = "l1"
) -> list[Saliency]:
    """The saliency of every token of each text; no text depends on another.

    Args:
        classifier: as `open_classifier` gives it; its mode and its gradients are left as they were.
        texts: any number.
        classes: `predicted` (weight 1 on the predicted class of each text), `uniform` (1/K on each class), or K
            weights >= 0 in the order of `classifier.schema.labels`.
        norm: `l1`, `l2` or `linf`, over the D coordinates of a vector.

    Raises:
        ArgumentError: unknown classes or norm, weights that are not K finite numbers >= 0 with a sum above 0.
        ModelError: gradients cannot be had from the model's own vectors.
        GuaranteeError: a probability or gradient is not finite.
    """
    order = NORMS[checks.one_of("norm", norm, tuple(NORMS))]
    weights = _weights(classes, len(classifier.schema.labels))
    encoded = classifier.encode([Example(text) for text in texts])
    shortest_first = np.argsort([len(text) for text in texts], kind="stable")
    found: dict[int, Saliency] = {}
    with _differentiated(classifier) as device:
        for start in range(0, len(texts), _BATCH):
            rows = shortest_first[start : start + _BATCH]
            own = [_places(classifier, texts[row]) for row in rows]
            given = _of_batch(classifier, encoded.batch(rows).to(device), [len(each) for each in own], weights, order)
            for row, places, (values, probabilities, step) in zip(rows, own, given, strict=True):
                found[int(row)] = Saliency(places, values, probabilities, step)
    return [found[row] for row in range(len(texts))]


def probabilities(classifier: LabelModel, texts: Sequence[str]) -> Floats:
    """(N, K) probabilities of the classes, in the order of `classifier.schema.labels`."""
    encoded = classifier.encode([Example(text) for text in texts])
    shortest_first = np.argsort([len(text) for text in texts], kind="stable")
    found = np.zeros((len(texts), len(classifier.schema.labels)))
    with _differentiated(classifier) as device, torch.no_grad():
        for start in range(0, len(texts), _BATCH):
            rows = shortest_first[start : start + _BATCH]
            logits = classifier.logits(encoded.batch(rows).to(device))["label"]
            found[rows] = logits.double().softmax(-1).cpu().numpy()
    return found


def _of_batch(
    classifier: LabelModel, batch: Batch, lengths: Sequence[int], weights: Tensor | None, order: float
) -> Iterator[tuple[Floats, Floats, float]]:
    """For each text of the batch: values (L,), probabilities (K,), and the typical step."""
    vectors = classifier.embed(batch.inputs).detach().requires_grad_()
    logits = classifier.logits_of_vectors(vectors, batch)["label"]
    chances = logits.softmax(-1)
    if weights is None:
        total = _norms(chances.max(-1).values, vectors, order, keep=False)
    else:
        asked = weights.nonzero().flatten().tolist()
        total = torch.zeros(vectors.shape[:2], dtype=torch.float64, device=vectors.device)
        for k in asked:
            total += weights[k].item() * _norms(chances[:, k], vectors, order, keep=k != asked[-1])
    if not (total.isfinite().all() and chances.isfinite().all()):
        raise GuaranteeError("probabilities or gradients of the classifier are not finite", "check its weights")
    values, shares = total.cpu().numpy(), chances.detach().double().cpu().numpy()
    own = vectors.detach().double().cpu().numpy()
    dual = own.shape[2] ** (1 - 1 / order)
    for row, length in enumerate(lengths):
        step = float(np.sqrt((own[row, :length] ** 2).mean())) * dual if length else 0.0
        yield values[row, :length], shares[row], step


def _norms(chances: Tensor, vectors: Tensor, order: float, *, keep: bool) -> Tensor:
    """(B, L) norms of the gradients of each text's number (B,) by its vectors (B, L, D)."""
    try:
        (gradients,) = torch.autograd.grad(chances.sum(), vectors, retain_graph=keep)
    except RuntimeError as error:
        raise ModelError(f"probabilities do not depend on the vectors by a gradient ({error})") from error
    return torch.linalg.vector_norm(gradients.double(), order, dim=-1)


@contextmanager
def _differentiated(classifier: LabelModel) -> Iterator[torch.device]:
    """Inside, the model is in evaluation mode, and recurrent layers can be differentiated in it on a GPU too."""
    was_training = classifier.training
    classifier.eval()
    try:
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
            yield next(classifier.parameters()).device
    finally:
        classifier.train(was_training)


def _weights(classes: str | ArrayLike, count: int) -> Tensor | None:
    """(K,) weights, or None for the predicted class."""
    if isinstance(classes, str):
        chosen = checks.one_of("classes", classes, (PREDICTED, UNIFORM), "or give a weight for each class")
        return None if chosen == PREDICTED else torch.full((count,), 1 / count, dtype=torch.float64)
    weights = np.asarray(classes, dtype=float)
    if weights.shape != (count,) or not np.isfinite(weights).all() or weights.min() < 0 or weights.sum() <= 0:
        raise ArgumentError("classes", f"{count} finite weights >= 0, not all 0", weights.tolist())
    return torch.tensor(weights)


def _places(classifier: LabelModel, text: str) -> NDArray[np.int64]:
    return np.array(classifier.encoding.places(text), dtype=np.int64).reshape(-1, 2)


def _subwords(model: Any, tokenizer: Any) -> Subwords:
    if tokenizer is None:
        raise ArgumentError("tokenizer", "given for a model of Transformers", tokenizer)
    backend = tokenizer if isinstance(tokenizer, Tokenizer) else getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        reason = f"{type(tokenizer).__name__} does not tell where in the text its tokens stand"
        raise ModelError(reason, "give a fast tokenizer (tokenizer.json)")
    limit = getattr(model.config, "max_position_embeddings", None) or 512
    return Subwords(backend, max_pieces=min(int(limit), 512), pad=pad_of(model.config))
