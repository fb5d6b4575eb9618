import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import STREAMS, Planted, gradients, released, step_of, without_probes

from trustnlp.dp import FlatClipping, LayerwiseClipping, MicroBatchClipping, PrivacyPlan, Quantile, accounting
from trustnlp.dp.adaptive_thresholds import checked
from trustnlp.dp.plan import CLIPPINGS
from trustnlp.errors import ArgumentError

ONE = torch.ones(1, dtype=torch.float64)
# All clippings that adapt, over 3 layers.
ADAPTING = [FlatClipping, LayerwiseClipping, MicroBatchClipping]


def threshold_after(fraction, quantile=Quantile()):  # noqa: B008  (frozen)
    return float(quantile.moved(ONE, ONE * (fraction - 0.5)))


class TestDirection:
    def test_thresholds_go_up_where_too_many_are_clipped_and_down_where_too_few(self):
        assert threshold_after(fraction=0.1) > 1 > threshold_after(fraction=0.9)
        assert threshold_after(fraction=0.5) == 1

    def test_the_formula_is_that_of_andrew_et_al(self):
        found = threshold_after(0.9, Quantile(quantile=0.3, rate=0.7))
        assert found == pytest.approx(math.exp(-0.7 * (0.9 - 0.3)), rel=1e-12)

    def test_noise_beyond_all_fractions_counts_as_all_or_none(self):
        assert threshold_after(40.0) == threshold_after(1.0)
        assert threshold_after(-40.0) == threshold_after(0.0)

    def test_counts_are_halves_for_and_against(self):
        norms = torch.tensor([[0.5, 3.0], [1.0, 4.0], [2.0, 0.0]], dtype=torch.float64)
        assert Quantile().counts(norms, torch.tensor([1.0, 2.0])).tolist() == [0.5, -0.5]
        assert Quantile().counts(norms[:0], torch.tensor([1.0, 2.0])).tolist() == [0, 0]

    @pytest.mark.parametrize(("fraction", "end"), [(1.0, 1e-10), (0.0, 1e10)])
    def test_a_layer_without_gradients_does_not_sink_to_nothing(self, fraction, end):
        thresholds = ONE
        for _ in range(2000):
            thresholds = Quantile().moved(thresholds, ONE * (fraction - 0.5))
        assert float(thresholds) == end
        assert FlatClipping().factors(torch.zeros(1, 1), thresholds.float()).isfinite().all()


class TestBudget:
    @given(st.floats(0.1, 100), st.floats(1e-4, 0.9), st.integers(1, 300))
    def test_gradients_and_counts_together_cost_what_the_accountant_is_told(self, sigma, share, groups):
        """1 / z_gradient^2 + K / (2 sigma_b)^2 = 1 / z^2, where sigma_b is the deviation of a count."""
        quantile = Quantile(share=share)
        sigma_b = quantile.count_multiplier(sigma, groups) / 2
        spent = 1 / quantile.gradient_multiplier(sigma) ** 2 + groups / (2 * sigma_b) ** 2
        assert spent == pytest.approx(1 / sigma**2, rel=1e-9)

    def test_for_one_group_it_is_the_equation_of_andrew_et_al(self):
        """Theorem 1: z_delta = (z^-2 - (2 sigma_b)^-2)^(-1/2)."""
        quantile = Quantile(share=0.1)
        sigma_b = quantile.count_multiplier(1.5, 1) / 2
        assert quantile.gradient_multiplier(1.5) == pytest.approx((1.5**-2 - (2 * sigma_b) ** -2) ** -0.5)

    def test_two_gaussian_releases_compose_to_one_of_the_plans(self):
        quantile = Quantile(share=0.4)
        parts = [quantile.gradient_multiplier(2.0), quantile.count_multiplier(2.0, 1)]
        two = accounting.epsilon([accounting.Event(1.0, sigma) for sigma in parts], 1e-5)
        assert two == pytest.approx(accounting.epsilon([accounting.Event(1.0, 2.0)], 1e-5), rel=1e-3)

    @pytest.mark.parametrize(("kind", "half"), [(FlatClipping, 0.5), (LayerwiseClipping, 0.5), (MicroBatchClipping, 1)])
    def test_the_engine_noises_counts_and_gradients_by_their_shares(self, kind, half):
        clipping = kind(clip_norm=2.0, adapt=Quantile(share=0.2), **({"size": 2} if half == 1 else {}))
        plan, data = PrivacyPlan(6, 4, 3, 1.5, 1e-3, clipping=clipping), gradients(np.ones((6, 3, 2)))
        stds = released(plan, data, range(4)).stds
        groups = 3 if kind is LayerwiseClipping else 1
        assert stds.pop("counts of units within their thresholds") == pytest.approx(
            half * 1.5 * math.sqrt(groups / 0.2)
        )
        # sqrt(K) C_k is C
        assert list(stds.values()) == pytest.approx([1.5 / math.sqrt(0.8) * 2 * half * 2.0] * 3)


