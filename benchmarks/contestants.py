"""Who is timed: the plain step, trustnlp's private steps, and those of other libraries.

Every contestant is a function of (case, optimizer class, noise multiplier) to the model that it trains and a step, a
function of the step's number. All take the same draws, models and physical batches, and use a library as its own
documentation does; whatever had to be done beyond that is in `mend` and shown below the table.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from cases import STREAMS, Case
from torch import Tensor, nn

from trustnlp import dp
from trustnlp.dp.clipping import ClippedSumFunction
from trustnlp.models.protocol import Batch

Step = Callable[[int], object]
Prepare = Callable[[Case, "type[torch.optim.Optimizer]", float], tuple[nn.Module, Step]]
CLIP_NORM, LEARNING_RATE = 1.0, 1e-4

POSITIONS = "positions and segments were given as one row for each text"
OTHER_LSTM = "nn.LSTM was replaced by opacus.layers.DPLSTM through ModuleValidator.fix"


@dataclass(frozen=True)
class Contestant:
    """Who runs.

    Args:
        name: as shown.
        kind: `plain`, `flat` (every example clipped to one norm), `layer-wise` or `micro-batch`.
        prepare: see above.
        fields: of trustnlp's plan, if it is trustnlp.
        extra: left out in sweeps.
        mend: what had to be done to let it run.
    """

    name: str
    kind: str
    prepare: Prepare
    fields: dict[str, Any] | None = None
    extra: bool = False
    mend: str = ""

    @property
    def ours(self) -> bool:
        return self.fields is not None


def contestants(case: Case) -> list[Contestant]:
    """All who take part in a case, plain first."""
    flat, secure = {"clipping": dp.FlatClipping(CLIP_NORM)}, {"noise": "secure"}
    ours = [
        ("exact flat", "flat", flat),
        ("exact flat, secure noise", "flat", flat | secure),
        ("layer-wise", "layer-wise", {"clipping": dp.LayerwiseClipping(CLIP_NORM)}),
        *(
            (f"micro-batches of {size}", "micro-batch", {"clipping": dp.MicroBatchClipping(size, CLIP_NORM)})
            for size in case.micro_batches
        ),
    ]
    text = POSITIONS if case.shared else ""
    peers = [
        Contestant("Opacus, hooks", "flat", opacus_hooks, extra=True, mend=text or OTHER_LSTM),
        Contestant("Opacus, ghost", "flat", opacus_ghost, mend=text or OTHER_LSTM),
        Contestant("fastDP, all layers", "flat", partial(fast_dp, "all-layer"), mend=text),
        Contestant("fastDP, layer-wise", "layer-wise", partial(fast_dp, "layer-wise"), extra=True, mend=text),
    ]
    found = [Contestant("plain", "plain", plain)]
    found += [
        Contestant(
            f"trustnlp, {name}",
            kind,
            partial(private, fields),
            fields,
            extra="noise" in fields or fields["clipping"] == dp.MicroBatchClipping(8, CLIP_NORM),
        )
        for name, kind, fields in ours
    ]
    found += peers if case.peers else []
    return [contestant for contestant in found if not (case.sweep and contestant.extra)]


def plan(case: Case, sigma: float, **fields: Any) -> dp.PrivacyPlan:
    """The plan whose draws everybody takes."""
    return dp.PrivacyPlan(len(case.data), case.logical, steps=1000, noise_multiplier=sigma, delta=1e-5, **fields)


def physical_batches(case: Case, number: int) -> Iterator[Batch]:
    """The draw of step `number`, a physical batch at a time."""
    indices = plan(case, 1.0).sampler(STREAMS).draw(number).indices
    for start in range(0, len(indices), case.physical):
        yield case.data.batch(indices[start : start + case.physical])


def trained(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def plain(case: Case, optimizer: type[torch.optim.Optimizer], sigma: float) -> tuple[nn.Module, Step]:
    """No privacy: physical batches' gradients are added up."""
    del sigma
    model = case.make()
    moves, device = optimizer(trained(model), LEARNING_RATE), trained(model)[0].device

    def step(number: int) -> None:
        for batch in physical_batches(case, number):
            (model.loss(batch.to(device)).sum() / case.logical).backward()
        moves.step()
        moves.zero_grad()

    return model, step


def sum_function(case: Case, plan: dp.PrivacyPlan) -> ClippedSumFunction:
    """The plan's own way to its clipped sums, in the case's physical batches."""
    function = plan.clipping.sum_function()
    if isinstance(function, dp.BookKeeping):
        function.physical_batch = case.physical
    return function


