"""`PrivateTrainer`: Hugging Face's `Trainer`, whose every update is a step of a privacy plan.

    Trainer's loop ── training_step ──> PrivateStep.release: draw, clip, sum, add noise, leave it in .grad
                   ── optimizer.step, scheduler, logs, evaluation, checkpoints: Trainer's own
                   ── on_optimizer_step ──> PrivateStep.settle

What the loop calls a batch is only the number of a step; which examples it has is drawn by the plan. Started by
torchrun, all processes take each step together (see `distributed`), and rank 0 alone has the ledger's file. Trainer
wraps the model in `DistributedDataParallel` there: that gives all ranks the weights of rank 0 and does no more, as
nothing calls the wrapper. This is the only module of private training that imports transformers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from trustnlp.dp import accounting
from trustnlp.dp.clipping import ClippedSum, ClippedSumFunction
from trustnlp.dp.collated import Collated, secret_streams
from trustnlp.dp.distributed import Ranks
from trustnlp.dp.engine import PrivateStep
from trustnlp.dp.ledger import FILE_NAME, Ledger
from trustnlp.dp.plan import PrivacyPlan
from trustnlp.dp.task_losses import check_task_loss, task_loss
from trustnlp.dp.user_units import ByUser
from trustnlp.errors import ArgumentError, GuaranteeError, RunError
from trustnlp.models.protocol import Encoded
from trustnlp.models.state import load_state, save_state
from trustnlp.randomness import Streams

_STATE = "privacy.safetensors"
_PROBED = 8


class PrivateTrainer(Trainer):
    """A `Trainer` with a privacy plan; what it trains may be published.

    Guarantee: that of `privacy` (`print(trainer.privacy.statement())`) for the training examples and everything that
    is written to `args.output_dir`. Not covered: training losses, which are shown, and kept by nobody but reporters
    such as TensorBoard; and whatever is computed from the evaluation set.

    The plan decides the number of steps and the examples of each. `per_device_train_batch_size` is how many go
    through the model of a process at a time; `max_grad_norm` is not used, since the plan clips every example instead.
    A ledger in `args.output_dir` is charged before each step. A run that is resumed goes on at the ledger's count:
    steps that were charged but whose weights were lost pass without an update.

    Args:
        model, args, others, named: as `Trainer` takes them; `args` is not changed.
        privacy: the plan, for exactly as many examples (or users) as `train_dataset` has.
        loss: one loss per example, collated batch -> (B,); the model's own, made per example, if left out.
        users: whose each example is, where the plan protects users; see `user_units.ByUser`.
        streams: of the noise and the draws. If left out they come from a seed that is drawn secretly, by rank 0 for
            all, and kept nowhere: whoever knows the seed can subtract the noise. `args.seed` never decides them.

    Raises:
        ArgumentError: an argument that contradicts the plan, or no loss for this kind of model.
        GuaranteeError: data or settings for which the plan's guarantee would not hold.
    """

    def __init__(
        self,
        model: Any = None,
        args: TrainingArguments | None = None,
        *others: Any,
        privacy: PrivacyPlan,
        loss: Callable[[Any], Tensor] | None = None,
        users: Sequence[Hashable] | None = None,
        streams: Streams | None = None,
        **named: Any,
    ) -> None:
        args = args or TrainingArguments("tmp_trainer")
        _refuse_unsound(args)
        super().__init__(model, _planned(args, privacy), *others, **named)
        self.privacy = privacy
        self.ledger: Ledger | None = None
        self._given_loss = loss
        self._users = users
        self._streams = streams
        self._step: PrivateStep | None = None
        self._checkpoint: str | None = None
        self._losses: list[float] = []
        self._released = False
        self._refuse_own_hooks()
        self._refuse_shards()
        if self.train_dataset is not None:
            _check_data(self._by_user(Collated(self.train_dataset)), privacy)
        self.add_callback(_Hooks(self))

    def train(self, resume_from_checkpoint: str | bool | None = None, *others: Any, **named: Any) -> Any:
        """Trains to the end of the plan, see `Trainer.train`; pass True to go on with a run that was interrupted.

        Raises:
            GuaranteeError: the ledger in `args.output_dir` has steps of another plan, or of a run that is not resumed.
        """
        ranks = self._ranks()
        with ranks.together():
            first = ranks.rank == 0
            ledger = self._opened(bool(resume_from_checkpoint)) if first else Ledger.in_memory(self.privacy)
        self.ledger = ranks.ledger(ledger)
        last = get_last_checkpoint(self.args.output_dir) if resume_from_checkpoint is True else resume_from_checkpoint
        self._checkpoint, self._step, self._released = last or None, None, False
        return super().train(resume_from_checkpoint, *others, **named)

    def _ranks(self) -> Ranks:
        ranks = Ranks.of_process(self.args.device)
        if ranks.size != self.args.world_size:
            raise GuaranteeError(
                f"{ranks.size} processes were joined, but Trainer knows of {self.args.world_size}: all would write",
                "start them by torchrun, and leave the joining to Trainer",
            )
        return ranks

    def _opened(self, go_on: bool) -> Ledger:
        path = Path(self.args.output_dir) / FILE_NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        ledger = Ledger.open(path, self.privacy)
        if ledger.spent and not go_on:
            raise GuaranteeError(
                f"{path} has {ledger.spent} of {self.privacy.steps} steps spent by a run before this one",
                "go on with it by train(resume_from_checkpoint=True), or give another output_dir: "
                "what two runs publish adds up",
            )
        return ledger

    def get_train_dataloader(self) -> DataLoader[Any]:
        """One item, without content, for every step of an epoch: the plan draws the examples."""
        if self.train_dataset is None:
            raise ArgumentError("train_dataset", "given where train is called", None)
        return DataLoader(range(self.privacy.steps_per_epoch), collate_fn=_nothing)  # type: ignore[arg-type]

    def training_step(self, model: nn.Module, *others: Any, **named: Any) -> Tensor:
        """Leaves the clipped, noised gradient of the next draw in .grad; returns the draw's mean loss.

        Raises:
            GuaranteeError: see `PrivateStep.release`.
        """
        del others, named
        model.train()
        if self._step is None:
            self._step = self._begin(model)
        number = self.state.global_step
        if number < self._step.resume_at(number):
            return torch.tensor(math.nan, device=self.args.device)  # lost in a crash, and not to be released again
        loss = self._step.release(self._data, self._sampler.draw(number))
        self._released = True
        if math.isfinite(loss):  # an empty draw has none
            self._losses.append(loss)
        return torch.tensor(loss, device=self.args.device)

    def _begin(self, model: nn.Module) -> PrivateStep:
        loader = super().get_train_dataloader()  # for what it does with columns and the collate function
        data = Collated(loader.dataset, loader.collate_fn)
        self._data = self._by_user(data)
        loss = self._given_loss
        if loss is None:
            loss = task_loss(self.model)
            for index in range(min(_PROBED, len(data))):
                row = self._prepare_inputs(data.batch([index]).value)
                check_task_loss(self.model, loss, row)
        streams = self._streams or secret_streams()
        self._sampler = self.privacy.sampler(streams)
        clipped_sum = self.privacy.clipping.sum_function()
        if hasattr(clipped_sum, "physical_batch"):
            clipped_sum.physical_batch = self.args.per_device_train_batch_size
        ranks, ledger = self._ranks(), self.ledger or Ledger.in_memory(self.privacy)
        if not ranks.alone:
            clipped_sum = _apart(clipped_sum, streams.child("chance", ledger.spent), ranks.rank)
        step = self.privacy.step(
            model, self.optimizer, streams=streams, ledger=ledger, loss=loss, clipped_sum=clipped_sum
        )
        self.ledger = step.ledger
        if self._checkpoint:
            _restore(step, Path(self._checkpoint))
        return step

    def _by_user(self, data: Collated) -> Encoded:
        return data if self._users is None else ByUser(data, self._users)

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss to show in an evaluation: the mean of the per-example losses where they were given."""
        del num_items_in_batch  # with it, Trainer multiplies the loss by the number of processes for most models
        if self._given_loss is None:
            return super().compute_loss(model, inputs, return_outputs)
        loss = self._given_loss(inputs).mean()
        return (loss, model(**inputs)) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the epsilon spent so far; training losses are shown and not kept, as no guarantee covers them."""
        if "loss" in logs:
            logs["loss"] = sum(self._losses) / len(self._losses) if self._losses else math.nan
            self._losses.clear()
        if self.ledger is not None and "loss" in logs:
            events = self.privacy.events(self.ledger.spent)
            logs["epsilon"] = round(accounting.quick_epsilon(events, self.privacy.delta), 3)
        if self.ledger is not None and "train_loss" in logs:
            logs["epsilon"] = self.ledger.spent_epsilon()
        super().log(logs, start_time)
        for name in ("loss", "train_loss"):
            self.state.log_history[-1].pop(name, None)

    def get_total_train_batch_size(self, args: TrainingArguments) -> int:
        """The plan's expected batch."""
        del args
        return self.privacy.expected_batch

    def floating_point_ops(self, inputs: Any) -> int:
        """Nothing: it is written to files and depends on the drawn texts' lengths, which no noise covers."""
        del inputs
        return 0

    def hyperparameter_search(self, *others: Any, **named: Any) -> Any:
        """Refused: every trial would spend a budget of its own."""
        del others, named
        raise GuaranteeError(
            "every trial of a search on the training examples spends a budget of its own",
            "search on public or synthetic texts, then train once",
        )

    def _refuse_own_hooks(self) -> None:
        """Refuses what a subclass or a caller computes from training batches, as the private step would not use it."""
        own = self.compute_loss_func is not None or type(self).compute_loss is not PrivateTrainer.compute_loss
        if own and self._given_loss is None:
            rule = "given where compute_loss_func is, or compute_loss is overridden"
            raise ArgumentError("loss", rule, None, "pass batch -> (B,)")
        if getattr(type(self), "_get_train_sampler", None) is not getattr(Trainer, "_get_train_sampler", None):
            raise GuaranteeError("a sampler of one's own is not the plan's", "remove _get_train_sampler")

    def _refuse_shards(self) -> None:
        """Refuses models in parts, whoever asked for them: arguments, accelerate's settings, or the model itself."""
        by_accelerate = self.is_fsdp_enabled or self.is_deepspeed_enabled or self.accelerator.parallelism_config
        if by_accelerate or any(hasattr(parameter, "placements") for parameter in self.model.parameters()):
            raise GuaranteeError(*_NO_SHARDS)


