"""What every private step must keep, as checks that are true of the engine and false once a bug is planted.

Each check trains something small, mostly on planted gradients, looks only at what comes out, and answers yes or no.

    sensitivity     bounded (for every clipping), follows_the_clip_norm, follows_the_number_drawn
    noise           runs_differ_by_their_noise, noise_is_fresh_and_of_the_planned_size
    draws           draws_are_poisson, an_empty_draw_is_a_step_of_noise, a_model_that_mixes_examples_is_refused
    accounting      the_ledger_knows_what_was_released, a_resumed_run_uses_no_block_twice
    thresholds      thresholds_seek_the_norms, thresholds_move_by_noisy_counts_alone
    all at once     an_audit_stays_below_epsilon
"""

from __future__ import annotations

import itertools
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from planted import STREAMS, Planted, Recorder, drawing, gradients, movements, released, step_of, without_probes
from rows import Loss, Rows, random_weights, whole
from scipy import stats
from small_text import Tagger, Texts
from torch import nn

from trustnlp.dp import (
    AutomaticClipping,
    FlatClipping,
    LayerwiseClipping,
    Ledger,
    MicroBatchClipping,
    PrivacyPlan,
    Quantile,
)
from trustnlp.dp.clipping import Clipping
from trustnlp.errors import GuaranteeError
from trustnlp.randomness import Streams

ADAPT = Quantile(share=0.3)
TEXTS = Texts.random(8)
# The longest by far among others; across layers; in descending, alternating order, which punishes a shift.
LONG = gradients([[[900, 0], [0, 900]], *([[[0, 3], [3, 0]]] * 3), *([[[0, 0.1], [0, 0]]] * 4)])
ALTERNATING = gradients([[[value, 0], [0, value]] for value in (80, -70, 60, -50, 40, -30, 20, -10)])


def tied_model() -> nn.Module:
    """An embedding and a head with one weight."""

    def loss(self, batch):
        hidden = self.embedding(batch.inputs["ids"])
        return nn.functional.cross_entropy(self.head(hidden.cumsum(1)).mT, batch.inputs["ids"], reduction="none").sum(1)

    model = Loss(loss, embedding=nn.Embedding(5, 6), head=nn.Linear(6, 5, bias=False))
    model.head.weight = model.embedding.weight
    return random_weights(model)


@dataclass(frozen=True)
class Case:
    """A clipping and examples at their worst for it."""

    clipping: Clipping
    data: object = LONG
    places: tuple[int, ...] = (0, 0, 1, 1, 0, 0, 1, 1)
    model: object = None


CASES = {
    "flat": Case(FlatClipping(0.5)),
    "flat, adaptive": Case(FlatClipping(0.5, ADAPT)),
    "automatic": Case(AutomaticClipping(), gradients([[[10.0**-k, 0], [0, 0]] for k in range(-4, 4)])),
    "layer-wise": Case(LayerwiseClipping(0.5, None)),
    "layer-wise, adaptive": Case(LayerwiseClipping(0.5, ADAPT)),
    "micro-batches": Case(MicroBatchClipping(2, 0.5), ALTERNATING),
    "micro-batches by layer": Case(MicroBatchClipping(2, 0.5, by_layer=True, adapt=ADAPT), ALTERNATING),
    "text": Case(FlatClipping(0.01), TEXTS, model=Tagger),
    "text by layer": Case(LayerwiseClipping(0.01, ADAPT), TEXTS, model=Tagger),
    "text in micro-batches": Case(MicroBatchClipping(2, 0.01, by_layer=True), TEXTS, model=Tagger),
    "tied weights": Case(FlatClipping(0.01), Rows({"ids": whole(8, 4, below=5)}), model=tied_model),
}


def bounded(name: str) -> bool:
    """One example more or less moves all that is released by at most what the noise was made for."""
    case = CASES[name]
    plan = PrivacyPlan(8, 4, 3, 1.3, 1e-3, clipping=case.clipping)
    model = case.model() if case.model else None
    return max(movements(plan, case.data, range(8), case.places, model=model)) <= 1 + 1e-9


def update(plan: PrivacyPlan, data: object, indices: list[int]) -> torch.Tensor:
    """By how much a step without noise, of SGD at rate 1, moves a model of text."""
    model = Tagger()
    before = nn.utils.parameters_to_vector(model.parameters()).detach()
    released(plan, data, indices, model=model)
    return before - nn.utils.parameters_to_vector(model.parameters()).detach()


def follows_the_clip_norm() -> bool:
    """Without noise, an update doubles with a small clip norm."""
    sizes = [
        float(update(PrivacyPlan(8, 4, 3, 1.0, 1e-3, clipping=FlatClipping(c)), TEXTS, [0, 2, 5]).norm())
        for c in (1e-5, 2e-5)
    ]
    return math.isclose(sizes[1], 2 * sizes[0], rel_tol=1e-6)