def run(plan, data, steps, layers=1, width=1):
    """The thresholds after every step, (steps, K)."""
    model = Planted(layers, width)
    step, seen = step_of(plan, model), []
    with without_probes():
        for number in range(steps):
            step(data, plan.sampler(STREAMS).draw(number))
            seen.append(step.state()["thresholds"].tolist())
    return np.array(seen)


class TestInTheEngine:
    @pytest.mark.parametrize("quantile", [0.3, 0.8])
    @pytest.mark.parametrize("start", [0.01, 100.0])
    def test_thresholds_come_to_the_quantile_of_planted_norms(self, start, quantile):
        norms = np.random.default_rng(0).lognormal(0, 1, 400)
        clipping = FlatClipping(start, adapt=Quantile(quantile, rate=0.3, share=0.3))
        plan = PrivacyPlan(400, 200, 120, 1.0, 1e-4, clipping=clipping)
        ends = run(plan, gradients(norms[:, None, None]), 120)[-40:, 0]
        assert abs((norms <= np.exp(np.log(ends).mean())).mean() - quantile) < 0.05

    def test_every_layer_comes_to_a_quantile_of_its_own(self):
        norms = np.random.default_rng(0).lognormal([-3, 0, 3], 0.5, (400, 3))
        clipping = LayerwiseClipping(1.0, adapt=Quantile(rate=0.3, share=0.5))
        ends = run(PrivacyPlan(400, 200, 100, 1.0, 1e-4, clipping=clipping), gradients(norms[:, :, None]), 100, 3)[-40:]
        assert np.log(ends).mean(0) == pytest.approx([-3, 0, 3], abs=0.3)

    @pytest.mark.parametrize("kind", ADAPTING)
    def test_the_noisy_counts_alone_move_thresholds(self, kind):
        """With the same noise, one example more moves log C by what it moves a count by, times rate / normaliser."""
        options = {"size": 2} if kind is MicroBatchClipping else {}
        clipping = kind(clip_norm=1.0, adapt=Quantile(share=0.9, rate=0.5), **options)
        plan, moves = PrivacyPlan(6, 6, 3, 0.3, 1e-3, clipping=clipping), []
        for last in (0.01, 100.0):  # within or not: a flip, twice what an example more or less is
            data = gradients([[[0.1]]] * 5 + [[[last]]])
            moves.append(np.log(run(plan, data, 1)[0, 0]))
        assert 0 < abs(moves[1] - moves[0]) <= 0.5 / clipping.normaliser(6) * (1 + 1e-9)

    def test_thresholds_move_by_noise_where_nothing_is_drawn_from(self):
        """Gradients of 0 are always within: without noise every step would move log C by the same."""
        clipping = FlatClipping(1.0, adapt=Quantile(share=0.9, rate=0.1))
        seen = run(PrivacyPlan(4, 4, 200, 1.0, 1e-3, clipping=clipping), gradients(np.zeros((4, 1, 1))), 200)
        assert np.diff(np.log(seen[:, 0])).std() > 0.005

    def test_a_resumed_run_has_the_thresholds_of_the_whole(self):
        clipping = FlatClipping(1.0, adapt=Quantile(share=0.5))
        plan = PrivacyPlan(6, 4, 6, 1.0, 1e-3, clipping=clipping)
        data, model = gradients(np.ones((6, 1, 1))), Planted(1, 1)
        step = step_of(plan, model)
        for number in range(3):
            step(data, plan.sampler(STREAMS).draw(number))
        again = step_of(plan, model, ledger=step.ledger)
        again._noise._next = 3
        again.restore(step.state())
        for number in range(3, 6):
            again(data, plan.sampler(STREAMS).draw(number))
        assert again.state()["thresholds"].tolist() == run(plan, data, 6)[-1].tolist()


