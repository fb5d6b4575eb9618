"""The mutation suite: known bugs of private training, planted one by one, and the invariant that catches each.

`BUGS` is the table. Each bug is shown to be caught by a check of `invariants` that is true without it. Bugs of single
layer rules, and of book-keeping, are planted in `test_book_keeping`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from invariants import (
    a_model_that_mixes_examples_is_refused,
    a_resumed_run_uses_no_block_twice,
    an_audit_stays_below_epsilon,
    an_empty_draw_is_a_step_of_noise,
    audited_epsilon,
    bounded,
    draws_are_poisson,
    follows_the_clip_norm,
    follows_the_number_drawn,
    lower_bound,
    noise_is_fresh_and_of_the_planned_size,
    runs_differ_by_their_noise,
    the_ledger_knows_what_was_released,
    thresholds_move_by_noisy_counts_alone,
    thresholds_seek_the_norms,
)

from trustnlp.dp import (
    AutomaticClipping,
    FlatClipping,
    LayerwiseClipping,
    Ledger,
    MicroBatchClipping,
    PoissonSampler,
    PrivacyPlan,
    PrivateStep,
    Quantile,
    Unit,
    layer_rules,
    per_unit_clipped_sum,
    validation,
)
from trustnlp.dp.accounting import Event
from trustnlp.dp.book_keeping import BookKeeping
from trustnlp.dp.clipping import Clipping
from trustnlp.dp.noise import ChunkedNoise
from trustnlp.models.protocol import Draw
from trustnlp.randomness import Streams

Check = Callable[[], bool]
Plant = Callable[[pytest.MonkeyPatch], None]


def bounded_for(name: str) -> Check:
    check = partial(bounded, name)
    functools.update_wrapper(check, bounded)
    check.__name__ = f"bounded for {name}"
    return check


FLAT, FLAT_ADAPTIVE, AUTOMATIC = bounded_for("flat"), bounded_for("flat, adaptive"), bounded_for("automatic")
LAYERWISE, LAYERWISE_ADAPTIVE = bounded_for("layer-wise"), bounded_for("layer-wise, adaptive")
MICRO_BATCHES, BY_LAYER = bounded_for("micro-batches"), bounded_for("micro-batches by layer")
TEXT, TEXT_BY_LAYER, TIED = bounded_for("text"), bounded_for("text by layer"), bounded_for("tied weights")
TEXT_IN_MICRO_BATCHES = bounded_for("text in micro-batches")


def sums_by(function: Callable, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Clipping, "sum_function", lambda self: function)


# Clipping


def no_clipping(patch):
    patch.setattr(Clipping, "factors", lambda self, norms, thresholds: torch.ones_like(norms))


def the_mean_clipped(patch):
    def mean(model, loss, data, units, parameters, clip):
        rows = np.concatenate([unit.rows for unit in units])
        found = per_unit_clipped_sum(model, loss, data, [Unit(rows, 1 / len(rows))], parameters, clip)
        return replace(found, gradients={name: part * len(rows) for name, part in found.gradients.items()})

    sums_by(mean, patch)


def a_norm_of_each_layer_where_one_of_all_is_planned(patch):
    patch.setattr(FlatClipping, "groups", LayerwiseClipping.groups)
    patch.setattr(FlatClipping, "sensitivity", 1 / 2**0.5)  # as if there were one layer and not two


def a_norm_without_the_embedding(patch):
    real = layer_rules.EmbeddingRule.squared_norms
    patch.setattr(layer_rules.EmbeddingRule, "squared_norms", lambda self: 0 * real(self))


def a_norm_without_biases(patch):
    real = layer_rules.OuterProducts
    patch.setattr(layer_rules, "OuterProducts", lambda a, g, *_: real(a, g, 0))


def one_norm_of_tied_weights_overwritten(patch):
    patch.setattr(layer_rules.TiedRule, "squared_norms", lambda self: self._embedding.squared_norms())


def a_squared_norm(patch):
    """|g|^2 where |g| is meant: short gradients come out long."""
    real = AutomaticClipping.factors
    patch.setattr(AutomaticClipping, "factors", lambda self, norms, thresholds: real(self, norms**2, thresholds))


def a_whole_clip_norm_for_every_layer(patch):
    real = LayerwiseClipping.factors  # there are two layers
    patch.setattr(LayerwiseClipping, "factors", lambda self, norms, c: real(self, norms, c * 2**0.5))


def no_root_of_the_number_of_layers(patch):
    patch.setattr(LayerwiseClipping, "sensitivity", 1 / 2**0.5)


# Micro-batches


def one_clip_norm_of_noise_for_micro_batches(patch):
    patch.setattr(MicroBatchClipping, "sensitivity", 1.0)


def consecutive_chunks(patch):
    def chunks(self, indices, expected, generator):
        return [Unit(indices[start : start + self.size], 1 / self.size) for start in range(0, 8, self.size)]

    patch.setattr(MicroBatchClipping, "units", chunks)


def micro_batches_not_clipped(patch):
    patch.setattr(MicroBatchClipping, "factors", lambda self, norms, thresholds: torch.ones_like(norms))


def micro_batches_of_the_drawn_size(patch):
    def means(self, indices, expected, generator):
        units = real(self, indices, expected, generator)
        return [Unit(np.concatenate([unit.rows for unit in units]), 1 / max(1, len(indices)))] * len(units)

    real = MicroBatchClipping.units
    patch.setattr(MicroBatchClipping, "units", means)


# Normaliser


def divided_by_the_drawn_size(patch):
    def averaged(*args):
        found = per_unit_clipped_sum(*args)
        factor = 4 / max(1, len(found.norms))
        return replace(found, gradients={name: part * factor for name, part in found.gradients.items()})

    sums_by(averaged, patch)


# Noise


def release_with(patch, change: Callable) -> None:
    """Lets the noise be released by `change(real, self, sums, block, stds, divisor)`."""
    real = ChunkedNoise.release_

    def release_(self, sums, block, stds, divisor, parts=None):
        change(partial(real, self), sums, block, stds, divisor)

    patch.setattr(ChunkedNoise, "release_", release_)


def scaled_noise(factor: Callable[[float], float]) -> Plant:
    def plant(patch):
        release_with(
            patch,
            lambda real, sums, block, stds, divisor: real(
                sums, block, {name: std * factor(divisor) for name, std in stds.items()}, divisor
            ),
        )

    return plant


noise_off_by_the_root_of_the_batch = scaled_noise(lambda divisor: divisor**-0.5)
a_quarter_of_the_noise = scaled_noise(lambda divisor: 0.25)


def noise_of_sigma_without_the_clip_norm(patch):
    release_with(
        patch,
        lambda real, sums, block, stds, divisor: real(sums, block, dict.fromkeys(stds, 1.5), divisor),
    )


def no_noise_in_the_last_layer(patch):
    def forget(real, sums, block, stds, divisor):
        real(sums, block, {name: std if name != list(sums)[-1] else 1e-12 for name, std in stds.items()}, divisor)

    release_with(patch, forget)


def noise_added_to_a_copy(patch):
    def copied(real, sums, block, stds, divisor):
        real({name: tensor.clone() for name, tensor in sums.items()}, block, stds, divisor)
        for tensor in sums.values():
            tensor.div_(divisor)

    release_with(patch, copied)


def one_stream_for_all(patch, name: Callable[[str], str], index: Callable[[tuple], tuple]) -> None:
    real = Streams.torch

    def torch_(self, stream, *place, device="cpu"):
        return real(self, name(stream), *index(place), device=device)

    patch.setattr(Streams, "torch", torch_)


def noise_shared_between_layers(patch):
    one_stream_for_all(patch, lambda stream: "noise", lambda place: place)


def noise_shared_between_steps(patch):
    one_stream_for_all(patch, lambda stream: stream, lambda place: (0, *place[1:]))


def noise_of_a_fixed_seed(patch):
    patch.setattr(Streams, "child", lambda self, name, *index: Streams(0))


# Draws and steps


def draws_of_a_fixed_size(patch):
    def draw(self, step):
        chosen = self.streams.numpy("sampling", step).permutation(self.examples)[: self.expected_batch]
        return Draw(step, np.sort(chosen), self)

    patch.setattr(PoissonSampler, "draw", draw)


def a_shuffled_epoch_cut_into_batches(patch):
    def draw(self, step):
        """With sizes that vary as Poisson sizes do: only what neighbours share tells the two apart."""
        epoch, place = divmod(step, self.examples // self.expected_batch)
        order = self.streams.numpy("sampling", epoch).permutation(self.examples)
        size = self.streams.numpy("sizes", step).binomial(self.examples, self.expected_batch / self.examples)
        return Draw(step, np.sort(order[place * self.expected_batch :][:size]), self)

    patch.setattr(PoissonSampler, "draw", draw)


def an_empty_draw_skipped(patch):
    real = PrivateStep.__call__
    patch.setattr(
        PrivateStep, "__call__", lambda self, data, draw: real(self, data, draw) if len(draw.indices) else 0.0
    )


def an_empty_draw_without_noise(patch):
    def only_of_something(real, sums, block, stds, divisor):
        if any(tensor.any() for tensor in sums.values()):
            real(sums, block, stds, divisor)

    release_with(patch, only_of_something)


def mixed_examples_accepted(patch):
    patch.setattr(validation, "check_independence", lambda *_: None)
    patch.setattr(BookKeeping, "__call__", lambda self, *args: per_unit_clipped_sum(*args))


# Accounting


def the_ledger_written_after_the_release(patch):
    spend, settle = Ledger.spend, PrivateStep.settle

    def late(self, **options):
        spend(self.ledger)
        settle(self, **options)

    patch.setattr(Ledger, "spend", lambda self: self.spent)
    patch.setattr(PrivateStep, "settle", late)


def every_other_step_charged(patch):
    patch.setattr(PrivacyPlan, "events", lambda self, steps=None: tuple(map(self.event, range(0, self.steps, 2))))


def half_the_rate_charged(patch):
    patch.setattr(PrivacyPlan, "sample_rate", property(lambda self: self.expected_batch / self.examples / 2))


def decayed_noise_charged_as_the_first(patch):
    real = Ledger.spend

    def spend(self):
        block = real(self)
        self._events[-1] = Event(self.plan.sample_rate, self.plan.noise_multiplier)
        return block

    patch.setattr(Ledger, "spend", spend)


def a_resumed_run_begins_at_block_0(patch):
    init, spend = Ledger.__init__, Ledger.spend

    def begin(self, *args):
        init(self, *args)
        self._begun = self.spent

    patch.setattr(Ledger, "__init__", begin)
    patch.setattr(Ledger, "spend", lambda self: spend(self) - self._begun)


# Adaptive thresholds


def an_inverted_update(patch):
    real = Quantile.moved
    patch.setattr(Quantile, "moved", lambda self, thresholds, counts: real(self, thresholds, -counts))


def counts_almost_without_noise(patch):
    patch.setattr(Quantile, "count_multiplier", lambda self, sigma, groups: 1e-6)


def thresholds_moved_by_raw_counts(patch):
    counts, moved, raw = Quantile.counts, Quantile.moved, []

    def remember(self, norms, thresholds):
        found = counts(self, norms, thresholds)
        raw.append(found / len(norms))
        return found

    patch.setattr(Quantile, "counts", remember)
    patch.setattr(Quantile, "moved", lambda self, thresholds, released: moved(self, thresholds, raw[-1]))


def adaptation_not_charged(patch):
    patch.setattr(Quantile, "gradient_multiplier", lambda self, sigma: sigma)


def counts_charged_as_of_one_layer(patch):
    real = Quantile.count_multiplier
    patch.setattr(Quantile, "count_multiplier", lambda self, sigma, groups: real(self, sigma, 1))


def counts_of_ones_and_zeros(patch):
    """Of sensitivity 1 and not one half, once 1/2 is not subtracted."""
    real = Quantile.counts
    patch.setattr(Quantile, "counts", lambda self, norms, c: real(self, norms, c) + len(norms) / 2)


# bug -> the check that catches it
BUGS: list[tuple[Plant, Check]] = [
    (no_clipping, FLAT),
    (no_clipping, follows_the_clip_norm),
    (the_mean_clipped, FLAT),
    (a_norm_of_each_layer_where_one_of_all_is_planned, FLAT),
    (a_norm_without_the_embedding, TEXT),
    (a_norm_without_biases, TEXT),
    (a_norm_without_biases, TEXT_BY_LAYER),
    (one_norm_of_tied_weights_overwritten, TIED),
    (a_squared_norm, AUTOMATIC),
    (a_whole_clip_norm_for_every_layer, LAYERWISE),
    (no_root_of_the_number_of_layers, LAYERWISE),
    (one_clip_norm_of_noise_for_micro_batches, MICRO_BATCHES),
    (consecutive_chunks, MICRO_BATCHES),
    (consecutive_chunks, BY_LAYER),
    (micro_batches_of_the_drawn_size, MICRO_BATCHES),
    (micro_batches_not_clipped, TEXT_IN_MICRO_BATCHES),
    (divided_by_the_drawn_size, follows_the_number_drawn),
    (noise_off_by_the_root_of_the_batch, noise_is_fresh_and_of_the_planned_size),
    (noise_of_sigma_without_the_clip_norm, noise_is_fresh_and_of_the_planned_size),
    (noise_of_sigma_without_the_clip_norm, runs_differ_by_their_noise),
    (no_noise_in_the_last_layer, noise_is_fresh_and_of_the_planned_size),
    (noise_added_to_a_copy, noise_is_fresh_and_of_the_planned_size),
    (noise_shared_between_layers, noise_is_fresh_and_of_the_planned_size),
    (noise_shared_between_steps, noise_is_fresh_and_of_the_planned_size),
    (noise_of_a_fixed_seed, runs_differ_by_their_noise),
    (draws_of_a_fixed_size, draws_are_poisson),
    (a_shuffled_epoch_cut_into_batches, draws_are_poisson),
    (an_empty_draw_skipped, an_empty_draw_is_a_step_of_noise),
    (an_empty_draw_without_noise, an_empty_draw_is_a_step_of_noise),
    (mixed_examples_accepted, a_model_that_mixes_examples_is_refused),
    (the_ledger_written_after_the_release, the_ledger_knows_what_was_released),
    (every_other_step_charged, the_ledger_knows_what_was_released),
    (half_the_rate_charged, the_ledger_knows_what_was_released),
    (decayed_noise_charged_as_the_first, the_ledger_knows_what_was_released),
    (a_resumed_run_begins_at_block_0, a_resumed_run_uses_no_block_twice),
    (an_inverted_update, thresholds_seek_the_norms),
    (counts_almost_without_noise, FLAT_ADAPTIVE),
    (thresholds_moved_by_raw_counts, thresholds_move_by_noisy_counts_alone),
    (adaptation_not_charged, FLAT_ADAPTIVE),
    (counts_charged_as_of_one_layer, LAYERWISE_ADAPTIVE),
    (counts_of_ones_and_zeros, FLAT_ADAPTIVE),
    (no_clipping, an_audit_stays_below_epsilon),
    (a_quarter_of_the_noise, an_audit_stays_below_epsilon),
]
CHECKS = sorted({check for _, check in BUGS}, key=lambda check: check.__name__)
healthy = functools.cache(lambda check: check())


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_engine_keeps(check):
    assert healthy(check)


@pytest.mark.parametrize(
    ("bug", "check"), [pytest.param(*row, id=f"{row[0].__name__}-{row[1].__name__}") for row in BUGS]
)
def test_the_bug_is_caught(bug, check, monkeypatch):
    assert healthy(check)
    bug(monkeypatch)
    assert not check()


class TestAudit:
    def test_on_the_engine_it_finds_something_and_less_than_epsilon(self):
        bounds = [audited_epsilon(seed) for seed in range(3)]
        assert all(low <= high for low, high in bounds)
        assert max(low for low, _ in bounds) > 0.2

    def test_a_spy_who_guesses_by_chance_refutes_nothing(self):
        assert lower_bound(800, 120, 60, 1e-5) == 0

    def test_a_spy_who_is_always_right_refutes_what_the_guesses_can_bear(self):
        """Pure epsilon: q^r = 0.05 with q = 1 / (1 + e^-epsilon)."""
        q = 0.05 ** (1 / 100)
        assert lower_bound(1000, 100, 100, 0.0) == pytest.approx(np.log(q / (1 - q)), abs=0.02)
