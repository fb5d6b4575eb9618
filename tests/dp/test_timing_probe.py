import itertools

import pytest
import torch
from rows import Calls, Rows, both, clip_of, normal, random_weights, same, trainable
from torch import nn

from trustnlp.dp import timing_probe
from trustnlp.dp.book_keeping import BookKeeping
from trustnlp.dp.clipping import examples, per_unit_clipped_sum
from trustnlp.dp.ghost_norms import counted_form
from trustnlp.dp.timing_probe import TimingProbe
from trustnlp.errors import ArgumentError


class Clock:
    """Every form takes as long as told, and only that passes."""

    def __init__(self, monkeypatch, **seconds):
        self.now, self.asked = 0.0, []
        real = timing_probe.OuterProducts.squared_norms

        def norms(products):
            form = products._choose(products.a, products.g, 0)
            self.asked.append(form)
            self.now += seconds[form]
            return real(products)

        monkeypatch.setattr(timing_probe.OuterProducts, "squared_norms", norms)

    def __call__(self):
        return self.now


SHAPES = normal(4, 9, 9), normal(4, 9, 11)  # matrices are the smallest by count


class TestTimingProbe:
    @pytest.mark.parametrize("fastest", ["gram", "tiled", "instantiate"])
    def test_the_fastest_is_chosen(self, fastest, monkeypatch):
        seconds = {"gram": 0.3, "tiled": 0.2, "instantiate": 0.4} | {fastest: 0.1}
        assert TimingProbe(9.0, Clock(monkeypatch, **seconds))(*SHAPES, 0) == fastest

    def test_equal_shapes_are_timed_once_and_lengths_by_powers_of_two(self, monkeypatch):
        clock = Clock(monkeypatch, gram=0.1, tiled=0.2, instantiate=0.3)
        probe = TimingProbe(99.0, clock)
        for count, length in [(4, 9), (4, 9), (3, 9), (4, 16), (4, 12)]:
            probe(normal(count, length, 9), normal(count, length, 11), 0)
        assert len(probe.chosen) == 1
        assert len(clock.asked) == 9
        probe(normal(4, 17, 9), normal(4, 17, 11), 0)
        assert len(probe.chosen) == 2

    def test_when_the_time_is_up_multiplications_are_counted(self, monkeypatch):
        probe = TimingProbe(1.0, Clock(monkeypatch, gram=0.5, tiled=0.6, instantiate=0.7))
        assert probe(*SHAPES, 0) == "gram"
        assert probe(normal(4, 90, 9), normal(4, 90, 11), 0) == "instantiate" == counted_form(*SHAPES, 0)
        assert probe(*SHAPES, 0) == "gram"

    def test_one_position_needs_no_probe(self, monkeypatch):
        clock = Clock(monkeypatch)
        assert TimingProbe(1.0, clock)(normal(4, 1, 3), normal(4, 1, 5), 0) == "gram"
        assert clock.asked == []

    def test_no_form_needs_much_more_memory_than_there_is(self):
        for length, inputs, outputs in itertools.product([2, 5, 60, 500], [1, 8, 90], [1, 8, 90]):
            held = length * (inputs + outputs)
            forms = timing_probe._candidates(length, inputs, outputs)
            assert "gram" not in forms or length**2 <= held
            assert "instantiate" not in forms or inputs * outputs <= held

    @pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
    def test_the_time_is_positive(self, seconds):
        with pytest.raises(ArgumentError, match="seconds"):
            TimingProbe(seconds)


@pytest.mark.parametrize("form", ["gram", "tiled", "instantiate"])
@pytest.mark.parametrize("layer", [nn.Linear(6, 4), nn.LSTM(6, 4, batch_first=True), nn.Conv1d(7, 3, 2)])
def test_no_choice_changes_the_numbers(form, layer):
    model, data = Calls(random_weights(layer)), Rows({"x": normal(5, 7, 6)})
    engine, clip = BookKeeping(3, lambda *_: form), clip_of(model, 0.1)
    found = engine(model, model.loss, data, examples(range(5)), trainable(model), clip)
    assert engine.fallback == ""
    assert same(found, per_unit_clipped_sum(model, model.loss, data, examples(range(5)), trainable(model), clip))


def test_a_real_probe_gives_the_same_numbers_and_is_asked():
    model, data, probe = Calls(random_weights(nn.Linear(6, 4))), Rows({"x": normal(5, 7, 6)}), TimingProbe()
    engine, clip = BookKeeping(3, probe), clip_of(model, 0.1)
    found = engine(model, model.loss, data, examples(range(5)), trainable(model), clip)
    assert probe.chosen
    assert same(found, per_unit_clipped_sum(model, model.loss, data, examples(range(5)), trainable(model), clip))


def test_on_cpus_bits_do_not_depend_on_times():
    model, data = Calls(random_weights(nn.Linear(6, 4)).float()), Rows({"x": normal(5, 7, 6).float()})
    before = dict(timing_probe.DEVICE_PROBE.chosen)
    sums = [both(model, data, 0.1)[1].gradients["layer.weight"] for _ in range(2)]
    assert torch.equal(*sums)
    assert timing_probe.DEVICE_PROBE.chosen == before
