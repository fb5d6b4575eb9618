"""The privacy plan: one frozen record from which sampler, engine, ledger and accountant are all made.

    plan ── sampler(streams) ──> PoissonSampler ── draw ──┐
     ├───── step(model, optimizer, streams, ledger) ──> PrivateStep(data, draw)
     ├───── clipping: flat, automatic, layer-wise, micro-batches
     └───── epsilon(), statement()

`for_budget` and `solve` make a plan from a budget. Everything that changes epsilon is in the plan and is fixed before
the data is touched. What changes only speed (the clipping function, the device) is not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from trustnlp import checks
from trustnlp.dp import accounting, calibration
from trustnlp.dp.adaptive_thresholds import Quantile
from trustnlp.dp.automatic_clipping import AutomaticClipping
from trustnlp.dp.clipping import Clipping
from trustnlp.dp.flat_clipping import FlatClipping
from trustnlp.dp.layerwise_clipping import LayerwiseClipping
from trustnlp.dp.ledger_plan import WrittenPlan, as_floats
from trustnlp.dp.micro_batches import MicroBatchClipping
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.randomness import Streams

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from trustnlp.dp.clipping import ClippedSumFunction
    from trustnlp.dp.collated import DrawnBatch
    from trustnlp.dp.engine import PrivateStep
    from trustnlp.dp.ledger import Ledger
    from trustnlp.dp.sampling import PoissonSampler
    from trustnlp.dp.statement import Statement

# What may stand in a plan, and why what else people ask for is refused.
_ALLOWED = {
    "unit": ("example", "user"),
    "adjacency": ("add-remove",),
    "sampling": ("poisson", "truncated-poisson"),
    "accountant": ("pld",),
    "noise": ("seeded", "secure"),
}
_REFUSED = {
    ("adjacency", "replace"): (
        "replacing an example moves the sum by twice the clip norm, and the noise is not calibrated for that",
        "use adjacency='add-remove'",
    ),
    ("sampling", "shuffle"): (
        "shuffled fixed batches are not Poisson batches, and may spend far more than Poisson accounting says "
        "(Chua et al., arXiv 2403.17673)",
        "use sampling='poisson'",
    ),
    ("accountant", "rdp"): (
        "RDP is the looser bound of the two, and stands beside the other as a cross-check already",
        "use accountant='pld'",
    ),
    ("noise", "none"): ("without noise nothing is guaranteed", "train without a plan to train without privacy"),
}
CLIPPINGS: dict[str, type[Clipping]] = {
    kind.kind: kind for kind in (FlatClipping, AutomaticClipping, LayerwiseClipping, MicroBatchClipping)
}
_MOST_TRUNCATION = 0.01


@dataclass(frozen=True)
class PrivacyPlan(WrittenPlan):
    """All that decides a private training's guarantee.

    Guarantee: training is (`epsilon()`, `delta`)-differentially private for one `unit` under `adjacency`, counting
    every intermediate model as published.

    Args:
        examples: N, how many examples (users, where these are the unit) there are; treated as public.
        expected_batch: L, the public constant by which the noisy sum is divided; q = L / N.
        steps: how many draws, the empty ones included.
        noise_multiplier: sigma; the noise has standard deviation sigma * clip_norm.
        delta: in (0, 1/N).
        clipping: how one unit's influence on a sum is bounded.
        noise_decay: the noise multiplier of epoch e is noise_multiplier * noise_decay**e, in (0, 1].
        unit: whom the guarantee protects: `example`, or `user` with all their examples (`user_units.ByUser`).
        adjacency: what neighbouring data sets differ by.
        sampling: how a draw is made: `poisson`, or `truncated-poisson`, which keeps a draw within `largest_batch`.
        accountant: who computes epsilon.
        noise: where it comes from: `seeded` can be computed again by whoever knows the seed, `secure` by nobody.
        largest_batch: B >= L, of truncated draws alone; at most 1% of them may be truncated, and L + 6 sqrt(L) is free.

    Raises:
        ArgumentError: a field breaks its rule.
        GuaranteeError: a combination for which no sound guarantee can be given here.
    """

    examples: int
    expected_batch: int
    steps: int
    noise_multiplier: float
    delta: float
    clipping: Clipping = FlatClipping()  # noqa: RUF009  (frozen)
    noise_decay: float = 1.0
    unit: str = "example"
    adjacency: str = "add-remove"
    sampling: str = "poisson"
    accountant: str = "pld"
    noise: str = "seeded"
    largest_batch: int | None = None

    def __post_init__(self) -> None:
        for name, allowed in _ALLOWED.items():
            value = getattr(self, name)
            if (name, value) in _REFUSED:
                raise GuaranteeError(*_REFUSED[name, value])
            checks.one_of(name, value, allowed)
        _check_sizes(self.examples, self.expected_batch, self.delta)
        if type(self.clipping) not in CLIPPINGS.values():  # a subclass might bound less than it says
            raise ArgumentError(
                "clipping", f"one of {', '.join(kind.__name__ for kind in CLIPPINGS.values())}", self.clipping
            )
        self.clipping.normaliser(self.expected_batch)
        checks.at_least("steps", self.steps, 1)
        checks.positive("noise_decay", self.noise_decay)
        checks.within("noise_decay", self.noise_decay, 0, 1)
        checks.positive("noise_multiplier", self.noise_multiplier, "train without a plan to train without privacy")
        as_floats(self, "noise_multiplier", "noise_decay", "delta")
        _check_units(self)
        _check_truncation(self)
        _check_noise(self)

    @classmethod
    def for_budget(
        cls, *, epsilon: float, delta: float, examples: int, expected_batch: int, epochs: int, **fields: Any
    ) -> PrivacyPlan:
        """The plan that spends at most `epsilon`, and at least 99% of it, in `epochs` expected passes over the data.

        Args:
            epsilon: the budget, > 0.
            delta, examples, expected_batch: as in the plan.
            epochs: how many passes.
            fields: further fields of the plan, such as `clipping`.

        Raises:
            ArgumentError: an argument breaks its rule.
            GuaranteeError: no noise reaches the budget.
        """
        checks.at_least("epochs", epochs, 1)
        _check_sizes(examples, expected_batch, delta)
        steps = max(1, round(epochs * examples / expected_batch))
        return cls.solve(
            epsilon=epsilon, delta=delta, examples=examples, expected_batch=expected_batch, steps=steps, **fields
        )

    @classmethod
    def solve(
        cls,
        *,
        epsilon: float,
        delta: float,
        examples: int,
        expected_batch: int | None = None,
        steps: int | None = None,
        noise_multiplier: float | None = None,
        **fields: Any,
    ) -> PrivacyPlan:
        """The plan that spends at most `epsilon`, where one of batch, steps and noise is left out and found.

        | left out         | found                                                                             |
        |------------------|-----------------------------------------------------------------------------------|
        | noise_multiplier | the least, of the first epoch where noise decays; spends 99% of epsilon or more     |
        | steps            | the most                                                                          |
        | expected_batch   | the largest                                                                       |

        Epsilon itself, given all the others, is `PrivacyPlan(...).epsilon()`.

        Args:
            epsilon: the budget, > 0.
            delta, examples, expected_batch, steps, noise_multiplier: as in the plan.
            fields: further fields of the plan, such as `clipping` or `noise_decay`.

        Raises:
            ArgumentError: not one of the three is left out, or an argument breaks its rule.
            GuaranteeError: nothing reaches the budget, or a million steps do not use it up.
        """
        checks.positive("epsilon", epsilon, "give a budget such as 8")
        given = {"expected_batch": expected_batch, "steps": steps, "noise_multiplier": noise_multiplier}
        missing = [name for name, value in given.items() if value is None]
        if len(missing) != 1:
            rule = "one of expected_batch, steps and noise_multiplier, the other two given"
            raise ArgumentError("left out", rule, missing, "leave out what should be found")
        known: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return calibration.SOLVERS[missing[0]](partial(cls, examples=examples, delta=delta, **known, **fields), epsilon)

    @property
    def sample_rate(self) -> float:
        """q = L / N, the probability that an example enters a draw."""
        return self.expected_batch / self.examples

    @property
    def steps_per_epoch(self) -> int:
        """How many steps see every unit once in expectation."""
        return max(1, round(self.examples / self.expected_batch))

    def event(self, step: int) -> accounting.Event:
        """What step `step` releases, 0 <= step < steps."""
        sigma = self.noise_multiplier * self.noise_decay ** (step // self.steps_per_epoch)
        if self.largest_batch is None:
            return accounting.Event(self.sample_rate, sigma)
        return accounting.Event(self.sample_rate, sigma, 1, self.examples, self.largest_batch)

    def events(self, steps: int | None = None) -> tuple[accounting.Event, ...]:
        """What the first `steps` steps release, one event each, or all of them."""
        count = self.steps if steps is None else checks.at_least("steps", steps, 0)
        period = count if self.noise_decay == 1 else self.steps_per_epoch
        starts = range(0, count, max(1, period))
        return tuple(chain.from_iterable([self.event(start)] * min(period, count - start) for start in starts))

    def epsilon(self, steps: int | None = None) -> float:
        """Epsilon at `delta` after `steps` steps, or after all of them."""
        return accounting.epsilon(self.events(steps), self.delta)

    def statement(self) -> Statement:
        """The guarantee, in words and as a dictionary."""
        from trustnlp.dp.statement import Statement

        return Statement.of(self)

    def sampler(self, streams: Streams) -> PoissonSampler:
        """The only sampler whose draws a step of this plan accepts."""
        from trustnlp.dp.sampling import PoissonSampler

        return PoissonSampler(self.examples, self.expected_batch, self.steps, streams, self.largest_batch)

    def batches(
        self,
        dataset: Any,
        *,
        collate: Callable[[list[Any]], Any] | None = None,
        users: Sequence[Hashable] | None = None,
        start: int = 0,
        streams: Streams | None = None,
    ) -> Iterator[DrawnBatch]:
        """The plan's draws from any map-style dataset, for `step(batch)`; the step collates them, as much as fits.

        Args:
            dataset: with a length, and one example for every whole number below it; a list will do.
            collate: a list of examples -> tensors, in a tuple or dictionary; as PyTorch's DataLoader does if left out.
            users: whose each example is, where the plan protects users; see `user_units.ByUser`.
            start: the first step; `ledger.spent` of a run that is resumed.
            streams: of the draws; of a secret seed that nothing keeps if left out.
        """
        from torch.utils.data import default_collate

        from trustnlp.dp.collated import Collated, DrawnBatch, secret_streams
        from trustnlp.dp.user_units import ByUser

        examples = Collated(dataset, collate or default_collate)
        data = examples if users is None else ByUser(examples, users)
        sampler = self.sampler(streams or secret_streams())
        return (DrawnBatch(data, sampler.draw(step)) for step in range(start, self.steps))

    def step(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        streams: Streams | None = None,
        ledger: Ledger | None = None,
        loss: Callable[[Any], Tensor] | None = None,
        clipped_sum: ClippedSumFunction | None = None,
        schedule: Callable[[int], float] | None = None,
    ) -> PrivateStep:
        """The private update of `model`, see `engine.PrivateStep`.

        Args:
            model: whose trainable parameters are moved.
            optimizer: over exactly these parameters.
            streams: source of the noise; of a secret seed that nothing keeps if left out.
            ledger: where every step is written down first; in memory if left out, so that no run can be resumed.
            loss: one loss per example, batch -> (B,), given batches as they were collated; `model.loss` if left out.
            clipped_sum: how the clipped sum is computed; the clipping's own if left out.
            schedule: factor of the learning rate at each step, a function of the step alone.
        """
        from trustnlp.dp.collated import secret_streams
        from trustnlp.dp.engine import PrivateStep

        return PrivateStep(
            self,
            model,
            optimizer,
            streams=streams or secret_streams(),
            ledger=ledger,
            loss=loss,
            clipped_sum=clipped_sum,
            schedule=schedule,
        )

    def as_dict(self) -> dict[str, Any]:
        """The fields, JSON-able."""
        return {**asdict(self), "clipping": self.clipping.as_dict()}

    @classmethod
    def records(cls, fields: Any) -> dict[str, Any]:
        """Those of the fields that are records themselves."""
        return {"clipping": _clipping(**fields["clipping"])}

    @classmethod
    def from_json(cls, text: str) -> PrivacyPlan:
        """What `to_json` wrote.

        Raises:
            ArgumentError: not JSON, or not the fields of a plan.
        """
        try:
            return cls.from_dict(json.loads(text))
        except json.JSONDecodeError as error:
            raise ArgumentError("text", "the JSON of a PrivacyPlan", text) from error


def _clipping(kind: str, adapt: Any = None, **fields: Any) -> Clipping:
    """The clipping that `Clipping.as_dict` wrote."""
    if adapt is not None or "adapt" in CLIPPINGS[kind].__dataclass_fields__:  # type: ignore[attr-defined]
        fields["adapt"] = adapt and Quantile(**adapt)
    return CLIPPINGS[kind](**fields)


def _check_units(plan: PrivacyPlan) -> None:
    if plan.unit == "user" and isinstance(plan.clipping, MicroBatchClipping):
        raise GuaranteeError(
            "micro-batches are drawn example by example, and a user's examples would be in several of them",
            "protect users by FlatClipping, AutomaticClipping or LayerwiseClipping",
        )


def _check_truncation(plan: PrivacyPlan) -> None:
    truncated = plan.sampling == "truncated-poisson"
    if truncated != (plan.largest_batch is not None):
        rule = "given with sampling='truncated-poisson', and with no other sampling"
        raise ArgumentError("largest_batch", rule, plan.largest_batch)
    if plan.largest_batch is None:
        return
    checks.at_least("largest_batch", plan.largest_batch, plan.expected_batch)
    share = accounting.kept_at_cap(replace(plan.event(0), examples=plan.examples + 1))[0]
    if share > _MOST_TRUNCATION:
        raise GuaranteeError(
            f"{share:.1%} of the draws would lose examples to largest_batch {plan.largest_batch}, and each of them "
            "lets one example take another's place, which costs more than twice as much",
            f"allow at least {accounting.least_cap(plan.examples, plan.sample_rate, _MOST_TRUNCATION)}",
        )


def _check_noise(plan: PrivacyPlan) -> None:
    last = plan.event(plan.steps - 1) if plan.noise_decay ** ((plan.steps - 1) // plan.steps_per_epoch) else None
    if last is None or last.noise_multiplier < accounting.LEAST_NOISE:
        raise GuaranteeError(
            f"in its last epoch the noise multiplier is below {accounting.LEAST_NOISE}, which protects nobody",
            "use more noise or less decay, or train without a plan to train without privacy",
        )


def _check_sizes(examples: int, expected_batch: int, delta: float) -> None:
    checks.at_least("examples", examples, 1)
    checks.at_least("expected_batch", expected_batch, 1)
    if expected_batch > examples:
        rule = f"at most the number of examples ({examples}), so that the sampling rate is at most 1"
        raise ArgumentError("expected_batch", rule, expected_batch)
    checks.inside("delta", delta, 0, 1, "a delta such as 1e-6 is common")
    if delta * examples >= 1:
        mend = "a larger delta would allow publishing one whole example"
        raise ArgumentError("delta", f"below 1/N = {1 / examples:.3g}", delta, mend)
