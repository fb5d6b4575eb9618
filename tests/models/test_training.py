import math
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_corpus import CORPUS, SMALL, TRAIN

from trustnlp import models
from trustnlp.errors import ArgumentError, ModelError, RunError
from trustnlp.models import evaluation
from trustnlp.models.protocol import Draw
from trustnlp.models.training import CHECKPOINT, History, PlainStep, ShuffledBatches, fit
from trustnlp.randomness import Streams

STREAMS = Streams(5)


class Run:
    """Everything a training needs, made anew as a new process would."""

    def __init__(self, kind: str = "bilstm", epochs: int = 3, step_class: type[PlainStep] = PlainStep) -> None:
        self.model = models.build(kind, CORPUS, streams=STREAMS, **SMALL[kind])
        self.data = self.model.encode(TRAIN, for_training=True)
        self.sampler = ShuffledBatches(len(self.data), 3, epochs, STREAMS)
        optimizer = torch.optim.AdamW(self.model.parameters(), 0.01)
        self.step = step_class(self.model, optimizer, schedule=lambda step: 1 / (1 + step), clip_grad_norm=1.0)

    def fit(self, **more) -> History:
        valid = self.model.encode(CORPUS.valid)
        watched = {"evaluate": lambda: evaluation.evaluate(self.model, valid), "patience": 2}
        return fit(self.model, self.data, self.sampler, self.step, streams=STREAMS, **watched | more)

    def weights(self) -> dict[str, torch.Tensor]:
        return self.model.state_dict()


def interrupt_at(step: int):
    def progress(stage, done, total, figures):
        if done == step:
            signal.raise_signal(signal.SIGINT)

    return progress


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("kind", ["bilstm", "transformer"])
def test_interrupted_and_resumed_is_bit_identical(kind, tmp_path):
    whole = Run(kind)
    expected = whole.fit()
    for stop in (1, 4, 6):
        folder = tmp_path / str(stop)
        with pytest.raises(KeyboardInterrupt):
            Run(kind).fit(folder=folder, progress=interrupt_at(stop))
        with pytest.raises(KeyboardInterrupt):
            Run(kind).fit(folder=folder, progress=interrupt_at(stop + 1))
        torch.rand(stop)  # another process has another global state
        resumed = Run(kind)
        assert resumed.fit(folder=folder) == expected
        assert same(resumed.weights(), whole.weights())


@settings(max_examples=5, deadline=None)
@given(stops=st.lists(st.integers(1, 8), max_size=3, unique=True).map(sorted), every=st.sampled_from([None, 2]))
def test_resuming_at_any_steps(tmp_path_factory, stops, every):
    folder = tmp_path_factory.mktemp("run")
    whole = Run()
    expected = whole.fit()
    for stop in stops:
        with pytest.raises(KeyboardInterrupt):
            Run().fit(folder=folder, progress=interrupt_at(stop), checkpoint_every=every)
    resumed = Run()
    assert resumed.fit(folder=folder) == expected
    assert same(resumed.weights(), whole.weights())


def test_a_crash_goes_on_from_the_last_checkpoint(tmp_path):
    def crash(stage, done, total, figures):
        if done == 5:
            raise OSError("no space left")

    whole = Run()
    expected = whole.fit()
    with pytest.raises(OSError, match="no space"):
        Run().fit(folder=tmp_path, progress=crash)
    resumed = Run()
    assert resumed.fit(folder=tmp_path) == expected
    assert same(resumed.weights(), whole.weights())


def test_dropout_differs_by_step_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    run = Run()
    run.fit(evaluate=None, patience=None)
    assert torch.equal(before, torch.get_rng_state())
    frozen = Run()
    frozen.step = Frozen(frozen.model)
    frozen.fit(evaluate=None, patience=None)
    assert len(set(frozen.step.losses)) == len(frozen.step.losses)


class Frozen:
    """A step that only looks: the same batch each time, so that losses differ by dropout alone."""

    def __init__(self, model, start: int = 0) -> None:
        self.model, self.losses, self.start = model, [], start

    def __call__(self, data, draw) -> float:
        self.losses.append(self.model.loss(data.batch([0, 1])).mean().item())
        return self.losses[-1]

    def resume_at(self, step: int) -> int:
        return max(step, self.start)

    def state(self):
        return {}

    def restore(self, state) -> None:
        pass


