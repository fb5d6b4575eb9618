"""A pool of texts, models trained on random halves of it, and the attack on each of them by the others.

    model 0   ● ● ○ ● ○ ○ ●   fair coins ┐ a pair: whom the one learned from, the other did not
    model 1   ○ ○ ● ○ ● ● ○   opposites  ┘
    model 2   ○ ● ● ○ ● ○ ○   …

Every model is a target once, and all models but it and its opposite are its shadows. So K trainings give K attacked
targets with K - 2 shadows each, and every text is inside exactly half of them, whichever side it is on in the target:
nothing but the target's answers tells the sides apart. (Leaving out the target alone, a text inside it would be inside
fewer of the rest.) The coins are fair and independent, which one-run bounds on epsilon need.

Source: Carlini et al. 2022, arXiv:2112.03570 (models on halves of a pool, each the target of the others).

Shape legend: K models, N texts of the pool, M texts outside it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trustnlp import checks, models
from trustnlp.attacks import lira, membership, rmia
from trustnlp.data.corpus import Corpus, Example
from trustnlp.data.membership_split import normalise
from trustnlp.dp import PrivacyPlan
from trustnlp.errors import CorpusError, GuaranteeError
from trustnlp.models.encoded import Split
from trustnlp.models.evaluation import BATCH_SIZE, scoring
from trustnlp.models.heads import LabelModel, cross_entropies
from trustnlp.models.many import Job, run_jobs
from trustnlp.models.protocol import batches
from trustnlp.models.training import PlainStep, ShuffledBatches, fit
from trustnlp.progress import Progress
from trustnlp.randomness import Streams
from trustnlp.studies import recipes

Array = NDArray[Any]
Arrays = Mapping[str, Array]

_SPARE = 5.0  # deviations of the number of heads, for which a private training keeps places: exceeded once in millions
_NOBODY = Example("-")  # without label and tags there is no loss, hence no gradient


@dataclass(frozen=True)
class Pool:
    """Texts that models are trained on or not by coins, and texts that none of them sees.

    Args:
        corpus: gives the models their labels and tags, and the test split for their utility.
        texts: N, each once.
        outside: M, none of them in the pool.
    """

    corpus: Corpus
    texts: tuple[Example, ...]
    outside: tuple[Example, ...]

    @property
    def places(self) -> int:
        """How many texts a private training has place for; those that it lacks are filled with nothing.

        So sampling rate, steps and normaliser are the same with a text and without it, as its guarantee takes for
        granted.
        """
        size = len(self.texts)
        return math.ceil(size / 2 + _SPARE * math.sqrt(size) / 2)


def pool(corpus: Corpus, size: int, outside: int, generator: np.random.Generator) -> Pool:
    """At most `size` texts of the training split that occur once, and at most `outside` others, drawn at random.

    Where they are too few, three quarters are the pool.

    Raises:
        CorpusError: fewer than 8 of them.
    """
    checks.at_least("size", size, 2)
    checks.at_least("outside", outside, 2)
    counts = Counter(normalise(example.text) for example in corpus.train)
    once = [example for example in corpus.train if counts[normalise(example.text)] == 1]
    if len(once) < 8:
        raise CorpusError(f"corpus {corpus.name!r} has only {len(once)} training texts that occur once", "give more")
    order = generator.permutation(len(once))
    end = min(size, 3 * len(once) // 4)
    texts, others = order[:end], order[end : end + outside]
    return Pool(corpus, tuple(once[i] for i in texts), tuple(once[i] for i in others))


def coins(count: int, size: int, generator: np.random.Generator) -> Array:
    """(K, N) bool, which text is in the training of which model; models 2 i and 2 i + 1 are opposites.

    Raises:
        ArgumentError: K is odd or below 6 (four shadows for each target), or N < 1.
    """
    checks.at_least("pairs", (count // 2 if count % 2 == 0 else 0), 3, "give an even number of models, at least 6")
    heads = generator.random((count // 2, checks.at_least("size", size, 1))) < 0.5
    return np.stack([heads, ~heads], 1).reshape(count, size)


@dataclass(frozen=True)
class Training:
    """What all models of a pool have in common.

    Args:
        pool: where they learn.
        model: its kind, as for `models.build`.
        plan: of a private training of `pool.places` examples; None trains without privacy.
        quick: fewer private epochs.
        device: where models are trained.
    """

    pool: Pool
    model: str
    plan: PrivacyPlan | None
    quick: bool = False
    device: str = "cpu"


def train(
    training: Training, inside: Array, streams: Streams, folder: Path, progress: Progress, stage: str
) -> dict[str, Array]:
    """Trains the models that `folder` has no results of, and gives what all of them answer.

    `label` and `tags` (K, N + M): losses in nats of the pool's texts and then those outside, each where the corpus has
    such answers; `accuracy` and `slot_f1` (K,) on the test split, likewise.
    """
    jobs = [
        Job(f"model-{k:03d}", partial(_train_one, training, seen, streams.child("model", k)))
        for k, seen in enumerate(inside)
    ]
    found = run_jobs(jobs, folder, progress=progress, stage=stage)
    return {name: np.array([one[name] for one in found]) for name in found[0]}


def _train_one(training: Training, seen: Array, streams: Streams, _: Path) -> dict[str, Array]:
    examples = tuple(example for example, here in zip(training.pool.texts, seen, strict=True) if here)
    plan = training.plan
    model = _plain(training, examples, streams) if plan is None else _private(training, plan, examples, streams)
    everything = model.encode((*training.pool.texts, *training.pool.outside))
    figures = models.evaluate(model, model.encode(training.pool.corpus.test))
    kept: dict[str, Array] = {name: np.array(figures[name]) for name in ("accuracy", "slot_f1") if name in figures}
    return {**losses_by_answer(model, everything), **kept}


def _plain(training: Training, examples: tuple[Example, ...], streams: Streams) -> LabelModel:
    """Ordinary training to the last epoch, however quick: with fewer, nothing would be memorised, nor attacked."""
    recipe = recipes.plain(training.model)
    model = models.build(training.model, training.pool.corpus, streams=streams).to(training.device)
    sampler = ShuffledBatches(len(examples), recipe.batch_size, recipe.epochs, streams)
    step = PlainStep(
        model,
        torch.optim.Adam(model.parameters(), recipe.learning_rate),
        schedule=recipe.schedule(sampler.steps),
        clip_grad_norm=recipes.CLIP_GRAD_NORM,
    )
    fit(model, model.encode(examples, for_training=True), sampler, step, streams=streams)
    return model


def _private(training: Training, plan: PrivacyPlan, examples: tuple[Example, ...], streams: Streams) -> LabelModel:
    """DP-SGD by the plan.

    Its ledger stays in memory: a killed job is done again with the same bits, and so releases nothing new.
    """
    empty = training.pool.places - len(examples)
    if empty < 0:
        raise GuaranteeError(f"{len(examples)} heads of {len(training.pool.texts)} coins", "take another seed")
    recipe = recipes.private(training.model, training.pool.places, training.quick)
    model = models.build(training.model, training.pool.corpus, streams=streams, **recipe.options).to(training.device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    step = plan.step(model, torch.optim.Adam(trained, recipe.learning_rate), streams=streams)
    fit(model, model.encode((*examples, *[_NOBODY] * empty)), plan.sampler(streams), step, streams=streams)
    return model


def losses_by_answer(model: LabelModel, encoded: Split) -> dict[str, Array]:
    """`label` and `tags`, (N,) each, in nats: the parts of the model's loss, of models without a CRF."""
    parts: dict[str, list[Array]] = {}
    with scoring(model) as device:
        for batch in batches(encoded, BATCH_SIZE):
            here = batch.to(device)
            for name, scores in model.logits(here).items():
                parts.setdefault(name, []).append(cross_entropies({name: scores}, here.targets).cpu().numpy())
    return {name: np.concatenate(part) for name, part in parts.items()}