class TestDecay:
    @pytest.mark.parametrize("clipping", [FlatClipping(2.0), FlatClipping(2.0, adapt=Quantile(share=0.36))])
    def test_the_noise_added_in_every_epoch_is_the_plans(self, clipping):
        plan = PrivacyPlan(40, 20, 6, 1.5, 1e-3, clipping=clipping, noise_decay=0.5)  # 3 epochs of 2 steps
        model = Planted(1, 4000)
        step, data = step_of(plan, model), gradients(np.zeros((40, 1, 4000)))
        charge, stds = 1 if clipping.adapt is None else 0.8, []
        for draw in plan.sampler(STREAMS):
            threshold, before = float(step.state()["thresholds"]), model.layers[0].weight.detach().clone()
            step(data, draw)
            moved = (model.layers[0].weight - before).detach() * 20 / threshold
            stds.append(float(moved.std()) * charge)
        assert stds == pytest.approx([1.5, 1.5, 0.75, 0.75, 0.375, 0.375], rel=4 / math.sqrt(8000))
        assert [event.noise_multiplier for event in step.ledger._events] == [1.5, 1.5, 0.75, 0.75, 0.375, 0.375]


class TestQuantile:
    @pytest.mark.parametrize(
        ("field", "value"),
        [("quantile", 0), ("quantile", 1), ("share", 0), ("share", 1), ("rate", 0), ("rate", math.nan), ("share", "1")],
    )
    def test_bad_fields_are_refused_by_name(self, field, value):
        with pytest.raises(ArgumentError, match=field):
            Quantile(**{field: value})

    def test_anything_but_a_quantile_or_none_is_refused(self):
        assert checked(None) is None
        assert checked(Quantile()) == Quantile()
        with pytest.raises(ArgumentError, match="adapt"):
            checked(0)

    @settings(max_examples=30, deadline=None)
    @given(st.data())
    def test_every_clipping_survives_the_json_of_its_plan(self, data):
        kind = data.draw(st.sampled_from(list(CLIPPINGS.values())))
        drawn = {
            "clip_norm": st.one_of(st.floats(1e-6, 1e6), st.integers(1, 9)),
            "stability": st.floats(1e-6, 1),
            "size": st.sampled_from([1, 2, 4]),
            "by_layer": st.booleans(),
            "adapt": st.one_of(st.none(), st.builds(Quantile, st.just(0.5), st.sampled_from([1, 0.3]), st.just(0.1))),
        }
        fields = {name: data.draw(drawn[name]) for name in [field.name for field in dataclasses.fields(kind)]}
        plan = PrivacyPlan(8, 4, 3, 1.3, 1e-3, clipping=kind(**fields))
        again = PrivacyPlan.from_json(plan.to_json())
        assert again == plan
        assert again.digest() == plan.digest()
        assert type(again.clipping) is kind

    def test_equal_quantiles_make_plans_of_one_digest(self):
        digests = {
            PrivacyPlan(8, 4, 3, 1.3, 1e-3, clipping=FlatClipping(1.0, Quantile(rate=rate))).digest()
            for rate in (1, 1.0)
        }
        assert len(digests) == 1