def follows_the_number_drawn() -> bool:
    """Without noise, B copies of one example move the model by B C / L, whatever B is."""
    plan, copies = PrivacyPlan(8, 4, 3, 1.0, 1e-3, clipping=FlatClipping(1e-5)), Texts(TEXTS.ids[:1] * 8, (0,) * 8)
    sizes = [float(update(plan, copies, list(range(count))).norm()) for count in range(1, 9)]
    return np.allclose(sizes, [count * 1e-5 / 4 for count in range(1, 9)], rtol=1e-6)


def runs_differ_by_their_noise() -> bool:
    """With a clip norm so large that gradients are nothing beside the noise, runs are as far apart as noise makes them.

    The squared distance of two sums of T steps' noise is 2 T (sigma C / L)^2 times a chi-square of D degrees.
    """
    plan, data, ends = PrivacyPlan(20, 4, 10, 1.0, 1e-3, clipping=FlatClipping(1e6)), LONG.tensors["x"], []
    data = gradients(data.repeat(3, 1, 600)[:20])
    for seed in range(3):
        model = Planted(2, 1200)
        step = step_of(plan, model, streams=Streams(seed))
        with without_probes():
            for draw in plan.sampler(Streams(seed)):
                step(data, draw)
        ends.append(nn.utils.parameters_to_vector(model.parameters()).detach())
    expected = 2 * 10 * (1e6 / 4) ** 2 * 2400
    distances = [float((a - b).square().sum()) / expected for a, b in itertools.combinations(ends, 2)]
    return all(abs(distance - 1) < 5 * math.sqrt(2 / 2400) for distance in distances)


def noise_is_fresh_and_of_the_planned_size() -> bool:
    """With gradients of 0, updates are noise alone: of deviation sigma C / L in every layer, and all uncorrelated."""
    plan, data = PrivacyPlan(8, 4, 8, 1.5, 1e-3, clipping=FlatClipping(5.0)), gradients(np.zeros((8, 3, 900)))
    step, rows = step_of(plan, model := Planted(3, 900)), []
    step._moved = True  # the engine would notice some bugs itself
    with without_probes():
        for draw in plan.sampler(STREAMS):
            before = [layer.weight.detach().clone() for layer in model.layers]
            step(data, draw)
            rows += [(layer.weight - old).detach()[0].numpy() for layer, old in zip(model.layers, before, strict=True)]
    sizes = np.std(rows, axis=1) / (1.5 * 5 / 4)
    with np.errstate(invalid="ignore"):
        correlations = np.corrcoef(rows)[np.triu_indices(len(rows), 1)]
    return bool(abs(sizes - 1).max() < 5 / math.sqrt(1800) and abs(correlations).max() < 5 / math.sqrt(900))


def an_empty_draw_is_a_step_of_noise() -> bool:
    """It is written down, and moves the model by noise of the planned size."""
    plan, data = PrivacyPlan(8, 4, 3, 1.5, 1e-3), gradients(np.ones((8, 1, 4000)))
    step = step_of(plan, model := Planted(1, 4000))
    step._moved = True
    with drawing([]), without_probes():
        step(data, plan.sampler(STREAMS).draw(0))
    size = float(model.layers[0].weight.detach().std()) / (1.5 / 4)
    return step.ledger.spent == 1 and abs(size - 1) < 5 / math.sqrt(8000)


class Watching(Recorder):
    """Notes how much noise was asked for and how many steps the ledger knew of by then."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger, self.seen = ledger, []

    def release_(self, sums, block, stds, divisor, parts=None):
        super().release_(sums, block, stds, divisor)
        self.seen.append((self.ledger.spent, max(stds.values())))


def the_ledger_knows_what_was_released() -> bool:
    """Every step is written down before its noise is drawn, with the noise and the rate that were used."""
    plan = PrivacyPlan(40, 10, 60, 2.0, 1e-3, clipping=FlatClipping(0.5), noise_decay=0.9)
    step, drawn, data = step_of(plan, Planted(1, 2)), 0, gradients(np.ones((40, 1, 2)))
    step._noise = watch = Watching(step.ledger)
    with without_probes():
        for draw in plan.sampler(STREAMS):
            step(data, draw)
            drawn += len(draw.indices)
    events = step.ledger._events
    q = 10 / 40
    return (
        watch.seen == [(number + 1, event.noise_multiplier * 0.5) for number, event in enumerate(events)]
        and len(events) == 60
        and plan.events() == tuple(events)
        and all(event.sample_rate == q for event in events)
        and abs(drawn / (40 * 60) - q) < 5 * math.sqrt(q * (1 - q) / (40 * 60))
    )


def draws_are_poisson() -> bool:
    """Sizes vary as a binomial's do, and two draws share as many examples as chance has it."""
    sampler = PrivacyPlan(50, 10, 800, 1.0, 1e-3).sampler(STREAMS)
    draws = [set(draw.indices.tolist()) for draw in sampler]
    sizes = np.array([len(draw) for draw in draws])
    shared = np.array([len(a & b) for a, b in itertools.pairwise(draws)])
    return bool(
        abs(sizes.mean() - 10) < 5 * math.sqrt(8 / 800)
        and abs(sizes.var() / 8 - 1) < 5 * math.sqrt(2 / 800)
        and abs(shared.mean() - 2) < 5 * math.sqrt(2.5 / 800)
    )


