"""The private step: clip every unit, sum, add noise, divide by a public constant, let the optimizer move.

    draw ─ checks ─> ledger.spend() ─> clipped sum of units ─> (+ noise(block)) / L ─> .grad ─> optimizer.step()
                                                                     └─> thresholds, where they adapt

DP-SGD (Abadi et al. 2016, arXiv 1607.00133, algorithm 1) with Poisson draws and the constant normaliser L. The
optimizer sees nothing but noisy gradients, so any optimizer keeps the guarantee (post-processing).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from trustnlp.dp import sharding, validation
from trustnlp.dp.clipping import Clip, ClippedSum, ClippedSumFunction, LossFunction, Unit
from trustnlp.dp.collated import DrawnBatch, on_values, probed
from trustnlp.dp.distributed import Ranks, beginning, unwrapped
from trustnlp.dp.ledger import Ledger
from trustnlp.dp.noise import ChunkedNoise, Noise, SeededNoise
from trustnlp.dp.sampling import PoissonSampler
from trustnlp.dp.secure_noise import KEY_BYTES, SecureNoise
from trustnlp.dp.user_units import ByUser
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.models.protocol import Draw, Encoded, TextModel
from trustnlp.randomness import Streams

if TYPE_CHECKING:
    from trustnlp.dp.plan import PrivacyPlan

_COUNTS = "counts of units within their thresholds"


class PrivateStep:
    """A `protocol.Step` that spends the plan's privacy and no more; made by `PrivacyPlan.step`.

    Guarantee: all models after steps 0 to t together are (plan.epsilon(t + 1), plan.delta)-differentially private
    for one unit, an example or a user, by adding or removing it. The losses that it returns, and the checks' errors,
    are not covered.

    Args:
        plan: what is guaranteed.
        model: whose trainable parameters are moved.
        optimizer: over exactly these parameters.
        streams: source of the noise; the plan's digest is mixed in, so that two plans never share noise.
        ledger: where every step is written down first; in memory if None.
        loss: one loss per example, batch -> (B,); `model.loss` if None.
        clipped_sum: how the clipped sum is computed; the clipping's own if None.
        schedule: factor of the learning rate at each step, a function of the step alone.

    Raises:
        ArgumentError: no loss.
        GuaranteeError: a model, an optimizer or a ledger with which the guarantee would not hold.
    """

    def __init__(
        self,
        plan: PrivacyPlan,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        streams: Streams,
        ledger: Ledger | None = None,
        loss: LossFunction | None = None,
        clipped_sum: ClippedSumFunction | None = None,
        schedule: Callable[[int], float] | None = None,
    ) -> None:
        self.plan = plan
        ledger = Ledger.in_memory(plan) if ledger is None else ledger
        if ledger.plan != plan:
            raise GuaranteeError("the ledger belongs to another plan", "open it with the plan that makes this step")
        model = unwrapped(model)
        validation.refuse_unsound_forms(model)
        validation.refuse_mixing_layers(model)
        self._parameters = validation.trainable_parameters(model)
        self._model = model
        self._optimizer = optimizer
        self._rates = [group["lr"] for group in optimizer.param_groups]
        self._streams = streams
        self._loss = on_values(loss) if loss else _loss_of(model)
        self._ranks = Ranks.of_process(next(iter(self._parameters.values())).device)
        self._clipped_sum = sharding.distribute(
            clipped_sum or plan.clipping.sum_function(), self._ranks, self._parameters
        )
        self._schedule = schedule
        self._groups = plan.clipping.groups(model, self._parameters)
        self._thresholds = plan.clipping.thresholds(len(set(self._groups.values())))
        self._noise: Noise = sharding.noise_of_parts(self._source_of_noise(), self._parameters)
        self._probed: set[bool] = set()
        self._moved = False
        self._before: list[torch.Tensor] = []
        self._open = False  # whether a gradient was released that is not settled yet
        self._left: validation.Fingerprint | None = None
        validation.check_optimizer(optimizer, self._parameters)
        self.ledger = self._ranks.ledger(ledger)

    def __call__(self, data: Encoded | DrawnBatch, draw: Draw | None = None) -> float:
        """Updates the model from the drawn examples; returns their mean loss, NaN for an empty draw.

        Args:
            data: all examples, or what `plan.batches` gives, which is data and draw in one.
            draw: the next of `plan.sampler`.

        Raises:
            GuaranteeError: see `release` and `settle`.
        """
        if isinstance(data, DrawnBatch):
            draw, data = data.draw, data.data
        if draw is None:
            raise ArgumentError("draw", "the next draw of plan.sampler", draw, "or give what plan.batches gives")
        loss = self.release(data, draw)
        factor = 1.0 if self._schedule is None else self._schedule(draw.step)
        if self._schedule is not None:
            for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
                group["lr"] = rate * factor
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.settle(must_move=factor != 0)
        return loss

    def release(self, data: Encoded, draw: Draw) -> float:
        """The first half of a step, for loops with an optimizer.step of their own: leaves the noisy gradient in .grad.

        Returns the mean loss of the drawn examples, NaN for an empty draw. `settle` must follow the optimizer's step.

        Raises:
            GuaranteeError: not the next draw of the plan's sampler, other data than planned, weights that were
                changed since the last step, or a model that mixes examples.
        """
        with self._ranks.together():
            self._check(data, draw)
        self._agree(data, draw)
        block = self._ranks.spend(self.ledger)
        rows, units = self._units(data, draw)
        clip = Clip(self.plan.clipping, self._groups, self._thresholds)
        clipped = self._clipped_sum(self._model, self._loss, rows, units, self._parameters, clip)
        self._add_noise(clipped, block, draw.step)
        for name, parameter in self._parameters.items():
            parameter.grad = sharding.as_gradient(clipped.gradients[name], parameter)
        self._before = [] if self._moved else [parameter.detach().clone() for parameter in self._parameters.values()]
        self._left = validation.fingerprint(self._parameters.values())
        self._open = True
        return clipped.mean_loss

    def settle(self, must_move: bool = True) -> None:
        """The second half of a step: takes the weights, which the optimizer has just moved, for the step's own.

        Args:
            must_move: whether weights that have not moved are a mistake, and not a learning rate of 0.

        Raises:
            GuaranteeError: no gradient was released since the last time, or no step has moved anything yet.
        """
        if not self._open:
            raise GuaranteeError("no gradient was released since the last settle", "call release before each settle")
        self._open = False
        if self._before and must_move:
            validation.check_moved(self._before, list(self._parameters.values()))
            self._moved = True
        self._before = []
        self._left = validation.fingerprint(self._parameters.values())

    def resume_at(self, step: int) -> int:
        """The first step that was not released yet; what was released is never done again.

        Raises:
            GuaranteeError: the checkpoint is ahead of the ledger, so the ledger is not this run's.
        """
        if self.ledger.spent < step:
            raise GuaranteeError(
                f"the checkpoint was made after {step} steps, but the ledger knows of {self.ledger.spent}",
                "open the ledger file of this run by Ledger.open, or begin again in another folder",
            )
        return self.ledger.spent

    def state(self) -> dict[str, Any]:
        """The optimizer's moments and the thresholds, which are made of what was released alone."""
        moments = {str(number): moments for number, moments in self._optimizer.state_dict()["state"].items()}
        return {"moments": moments, "thresholds": self._thresholds}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state` gave."""
        self._thresholds = state["thresholds"]
        moments = {int(number): dict(values) for number, values in state["moments"].items()}
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self._left = None

    def _source_of_noise(self) -> ChunkedNoise:
        if self.plan.noise == "secure":
            return SecureNoise(self._ranks.secret(KEY_BYTES))
        return SeededNoise(self._streams.child(f"dp/{self.plan.digest()}"))

    def _units(self, data: Encoded, draw: Draw) -> tuple[Encoded, list[Unit]]:
        """The examples, and the units of them that were drawn."""
        if isinstance(data, ByUser):
            return data.encoded, data.units(draw.indices, self._streams, draw.step)
        places = self._streams.numpy("micro-batches", draw.step)
        return data, self.plan.clipping.units(draw.indices, self.plan.expected_batch, places)

    def _check(self, data: Encoded, draw: Draw) -> None:
        _check_draw(self.plan, draw, self.ledger.spent)
        _check_data(self.plan, data)
        validation.check_optimizer(self._optimizer, self._parameters)
        if self._left not in (None, validation.fingerprint(self._parameters.values())):
            raise GuaranteeError(
                "the weights were changed since the last private step",
                "let the private step alone move them: no other optimizer.step, no loading in between",
            )
        validation.refuse_gradients(self._parameters)
        if self._model.training not in self._probed:  # a layer may mix examples in one mode only
            rows = probed(data.encoded if isinstance(data, ByUser) else data)
            with sharding.gathered(self._model):
                validation.check_independence(self._model, self._loss, rows, self._streams.key("probe"))
            self._probed.add(self._model.training)

    def _agree(self, data: Encoded, draw: Draw) -> None:
        """Checks that all processes take the same step, and at the first that they begin alike."""
        if self._ranks.alone:
            return
        if self._left is None:
            begun = beginning(self.plan, self._streams, data, self._model, self._optimizer, self._thresholds)
            self._ranks.agree(begun)
        self._ranks.agree({"draw": (str(draw.indices.tolist()), "draw from plan.sampler of the same streams")})

    def _add_noise(self, clipped: ClippedSum, block: int, step: int) -> None:
        """Adds the step's noise, in place, and divides by the constant; moves thresholds that adapt."""
        clipping, thresholds = self.plan.clipping, self._thresholds
        sigma, adapt = self.plan.event(step).noise_multiplier, clipping.adapt
        tensors, normaliser = dict(clipped.gradients), clipping.normaliser(self.plan.expected_batch)
        gradient_sigma = sigma if adapt is None else adapt.gradient_multiplier(sigma)
        # Scaled by its deviation here, each of K groups moves by 1 / sqrt(K) at most: by 1 all together.
        deviations = gradient_sigma * clipping.sensitivity * len(thresholds) ** 0.5 * thresholds
        stds = {name: float(deviations[group]) for name, group in self._groups.items()}
        if adapt is None:
            self._noise.release_(tensors, block, stds, normaliser)
            return
        counts = adapt.counts(clipped.norms.double(), thresholds)
        half = clipping.sensitivity / 2  # what one unit moves a count by
        self._noise.release_(
            {**tensors, _COUNTS: counts},
            block,
            {**stds, _COUNTS: half * adapt.count_multiplier(sigma, len(counts))},
            normaliser,
        )
        self._thresholds = adapt.moved(thresholds, counts)


def _loss_of(model: nn.Module) -> LossFunction:
    if not isinstance(model, TextModel):
        raise ArgumentError("loss", "given where the model has no method loss", None, "pass batch -> (B,)")
    return model.loss


def _check_data(plan: PrivacyPlan, data: Encoded) -> None:
    """The data must consist of as many units as planned, of the planned kind."""
    if not callable(getattr(data, "batch", None)):
        raise GuaranteeError(
            f"{type(data).__name__} gives no chosen examples, so none can be drawn at random",
            "give the data itself and no DataLoader: with plan.batches, or wrapped in collated.Collated",
        )
    if isinstance(data, ByUser) != (plan.unit == "user"):
        raise GuaranteeError(
            f"the plan protects one {plan.unit}, but the data is {'' if isinstance(data, ByUser) else 'not '}by user",
            "give ByUser(data, users) with unit='user', and the data itself with unit='example'",
        )
    if len(data) != plan.examples:
        raise GuaranteeError(
            f"the plan is for {plan.examples} {plan.unit}s, the data has {len(data)}",
            f"make the plan for this data; the number of {plan.unit}s sets the sampling rate",
        )


def _check_draw(plan: PrivacyPlan, draw: Draw, spent: int) -> None:
    """Only the next draw of the plan's own sampler will do: another one has another epsilon."""
    if not isinstance(draw, Draw):
        raise GuaranteeError(
            f"{type(draw).__name__} is no draw, and batches of a DataLoader are no Poisson draws",
            "give all data and the draws of plan.sampler(streams), or what plan.batches gives",
        )
    source = draw.source
    if type(source) is not PoissonSampler or source != plan.sampler(source.streams):
        raise GuaranteeError(
            f"the draw comes from {type(source).__name__}, not from this plan's sampler",
            "draw with plan.sampler(streams); shuffled batches are not Poisson batches",
        )
    if draw.step != spent:
        raise GuaranteeError(
            f"draw {draw.step} was given where {spent} is next, and a draw used twice or out of turn is not fresh",
            "go through plan.sampler(streams) in order, from resume_at on",
        )
    if not np.array_equal(draw.indices, source.draw(draw.step).indices):
        raise GuaranteeError("the draw's examples are not those that its sampler drew", "leave draws as they are")