class _Hooks(TrainerCallback):
    """What happens after the optimizer's step, and in every checkpoint's folder."""

    def __init__(self, trainer: PrivateTrainer) -> None:
        self._trainer = trainer

    def on_optimizer_step(self, *_: Any, **named: Any) -> None:
        del named
        trainer = self._trainer
        if trainer._step is not None and trainer._released:  # steps that pass without an update settle nothing
            trainer._step.settle(must_move=any(group["lr"] for group in trainer.optimizer.param_groups))
            trainer._released = False

    def on_save(self, args: Any, state: Any, *_: Any, **named: Any) -> None:
        del named
        step = self._trainer._step
        if step is not None and args.should_save:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            save_state(folder / _STATE, {"thresholds": step.state()["thresholds"]})


def _apart(clipped_sum: ClippedSumFunction, chance: Streams, rank: int) -> ClippedSumFunction:
    """`clipped_sum` with Python's and NumPy's generators of each rank's own from its first call on.

    Were they the same on all ranks, what a collate function masks at random would depend on which others were drawn
    beside an example. Until then they are the same, as ranks compare their data. The step sees to PyTorch's itself.
    """
    seeds = iter([chance.key("rank", rank) % 2**32])

    def sums(*args: Any, **named: Any) -> ClippedSum:
        for seed in seeds:
            set_seed(seed)
        return clipped_sum(*args, **named)

    set_seed(chance.key("all") % 2**32)
    return sums


