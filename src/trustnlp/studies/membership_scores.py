"""Every membership score that a model allows: what an attacker can ask of it decides which attacks there are.

    any model with losses        loss; reference, per-example, lira, rmia where there are models to compare with
    a model that answers labels  gap, robustness                      (no losses or probabilities needed)
    a tagger                     word
    a causal language model      the scores of `attacks.language_scores`; some need texts that it never saw

Shape legend: N texts (members first), M texts of the population, K shadow models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustnlp.attacks import label_only, language_scores, lira, membership, population, rmia, token_membership
from trustnlp.attacks.neighbours import WordStatistics, exchange_words
from trustnlp.attacks.shadows import Shadows
from trustnlp.data.corpus import Example
from trustnlp.data.encoding import Schema
from trustnlp.errors import CorpusError, GuaranteeError
from trustnlp.models import LabelModel, LanguageModel, losses, predict
from trustnlp.models.answering import AnsweringModel
from trustnlp.models.encoded import Split
from trustnlp.models.token_scores import TokenScores, token_scores
from trustnlp.randomness import Streams
from trustnlp.studies.sides import Sides

Array = NDArray[Any]
_COPIES = 8  # of each text, that the robustness attack asks for
_PREFIX = 32  # words before each text, for ReCaLL
_AT_ONCE = 256  # texts whose neighbours are in memory


def losses_of(model: Any, examples: Sequence[Example], what: str = "texts") -> Array:
    """(N,) the model's loss on every text, in nats; a text that has none is never just left out.

    Args:
        model: a `TextModel` with `encode`, or an `AnsweringModel`.
        examples: the texts.
        what: what to call them in a message.

    Raises:
        CorpusError: they lack labels or tags that the loss is of.
        GuaranteeError: the model has no loss for some of them, or answers NaN.
    """
    found = (
        model.losses(examples) if isinstance(model, AnsweringModel) else losses(model, encoded(model, examples, what))
    )
    bad = int((~np.isfinite(found)).sum())
    if bad:
        raise GuaranteeError(
            f"the model's loss is NaN or infinite for {bad} of {len(found)} {what}, so they cannot be ranked",
            "mend the model (its weights may be damaged), or leave these texts out of both files",
        )
    return found


def encoded(model: Any, examples: Sequence[Example], what: str = "texts") -> Split:
    """The texts, ready for the model, each with a loss.

    Raises:
        CorpusError, GuaranteeError: see `losses_of`.
    """
    schema = model.schema if isinstance(model, LabelModel) else Schema((), ())
    for field, names in (("label", schema.labels), ("tags", schema.tags)):
        if names and any(getattr(example, field) is None for example in examples):
            raise CorpusError(
                f"the {what} have no {field}, so this model has no loss for them",
                f"give each its {field}, as the model was trained",
            )
    split: Split = model.encode(examples)
    lost = int((~split.complete).sum())
    if lost:
        raise GuaranteeError(
            f"{lost} of {len(examples)} {what} have no loss under this model: it does not know their label or tags, or "
            "they are too short",
            "name labels as its config.json does, and leave other such texts out of both files",
        )
    return split


def of_sides(model: Any, sides: Sides) -> Array:
    """(N,) `losses_of` members and non-members; a message names the side."""
    return np.concatenate([losses_of(model, examples, name) for name, examples in sides.each()])


def by_loss(own: Array, references: Sequence[Array]) -> dict[str, Array]:
    """`loss`, and `reference` where other models' losses (N,) of the same texts are given: their mean is compared."""
    found = {"loss": membership.loss_score(own)}
    if references:
        found["reference"] = membership.reference_score(own, np.mean(references, axis=0))
    return found


def by_shadows(own: Array, own_population: Array, shadows: Shadows) -> dict[str, Array]:
    """`lira`, `per-example`, and `rmia` where there is a population that neither target nor shadows were trained on.

    Args:
        own: (N,) the target's losses.
        own_population: (M,) the target's losses of the population, M >= 0.
        shadows: losses (K, N + M), the population last.
    """
    count = len(own)
    seen, inside = shadows.losses[:, :count], shadows.inside[:, :count]
    found = {
        "lira": lira.score(own, seen, inside),
        "per-example": population.per_example_score(own, seen, inside),
    }
    if len(own_population):
        found["rmia"] = rmia.score(own, seen, inside, own_population, shadows.losses[:, count:])
    return found