def private(
    fields: dict[str, Any], case: Case, optimizer: type[torch.optim.Optimizer], sigma: float
) -> tuple[nn.Module, Step]:
    """A plan's step, with all its checks and its ledger in memory."""
    model, chosen = case.make(), plan(case, sigma, **fields)
    clipped_sum = sum_function(case, chosen)
    step = chosen.step(model, optimizer(trained(model), LEARNING_RATE), streams=STREAMS, clipped_sum=clipped_sum)
    sampler = chosen.sampler(STREAMS)

    def numbered(number: int) -> None:
        step(case.data, sampler.draw(number))
        if getattr(clipped_sum, "fallback", ""):
            raise RuntimeError(f"went the slow way: {clipped_sum.fallback}")

    return model, numbered


def opacus_hooks(case: Case, optimizer: type[torch.optim.Optimizer], sigma: float) -> tuple[nn.Module, Step]:
    """Per-example gradients kept by hooks (Opacus's default)."""
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    model = _for_opacus(case)
    hooked = GradSampleModule(model, loss_reduction="sum")
    moves = DPOptimizer(optimizer(trained(model), LEARNING_RATE), **_opacus_options(case, sigma))

    def backward(losses: Tensor) -> None:
        losses.sum().backward()

    return model, partial(_opacus_step, case, hooked, moves, backward)


def opacus_ghost(case: Case, optimizer: type[torch.optim.Optimizer], sigma: float) -> tuple[nn.Module, Step]:
    """Ghost norms, then a second backward (Opacus's `grad_sample_mode="ghost"`)."""
    from opacus.grad_sample import GradSampleModuleFastGradientClipping
    from opacus.optimizers import DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping

    model = _for_opacus(case)
    hooked = GradSampleModuleFastGradientClipping(model, loss_reduction="sum", max_grad_norm=CLIP_NORM)
    moves = DPOptimizerFastGradientClipping(optimizer(trained(model), LEARNING_RATE), **_opacus_options(case, sigma))

    def backward(losses: Tensor) -> None:
        DPTensorFastGradientClipping(hooked, moves, losses, "sum").backward()

    return model, partial(_opacus_step, case, hooked, moves, backward)


def _for_opacus(case: Case) -> nn.Module:
    from opacus.validators import ModuleValidator

    model = case.make()
    return ModuleValidator.fix(model) if case.name == "bilstm" else model


def _opacus_options(case: Case, sigma: float) -> dict[str, object]:
    return {
        "noise_multiplier": sigma,
        "max_grad_norm": CLIP_NORM,
        "expected_batch_size": case.logical,
        "loss_reduction": "mean",
    }


def _opacus_step(case: Case, hooked, moves, backward: Callable[[Tensor], None], number: int) -> None:
    batches = list(physical_batches(case, number))
    device = trained(hooked)[0].device
    for place, batch in enumerate(batches):
        backward(hooked._module.loss(_row_by_row(case, batch.to(device))))
        moves.signal_skip_step(place + 1 < len(batches))
        moves.step()
        moves.zero_grad()


def fast_dp(style: str, case: Case, optimizer: type[torch.optim.Optimizer], sigma: float) -> tuple[nn.Module, Step]:
    """Book-keeping of fastDP with its own choice of norms (`MixOpt`)."""
    from fastDP import PrivacyEngine

    model = case.make()
    moves, device = optimizer(trained(model), LEARNING_RATE), trained(model)[0].device
    with contextlib.redirect_stdout(io.StringIO()):
        PrivacyEngine(
            model,
            batch_size=case.logical,
            sample_size=len(case.data),
            max_grad_norm=CLIP_NORM,
            epochs=1,
            noise_multiplier=sigma,
            clipping_fn="Abadi",
            clipping_style=style,
        ).attach(moves)

    def step(number: int) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            for batch in physical_batches(case, number):
                model.loss(_row_by_row(case, batch.to(device))).mean().backward()
            moves.step()
            moves.zero_grad()

    return model, step


def _row_by_row(case: Case, batch: Batch) -> Batch:
    """The batch with all written out that the model otherwise takes as one row for all texts."""
    rows = {}
    if case.shared:
        ids = batch.inputs["input_ids"]
        positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids).contiguous()
        written = {"position_ids": positions, "token_type_ids": torch.zeros_like(ids)}
        rows = {name: written[name] for name in case.shared}
    return Batch({**batch.inputs, **rows}, batch.targets)
