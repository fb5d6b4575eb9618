"""The one training loop, into which a step is injected.

    fit:   for each step:   step(data, sampler.draw(i))           plain, private or federated: only `step` differs
           after each epoch: evaluate() -> figures -> best weights, early stopping -> checkpoint

A draw depends on its step alone, and so does dropout, so a run that was interrupted and resumed has the same bits
as one that was not.
"""

from __future__ import annotations

import hashlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from trustnlp import checks
from trustnlp.errors import ArgumentError, ModelError, RunError
from trustnlp.models.protocol import Draw, Encoded, Sampler, Step, TextModel
from trustnlp.models.state import load_state, save_state
from trustnlp.progress import Progress, silent
from trustnlp.randomness import Streams

CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class History:
    """What a training did.

    Args:
        epochs: for each epoch the `step` it ended at, the mean training `loss`, and the figures of `evaluate`.
        steps: how many steps were done (or, in a resumed private run, lost and skipped).
        stopped_early: whether patience ran out.
        best_epoch: index in `epochs` of the weights that were kept; None where nothing was watched.
        seconds: wall time, over all resumptions.
    """

    epochs: tuple[Mapping[str, float], ...]
    steps: int
    stopped_early: bool
    best_epoch: int | None
    seconds: float = field(compare=False)