def by_labels(model: Any, sides: Sides, streams: Streams) -> dict[str, Array]:
    """`gap` and `robustness` of a model that answers labels; of any other, nothing."""
    answer = _labels_of(model)
    if answer is None:
        return {}
    texts, gold = [example.text for example in sides.every], [example.label or "" for example in named(model, sides)]
    right = np.array(answer(texts)) == np.array(gold)
    robust = label_only.robustness_score(answer, texts, gold, generator=streams.numpy("perturbations"), draws=_COPIES)
    return {"gap": label_only.gap_score(right), "robustness": robust}


def by_words(model: Any, sides: Sides, references: Sequence[Any], streams: Streams) -> dict[str, Array]:
    """`word` of a tagger: one random word of each text, by its own loss, or by reference where there are any."""
    if not (isinstance(model, LabelModel) and model.schema.tags) or getattr(model, "crf", None) is not None:
        return {}
    own, lengths = token_membership.token_losses(model, model.encode(sides.every))
    others = [token_membership.token_losses(other, other.encode(sides.every))[0] for other in references]
    scores = by_loss(own, others)
    word = token_membership.one_word_each(scores.get("reference", scores["loss"]), lengths, streams.numpy("words"))
    return {"word": word}


def named(model: Any, sides: Sides) -> Sequence[Example]:
    """All N texts with labels as the model names them, where files name them by number."""
    return model.encode(sides.every).examples if isinstance(model, LabelModel) else sides.every


def _labels_of(model: Any) -> Callable[[list[str]], Sequence[str]] | None:
    if isinstance(model, AnsweringModel) and model.labels:
        return lambda texts: [model.labels[i] for i in model.logits([Example(text) for text in texts]).argmax(1)]
    if isinstance(model, LabelModel) and model.schema.labels:
        return lambda texts: predict(model, model.encode([Example(text) for text in texts])).labels or ()
    return None


def by_tokens(model: Any, sides: Sides, references: Sequence[Any]) -> dict[str, Array]:
    """The scores of a causal language model beyond its loss; of references, only the first is used."""
    if not isinstance(model, LanguageModel):
        return {}
    texts = [example.text for example in sides.every]
    own = _token_scores(model, texts)
    found = {
        "zlib": language_scores.zlib_ratio(own, texts),
        "min-k": language_scores.min_k(own),
        "min-k-plus-plus": language_scores.min_k_plus_plus(own),
    }
    lowered = [text.lower() for text in texts]
    if lowered != texts:  # else the score is 1 for every text
        found["lowercase"] = language_scores.lowercase_ratio(own, _token_scores(model, lowered))
    if references:
        other = _token_scores(references[0], texts)
        found["reference-ratio"] = language_scores.reference_ratio(own, other)
        if np.array_equal(own.lengths, other.lengths):
            found["error-zone"] = language_scores.error_zone(own, other)
    return found


def by_background(model: Any, sides: Sides, background: Sequence[Example], streams: Streams) -> dict[str, Array]:
    """Scores of a causal language model for which the attacker needs texts that it never saw.

    `neighbourhood` where they have two distinct words, `recall` where a prefix of theirs and each text fit the model.
    """
    if not (isinstance(model, LanguageModel) and background):
        return {}
    texts, others = [example.text for example in sides.every], [example.text for example in background]
    own, found = _token_scores(model, texts), {}
    if len({word for text in others for word in text.split()}) > 1:
        found["neighbourhood"] = _neighbourhood(model, own, texts, WordStatistics(others), streams)
    prefix = " ".join(others[0].split()[:_PREFIX]) + "\n"
    prefixed = _token_scores(model, [prefix + text for text in texts])
    if len(set((prefixed.lengths - own.lengths).tolist())) == 1:
        found["recall"] = language_scores.recall(own, prefixed)
    return found


def _neighbourhood(
    model: Any, own: TokenScores, texts: Sequence[str], statistics: WordStatistics, streams: Streams
) -> Array:
    """A few texts at a time, as each has many neighbours."""
    generator, parts = streams.numpy("neighbours"), []
    for start in range(0, len(texts), _AT_ONCE):
        chosen = slice(start, start + _AT_ONCE)
        others = exchange_words(texts[chosen], statistics, generator=generator)
        parts.append(language_scores.neighbourhood(own[chosen], _token_scores(model, others)))
    return np.concatenate(parts)


def _token_scores(model: Any, texts: Sequence[str]) -> TokenScores:
    return token_scores(model, model.encode([Example(text) for text in texts]))