def _restore(step: PrivateStep, checkpoint: Path) -> None:
    """Takes back what no file of Trainer's has: thresholds that adapt."""
    path = checkpoint / _STATE
    if not path.exists():
        raise RunError(f"there is no {path}", "resume from a checkpoint that PrivateTrainer has written")
    step.restore({**step.state(), **load_state(path)})


def _check_data(data: Encoded, plan: PrivacyPlan) -> None:
    if isinstance(data, ByUser) != (plan.unit == "user"):
        raise GuaranteeError(
            f"the plan protects one {plan.unit}, but users are {'' if isinstance(data, ByUser) else 'not '}given",
            "give users= with unit='user', and no users with unit='example'",
        )
    if len(data) != plan.examples:
        raise GuaranteeError(
            f"the plan is for {plan.examples} {plan.unit}s, train_dataset has {len(data)}",
            "make the plan with their number as examples=, which sets the sampling rate",
        )


def _planned(args: TrainingArguments, plan: PrivacyPlan) -> TrainingArguments:
    """A copy of the arguments, with the plan's steps.

    Raises:
        ArgumentError: they ask for something else than the plan.
    """
    default = TrainingArguments.__dataclass_fields__["num_train_epochs"].default
    mend = f"leave it out, or change the plan, which has {plan.steps} steps"
    if args.max_steps > 0 and args.max_steps != plan.steps:
        raise ArgumentError("max_steps", f"the plan's number of steps ({plan.steps})", args.max_steps, mend)
    asked = max(1, round(args.num_train_epochs * plan.examples / plan.expected_batch))
    if args.max_steps <= 0 and args.num_train_epochs != default and asked != plan.steps:
        epochs = plan.steps * plan.expected_batch / plan.examples
        rule = f"the plan's number of epochs ({epochs:.4g})"
        raise ArgumentError("num_train_epochs", rule, args.num_train_epochs, mend)
    physical, accumulated = args.per_device_train_batch_size, args.gradient_accumulation_steps
    if accumulated != 1 and accumulated * physical * args.world_size != plan.expected_batch:
        raise ArgumentError(
            "gradient_accumulation_steps",
            f"1, or such that {physical} times it is the plan's expected_batch ({plan.expected_batch})",
            accumulated,
            "leave it out: the plan draws a logical batch and cuts it into physical ones",
        )
    planned = copy.copy(args)
    planned.max_steps = plan.steps
    planned.gradient_accumulation_steps = 1
    planned.max_grad_norm = 0.0
    return planned