def joint(answers: Arrays) -> Array:
    """(K, N + M) the models' own loss, of label and tags together."""
    return np.sum([answers[name] for name in ("label", "tags") if name in answers], axis=0)


@dataclass(frozen=True)
class Attacked:
    """One target and what an attacker has against it.

    Args:
        losses: (N,) the target's.
        shadows: (K - 2, N) those of all models but it and its opposite.
        inside: (K - 2, N) bool, what these saw.
        population: (M,) the target's of texts outside the pool.
        population_shadows: (K - 2, M) the shadows' of these.
    """

    losses: Array
    shadows: Array
    inside: Array
    population: Array
    population_shadows: Array


def attacked(losses: Array, inside: Array, target: int) -> Attacked:
    """Model `target` of K, with losses (K, N + M) and coins (K, N)."""
    size = inside.shape[1]
    others = [k for k in range(len(inside)) if k // 2 != target // 2]
    return Attacked(
        losses[target, :size], losses[others, :size], inside[others], losses[target, size:], losses[others, size:]
    )


ATTACKS: Mapping[str, Callable[[Attacked], Array]] = {
    "loss": lambda case: membership.loss_score(case.losses),
    "rmia": lambda case: rmia.score(case.losses, case.shadows, case.inside, case.population, case.population_shadows),
    "lira": lambda case: lira.score(case.losses, case.shadows, case.inside),
}


def scores(losses: Array, inside: Array) -> dict[str, Array]:
    """What each attack makes of each target, (K, N) by its name."""
    cases = [attacked(losses, inside, target) for target in range(len(inside))]
    return {name: np.array([attack(case) for case in cases]) for name, attack in ATTACKS.items()}