def test_a_finished_training_is_not_repeated(tmp_path):
    first = Run()
    history = first.fit(folder=tmp_path)
    again = Run()
    assert again.fit(folder=tmp_path, progress=interrupt_at(1)) == history
    assert same(again.weights(), first.weights())


@pytest.mark.parametrize(("lost_to", "executed"), [(2, 7), (4, 5), (9, 0)])
def test_lost_steps_are_skipped_never_replayed(lost_to, executed):
    run = Run()
    run.step = Frozen(run.model, start=lost_to)
    history = run.fit(patience=None)
    assert len(run.step.losses) == executed
    assert history.steps == 9
    assert history.epochs[-1]["step"] == 9
    assert "accuracy" in history.epochs[-1]


def test_more_lost_steps_than_the_run_has_are_refused():
    run = Run()
    run.step = Frozen(run.model, start=10)
    with pytest.raises(RunError, match="step 10 would be next, but the training has 9"):
        run.fit()


def test_progress_is_told_every_step():
    seen = []
    Run(epochs=2).fit(stage="plain", progress=lambda *call: seen.append(call))
    assert [call[:3] for call in seen] == [("plain", done, 6) for done in range(1, 7)]
    assert set(seen[0][3]) == {"loss"}
    assert set(seen[2][3]) == {"loss", "score", "accuracy", "slot_f1"}


class TestPatience:
    def history(self, scores: list[float], patience: int) -> tuple[History, Run, list[dict[str, torch.Tensor]]]:
        run, left, seen = Run(epochs=len(scores)), list(scores), []

        def evaluate() -> dict[str, float]:
            seen.append({name: value.clone() for name, value in run.weights().items()})
            return {"score": left.pop(0)}

        return run.fit(evaluate=evaluate, patience=patience), run, seen

    def test_stops_and_keeps_the_best_weights(self):
        history, run, seen = self.history([0.1, 0.5, 0.4, 0.5, 0.9], 2)
        assert (history.stopped_early, history.best_epoch, len(history.epochs)) == (True, 1, 4)
        assert same(run.weights(), seen[1])
        assert not same(run.weights(), seen[3])

    def test_runs_to_the_end_while_it_gets_better(self):
        history, run, seen = self.history([0.1, 0.2, 0.1, 0.3], 2)
        assert (history.stopped_early, history.best_epoch, history.steps) == (False, 3, 12)
        assert same(run.weights(), seen[3])

    def test_stays_stopped_when_called_again(self, tmp_path):
        scores = iter([0.5, 0.4, 0.3])
        run = Run()
        first = run.fit(evaluate=lambda: {"score": next(scores)}, patience=1, folder=tmp_path)
        assert first.stopped_early
        again = Run()
        assert again.fit(evaluate=lambda: {"score": next(scores)}, patience=1, folder=tmp_path) == first
        assert same(again.weights(), run.weights())

    def test_needs_something_to_watch(self):
        with pytest.raises(ArgumentError, match="'evaluate' must be given where patience is"):
            Run().fit(evaluate=None)
        with pytest.raises(ArgumentError, match="'watch' must be a figure of evaluate, got 'f1'"):
            Run().fit(watch="f1")


class TestRefusals:
    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_a_loss_that_is_no_number(self, value):
        run = Run()
        with torch.no_grad():
            run.model.label_head.bias[0] = value
        with pytest.raises(ModelError, match=r"the loss at step 0 is (nan|inf).*lower the learning rate"):
            run.fit()

    def test_a_checkpoint_of_another_training(self, tmp_path):
        Run().fit(folder=tmp_path)
        with pytest.raises(RunError, match=r"is of another training.*another folder"):
            Run(epochs=4).fit(folder=tmp_path)

    @pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\x08\0\0\0\0\0\0\0{}      "])
    def test_a_damaged_checkpoint(self, tmp_path, content):
        (tmp_path / CHECKPOINT).write_bytes(content)
        with pytest.raises(RunError, match="cannot be read as a checkpoint"):
            Run().fit(folder=tmp_path)

    def test_checkpoints_need_a_folder(self):
        with pytest.raises(ArgumentError, match="'folder' must be given where checkpoint_every is"):
            Run().fit(checkpoint_every=2)