class ShuffledBatches:
    """A permutation of all n examples per epoch, cut into batches; the last one may be smaller.

    It gives **no** privacy amplification: its batches are not Poisson draws.

    Args:
        n: how many examples there are.
        batch_size: of every batch but the last of an epoch.
        epochs: how often every example is seen.
        streams: epoch e is shuffled by the stream `sampling` at e.
    """

    def __init__(self, n: int, batch_size: int, epochs: int, streams: Streams) -> None:
        self.n = checks.at_least("n", n, 1)
        self.batch_size = checks.at_least("batch_size", batch_size, 1)
        self.epochs = checks.at_least("epochs", epochs, 1)
        self._streams = streams
        self._shuffled: tuple[int, np.ndarray] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Batches per epoch."""
        return math.ceil(self.n / self.batch_size)

    @property
    def steps(self) -> int:
        """Batches of the whole run."""
        return self.epochs * self.steps_per_epoch

    def draw(self, step: int) -> Draw:
        """The batch of step `step`, 0 <= step < steps."""
        checks.within("step", step, 0, self.steps - 1)
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._shuffled is None or self._shuffled[0] != epoch:
            self._shuffled = epoch, self._streams.numpy("sampling", epoch).permutation(self.n)
        start = place * self.batch_size
        return Draw(step, self._shuffled[1][start : start + self.batch_size], self)


class PlainStep:
    """The step without privacy: the optimiser follows the mean of the per-example losses.

    Args:
        model: whose parameters the optimiser holds.
        optimizer: any PyTorch optimiser.
        schedule: factor of the learning rate at each step, a function of the step alone.
        precision: "fp32", or "bf16" for mixed precision by autocast (worth it on CUDA; CPUs are often slower).
        clip_grad_norm: ceiling of the batch gradient's 2-norm, for stability only; it gives no privacy.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        schedule: Callable[[int], float] | None = None,
        precision: str = "fp32",
        clip_grad_norm: float | None = None,
    ) -> None:
        if not isinstance(model, TextModel):
            raise ArgumentError("model", "a TextModel, with the methods loss and logits", type(model).__name__)
        self.precision = checks.one_of("precision", precision, ("fp32", "bf16"))
        self.clip_grad_norm = None if clip_grad_norm is None else checks.positive("clip_grad_norm", clip_grad_norm)
        self._model = model
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._optimizer = optimizer
        self._schedule = schedule
        self._rates = [group["lr"] for group in optimizer.param_groups]

    def __call__(self, data: Encoded, draw: Draw) -> float:
        """Updates the model from the drawn examples; returns their mean loss."""
        device = self._parameters[0].device
        batch = data.batch(draw.indices).to(device)
        if self._schedule is not None:
            factor = self._schedule(draw.step)
            for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
                group["lr"] = rate * factor
        self._optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            loss = self._model.loss(batch).mean()
        loss.backward()
        if self.clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, self.clip_grad_norm)
        self._optimizer.step()
        return loss.item()

    def resume_at(self, step: int) -> int:
        """Where the checkpoint was made: nothing was released, so lost steps are simply done again."""
        return step

    def state(self) -> dict[str, Any]:
        """The optimiser's moments; rates come from the recipe and the schedule."""
        return {str(number): moments for number, moments in self._optimizer.state_dict()["state"].items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state` gave."""
        moments = {int(number): dict(values) for number, values in state.items()}
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": moments, "param_groups": groups})


def fit(
    model: nn.Module,
    data: Encoded,
    sampler: Sampler,
    step: Step,
    *,
    streams: Streams,
    evaluate: Callable[[], Mapping[str, float]] | None = None,
    watch: str = "score",
    patience: int | None = None,
    folder: str | Path | None = None,
    checkpoint_every: int | None = None,
    progress: Progress = silent,
    stage: str = "training",
) -> History:
    """Trains `model` and leaves it in evaluation mode.

    Ctrl-C lets the current step end, writes a checkpoint where `folder` is given, and raises KeyboardInterrupt; a
    second Ctrl-C stops at once and leaves the checkpoint before. The same call with the same folder goes on from
    there, with bit-identical results, or, if the training had ended, gives its weights and history.

    Args:
        model: updated in place; dropout is drawn from the stream `dropout` at each step.
        data: the training examples.
        sampler: which of them each step sees.
        step: what a step does.
        streams: the run's random streams.
        evaluate: figures to record after each epoch, such as `evaluation.evaluate(model, valid)`.
        watch: which of them patience watches; higher is better.
        patience: stop after so many epochs without a better `watch`, and keep the best weights; None runs to the
            end and keeps the last. With a private step, held-out examples that choose an epoch are not covered by
            the guarantee for the training examples.
        folder: where checkpoints are written, after each epoch.
        checkpoint_every: and after so many steps.
        progress: called after every step.
        stage: the name given to `progress`.

    Raises:
        ArgumentError: patience without a figure to watch, or checkpoint_every without a folder.
        ModelError: the loss is not a finite number.
        RunError: the folder holds a checkpoint of another training, or a damaged one; or more steps were done
            than the sampler has.
        KeyboardInterrupt: after Ctrl-C.
    """
    if patience is not None:
        checks.at_least("patience", patience, 1)
        if evaluate is None:
            raise ArgumentError("evaluate", "given where patience is", evaluate)
    if checkpoint_every is not None:
        checks.at_least("checkpoint_every", checkpoint_every, 1)
        if folder is None:
            raise ArgumentError("folder", "given where checkpoint_every is", folder)
    training = _Training(model, data, sampler, step, streams, evaluate, watch, patience, folder)
    training.restore()
    with deferred_interrupt() as interrupted:
        while not training.ended:
            training.advance()
            progress(stage, training.at.step, sampler.steps, training.figures())
            if interrupted():
                training.save()
                raise KeyboardInterrupt
            if checkpoint_every is not None and training.at.step % checkpoint_every == 0:
                training.save()
    return training.finish()


@dataclass
class _Position:
    """How far a training is: all of its state but the tensors."""

    step: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    epochs: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int | None = None
    stopped_early: bool = False
    seconds: float = 0.0


@dataclass
class _Training:
    """One training under way."""

    model: nn.Module
    data: Encoded
    sampler: Sampler
    step: Step
    streams: Streams
    evaluate: Callable[[], Mapping[str, float]] | None
    watch: str
    patience: int | None
    folder: str | Path | None
    at: _Position = field(default_factory=_Position)
    best: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        return self.at.stopped_early or self._evaluated_at() == self.sampler.steps

    def _evaluated_at(self) -> int:
        return int(self.at.epochs[-1]["step"]) if self.at.epochs else 0

    def advance(self) -> None:
        """One step, and the end of the epoch where it is one."""
        begun = time.perf_counter()
        if self.at.step < self.sampler.steps:
            self._update()
        if self.at.step % self.sampler.steps_per_epoch == 0 or self.at.step == self.sampler.steps:
            self._end_epoch()
            self.at.seconds += time.perf_counter() - begun
            self.save()
        else:
            self.at.seconds += time.perf_counter() - begun

    def _update(self) -> None:
        draw = self.sampler.draw(self.at.step)
        self.model.train()
        with seeded(self.streams.key("dropout", self.at.step), self.model):
            loss = self.step(self.data, draw)
        if len(draw.indices):
            if not math.isfinite(loss):
                raise ModelError(
                    f"the loss at step {self.at.step} is {loss}, so the weights are lost",
                    "lower the learning rate, or check the model for overflow",
                )
            self.at.loss_sum += loss
            self.at.loss_count += 1
        self.at.step += 1

    def _end_epoch(self) -> None:
        figures = {"step": float(self.at.step)}
        if self.at.loss_count:
            figures["loss"] = self.at.loss_sum / self.at.loss_count
        self.at.loss_sum, self.at.loss_count = 0.0, 0
        if self.evaluate is not None:
            figures.update({name: float(value) for name, value in self.evaluate().items()})
        self.at.epochs.append(figures)
        if self.patience is not None:
            self._judge(self.patience)

    def _judge(self, patience: int) -> None:
        newest = len(self.at.epochs) - 1
        if self.watch not in self.at.epochs[newest]:
            raise ArgumentError("watch", "a figure of evaluate", self.watch, f"it gave {list(self.at.epochs[newest])}")
        scores = [epoch[self.watch] for epoch in self.at.epochs]
        if self.at.best_epoch is None or scores[newest] > scores[self.at.best_epoch]:
            self.at.best_epoch = newest
            self.best = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        self.at.stopped_early = newest - self.at.best_epoch >= patience

    def figures(self) -> dict[str, float]:
        """The newest figures, to show."""
        newest = dict(self.at.epochs[-1]) if self.at.epochs else {}
        newest.pop("step", None)
        if self.at.loss_count:
            newest["loss"] = self.at.loss_sum / self.at.loss_count
        return newest

    def finish(self) -> History:
        """The best weights, where they were watched, and what was done."""
        if self.best:
            self.model.load_state_dict(self.best)
        self.model.eval()
        at = self.at
        return History(tuple(at.epochs), at.step, at.stopped_early, at.best_epoch, at.seconds)

    def save(self) -> None:
        """Writes the checkpoint, where there is a folder."""
        if self.folder is not None:
            state = {
                "identity": self._identity(),
                "position": asdict(self.at),
                "model": self.model.state_dict(),
                "best": self.best,
                "step": self.step.state(),
            }
            save_state(Path(self.folder) / CHECKPOINT, state)

    def restore(self) -> None:
        """Takes the newest checkpoint, where there is one, and asks the step where to go on."""
        if self.folder is not None and (path := Path(self.folder) / CHECKPOINT).exists():
            state = load_state(path)
            if state.get("identity") != self._identity():
                raise RunError(f"{path} is of another training", "use another folder, or delete it to begin again")
            self.at = _Position(**state["position"])
            self.model.load_state_dict(state["model"])
            self.best = state["best"]
            self.step.restore(state["step"])
        self.at.step = self.step.resume_at(self.at.step)
        if self.at.step > self.sampler.steps:
            raise RunError(
                f"step {self.at.step} would be next, but the training has {self.sampler.steps}",
                "go on with the plan and the ledger that it was begun with",
            )

    def _identity(self) -> dict[str, Any]:
        """What two trainings must share for one to go on where the other stopped."""
        shapes = str([(name, tuple(tensor.shape)) for name, tensor in self.model.state_dict().items()])
        return {
            "seed": self.streams.seed,
            "examples": len(self.data),
            "steps": self.sampler.steps,
            "steps_per_epoch": self.sampler.steps_per_epoch,
            "patience": self.patience,
            "shapes": hashlib.sha256(shapes.encode()).hexdigest(),
        }


@contextmanager
def seeded(seed: int, model: nn.Module) -> Iterator[None]:
    """Inside, the global PyTorch generators (which dropout draws from) start at `seed`; outside, nothing changed."""
    device = next(model.parameters()).device
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index or 0])
    before = [generator.get_state() for generator in generators]
    try:
        for generator in generators:  # torch.manual_seed would look for every kind of device, which takes longer
            generator.manual_seed(seed)
        yield
    finally:
        for generator, state in zip(generators, before, strict=True):
            generator.set_state(state)


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Ctrl-C inside only sets what the yielded function tells, so that no update is torn; the second one raises."""
    asked = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield asked.is_set  # Ctrl-C comes to the main thread only, and not where it is ignored
        return

    def remember(*_: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    signal.signal(signal.SIGINT, remember)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)