def thresholds(norms: list[float], steps: int, quantile: Quantile) -> np.ndarray:
    """(steps + 1,) of a flat clipping that adapts, where every example is in every draw."""
    plan = PrivacyPlan(len(norms), len(norms), steps, 1.0, 1e-3, clipping=FlatClipping(1.0, adapt=quantile))
    data, seen = gradients([[[norm]] for norm in norms]), [1.0]
    step = step_of(plan, Planted(1, 1))
    with without_probes():
        for draw in plan.sampler(STREAMS):
            step(data, draw)
            seen.append(float(step.state()["thresholds"]))
    return np.array(seen)


def thresholds_seek_the_norms() -> bool:
    """Up where all gradients are longer than the threshold, down where all are shorter."""
    quantile = Quantile(share=0.9, rate=0.2)
    return thresholds([100.0] * 20, 10, quantile)[-1] > 2 and thresholds([0.01] * 20, 10, quantile)[-1] < 0.5


def thresholds_move_by_noisy_counts_alone() -> bool:
    """With half of the norms on either side the count is what is wanted, and what still moves is its noise."""
    logs = np.diff(np.log(thresholds([0.01, 100.0] * 10, 200, Quantile(share=0.5, rate=0.1))))
    planned = 0.1 * math.sqrt(1 / 0.5) / 2 / 20
    return abs(logs.std() / planned - 1) < 5 / math.sqrt(400)


def a_resumed_run_uses_no_block_twice() -> bool:
    """A crash after step 3 whose checkpoint was of step 1: the steps between are lost, not done again."""
    plan, data, used = PrivacyPlan(8, 4, 8, 1.0, 1e-3), gradients(np.ones((8, 1, 2))), []
    with tempfile.TemporaryDirectory() as folder:
        for begin, end in ((0, 4), (1, 8)):
            step = step_of(plan, Planted(1, 2), ledger=Ledger.open(Path(folder, "ledger.jsonl"), plan))
            step._noise = Recorder()
            with without_probes():
                for number in range(step.resume_at(begin), end):
                    step(data, plan.sampler(STREAMS).draw(number))
            used += step._noise.blocks
    return used == list(range(8))


def a_model_that_mixes_examples_is_refused() -> bool:
    """By an error, before anything is spent."""

    class Mixing(Planted):
        def loss(self, batch):
            own = super().loss(batch)
            return own - own.mean()

    plan, data = PrivacyPlan(8, 4, 3, 1.0, 1e-3), gradients(np.random.default_rng(0).standard_normal((8, 1, 2)))
    step = step_of(plan, Mixing(1, 2))
    try:
        step(data, plan.sampler(STREAMS).draw(0))
    except GuaranteeError:
        return step.ledger.spent == 0
    return False


def audited_epsilon(seed: int = 0) -> tuple[float, float]:
    """A lower bound of the epsilon of real runs, at 95% confidence, and the accountant's upper bound.

    One run audits itself: each of 800 canaries, whose gradients are orthogonal, is in the data by a coin of its own,
    and a spy who sees the weights guesses the 60 likeliest and the 60 unlikeliest (Steinke et al. 2023, arXiv
    2305.08846, algorithm 1).
    """
    count, guesses = 800, 60
    plan = PrivacyPlan(count, count, 3, 3.0, 1e-5)
    present = np.random.default_rng(seed).random(count) < 0.5
    data = gradients(np.diag(np.where(present, 50.0, 0.0))[:, None])
    step = step_of(plan, model := Planted(1, count), streams=Streams(seed))
    with without_probes():
        for draw in plan.sampler(Streams(seed)):
            step(data, draw)
    order = np.argsort(model.layers[0].weight.detach().numpy()[0])  # descent: the present ones are low
    right = int(present[order[:guesses]].sum() + (~present[order[-guesses:]]).sum())
    return lower_bound(count, 2 * guesses, right, plan.delta), plan.epsilon()


def lower_bound(canaries: int, guesses: int, right: int, delta: float) -> float:
    """The largest epsilon that so many right guesses refute at 95% confidence; 0 where they refute none."""
    refuted = [eps for eps in np.arange(0.0, 10.0, 0.02) if p_value(canaries, guesses, right, eps, delta) < 0.05]
    return max(refuted, default=0.0)


def p_value(canaries: int, guesses: int, right: int, eps: float, delta: float) -> float:
    """How likely at most an (eps, delta)-private run is to let a spy be right so often (theorem 3.1, appendix D)."""
    q = 1 / (1 + math.exp(-eps))
    beta = stats.binom.sf(right - 1, guesses, q)
    tails = np.cumsum(stats.binom.pmf(right - np.arange(1, right + 1), guesses, q))
    alpha = (tails / np.arange(1, right + 1)).max(initial=0.0)
    return min(1.0, beta + 2 * canaries * delta * alpha)


def an_audit_stays_below_epsilon() -> bool:
    """A spy's lower bound is no higher than the accountant's upper bound."""
    low, high = audited_epsilon()
    return low <= high