def test_the_second_interrupt_stops_at_once_and_leaves_the_old_checkpoint(tmp_path):
    class Stubborn(PlainStep):
        def __call__(self, data, draw: Draw) -> float:
            if draw.step == 4:
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)
                raise AssertionError("not reached")
            return super().__call__(data, draw)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        Run(step_class=Stubborn).fit(folder=tmp_path)
    assert signal.getsignal(signal.SIGINT) is before
    whole, resumed = Run(), Run()
    assert resumed.fit(folder=tmp_path) == whole.fit()
    assert same(resumed.weights(), whole.weights())


def test_no_part_files_are_left(tmp_path):
    Run().fit(folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


class TestShuffledBatches:
    @settings(deadline=None)
    @given(n=st.integers(1, 30), size=st.integers(1, 12), epochs=st.integers(1, 3), seed=st.integers(0, 9))
    def test_every_example_once_per_epoch(self, n, size, epochs, seed):
        sampler = ShuffledBatches(n, size, epochs, Streams(seed))
        draws = [sampler.draw(step) for step in range(sampler.steps)]
        assert all(1 <= len(draw.indices) <= size and draw.source is sampler for draw in draws)
        for epoch in range(epochs):
            part = draws[epoch * sampler.steps_per_epoch : (epoch + 1) * sampler.steps_per_epoch]
            assert sorted(np.concatenate([draw.indices for draw in part])) == list(range(n))

    def test_a_draw_depends_on_its_step_alone(self):
        one, other = (ShuffledBatches(20, 6, 3, Streams(1)) for _ in range(2))
        forwards = [one.draw(step).indices.tolist() for step in range(12)]
        backwards = [other.draw(step).indices.tolist() for step in reversed(range(12))]
        assert forwards == backwards[::-1]
        assert forwards[:4] != forwards[4:8]

    def test_no_step_beyond_the_last(self):
        with pytest.raises(ArgumentError, match="'step' must be"):
            ShuffledBatches(4, 2, 1, Streams(0)).draw(2)


class TestPlainStep:
    def test_equals_the_textbook_update(self):
        run = Run()
        run.model.eval()
        twin = models.build("bilstm", CORPUS, streams=STREAMS, **SMALL["bilstm"]).eval()
        step = PlainStep(run.model, torch.optim.SGD(run.model.parameters(), 0.5), schedule=lambda step: 0.5)
        draw = Draw(0, np.array([1, 4, 2]), None)
        shown = step(run.data, draw)
        losses = torch.cat([twin.loss(run.data.batch([i])) for i in (1, 4, 2)])
        gradients = torch.autograd.grad(losses.mean(), list(twin.parameters()))
        assert shown == pytest.approx(losses.mean().item(), rel=1e-5)
        for moved, start, gradient in zip(run.model.parameters(), twin.parameters(), gradients, strict=True):
            torch.testing.assert_close(moved, start - 0.25 * gradient, rtol=1e-4, atol=1e-6)

    def test_needs_a_text_model(self):
        bare = torch.nn.Linear(1, 1)
        with pytest.raises(ArgumentError, match="'model' must be a TextModel"):
            PlainStep(bare, torch.optim.SGD(bare.parameters(), 0.1))

    def test_mixed_precision_stays_close(self):
        run = Run("transformer")
        run.model.eval()
        step = PlainStep(run.model, torch.optim.SGD(run.model.parameters(), 0.0), precision="bf16")
        draw = Draw(0, np.arange(8), None)
        exact = run.model.loss(run.data.batch(range(8))).mean().item()
        assert step(run.data, draw) == pytest.approx(exact, rel=0.02)
        assert all(parameter.dtype == torch.float32 for parameter in run.model.parameters())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["bilstm", "transformer"])
def test_the_same_on_a_gpu(kind):
    run = Run(kind)
    expected = models.losses(run.model, run.data)
    run.model.to("cuda")
    np.testing.assert_allclose(models.losses(run.model, run.data), expected, rtol=1e-3, atol=1e-4)
    optimizer = torch.optim.AdamW(run.model.parameters(), 0.01)
    run.step = PlainStep(run.model, optimizer, precision="bf16")
    assert run.fit().epochs[-1]["loss"] < expected.mean()


def test_the_tiny_corpus_is_learned(tmp_path: Path):
    run = Run(epochs=60)
    run.step = PlainStep(run.model, torch.optim.Adam(run.model.parameters(), 0.02))
    run.fit(patience=None)
    assert not run.model.training
    assert evaluation.evaluate(run.model, run.model.encode(TRAIN))["score"] == 1