_NO_SHARDS = (
    "PrivateTrainer holds a whole model on every process, and FSDP, DeepSpeed and their kind hold it in parts",
    "leave them out, or shard the model by fully_shard in a loop of your own with plan.step",
)

# What is refused, why, and what to do instead.
_UNSOUND: tuple[tuple[Callable[[Any], bool], str, str], ...] = (
    (lambda a: a.fp16, "fp16 scales losses, and scaled gradients are clipped to nothing", "use bf16=True"),
    (lambda a: a.n_gpu > 1, "DataParallel mixes the gradients of several GPUs", "set CUDA_VISIBLE_DEVICES to one GPU"),
    (lambda a: a.deepspeed or a.fsdp or a.parallelism_config, *_NO_SHARDS),
    (
        lambda a: a.auto_find_batch_size,
        "auto_find_batch_size starts the training over after it has released steps",
        "set per_device_train_batch_size",
    ),
    (
        lambda a: a.train_sampling_strategy != "random",
        "grouping by length is not the plan's sampling, and its batches depend on one another",
        "leave train_sampling_strategy out",
    ),
    (
        lambda a: a.include_num_input_tokens_seen not in ("no", False),
        "the number of tokens seen depends on the texts that were drawn, and has no noise",
        "leave include_num_input_tokens_seen out",
    ),
    (
        lambda a: a.neftune_noise_alpha is not None,
        "NEFTune's noise on a text depends on the length of the longest text beside it",
        "leave neftune_noise_alpha out",
    ),
    (
        lambda a: a.label_smoothing_factor != 0,
        "label smoothing is not part of the loss per example",
        "leave label_smoothing_factor out, or give loss=",
    ),
    (
        lambda a: a.torch_compile,
        "clipping cannot look into a compiled model",
        "leave torch_compile out",
    ),
    (
        lambda a: "schedule_free" in a.optim or "lomo" in a.optim,
        "this optimizer moves weights outside its step",
        "use adamw_torch or another usual optimizer",
    ),
    (lambda a: a.learning_rate == 0, "a learning rate of 0 would spend epsilon for nothing", "give a larger one"),
)


def _refuse_unsound(args: TrainingArguments) -> None:
    for applies, reason, mend in _UNSOUND:
        if applies(args):
            raise GuaranteeError(reason, mend)


def _nothing(rows: list[int]) -> Mapping[str, Tensor]:
    del rows
    return {}
