"""Fail-closed checks: whatever would make the guarantee of a private step wrong raises before it is spent.

Shape legend: B batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.modules import batchnorm, dropout, instancenorm
from torch.nn.parameter import is_lazy

from trustnlp.dp.sharding import local
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.models.protocol import Batch, Encoded
from trustnlp.models.training import seeded

_PROBED = 8
_TRAINABLE = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
Fingerprint = tuple[tuple[int, int, int], ...]


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that a private step moves, by name; tied weights once.

    Raises:
        GuaranteeError: there is none, or one has no shape yet or is not of ordinary floating-point numbers.
    """
    found = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not found:
        raise GuaranteeError("the model has no trainable parameter", "unfreeze at least one")
    lazy = [name for name, parameter in found.items() if is_lazy(parameter)]
    if lazy:
        raise GuaranteeError(f"parameters without a shape yet: {', '.join(lazy)}", "run the model once before")
    odd = [f"{name} ({parameter.dtype})" for name, parameter in found.items() if parameter.dtype not in _TRAINABLE]
    if odd:
        raise GuaranteeError(
            f"trainable parameters are quantised or complex: {', '.join(odd[:5])}",
            "freeze them and train adapters, or keep the trained weights in float32",
        )
    return found


def refuse_unsound_forms(model: nn.Module) -> None:
    """Refuses models in a form in which their gradients are not the examples' own.

    Raises:
        GuaranteeError: a wrapper that spreads batches over devices and adds up unclipped gradients, or adapters that
            are merged into the weights and get noise but no gradient.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.DataParallel) or type(module).__name__ == "FullyShardedDataParallel":
            reason = f"{type(module).__name__} adds up gradients of whole batches before they can be clipped"
            raise GuaranteeError(reason, "give the model inside it; for several processes use torchrun and fully_shard")
        if getattr(module, "merged", False) is True:
            reason = f"the adapters of layer {name!r} are merged into its weights, so noise is all that would move them"
            raise GuaranteeError(reason, "call model.unmerge_adapter() before training")


def refuse_gradients(parameters: Mapping[str, nn.Parameter]) -> None:
    """Refuses gradients that a backward outside the step has left: nothing has clipped them.

    Raises:
        GuaranteeError: a parameter has a gradient.
    """
    left = [name for name, parameter in parameters.items() if parameter.grad is not None]
    if left:
        raise GuaranteeError(
            f"a backward outside the private step has left gradients ({', '.join(left[:5])}) that nothing clips",
            "call no backward, and set gradients to None before the step; a large batch is one draw, cut by the step",
        )


def refuse_mixing_layers(model: nn.Module) -> None:
    """Refuses layers that are known to carry something from one example to another.

    Raises:
        GuaranteeError: batch normalisation, or running statistics of instance normalisation.
    """
    for name, module in model.named_modules():
        kind = type(module).__name__
        if isinstance(module, batchnorm._BatchNorm):
            reason = f"layer {name!r} ({kind}) mixes the examples of a batch, so no clipping bounds one example"
            raise GuaranteeError(reason, "replace it by nn.GroupNorm or nn.LayerNorm")
        if isinstance(module, instancenorm._InstanceNorm) and module.track_running_stats:
            reason = f"layer {name!r} ({kind}) keeps running statistics of the examples, without noise"
            raise GuaranteeError(reason, "set track_running_stats=False")


def check_optimizer(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> None:
    """Checks that the optimizer has exactly the trainable parameters.

    Momentum, weight decay, `foreach` and `fused` are all welcome: an optimizer sees noisy gradients alone.

    Raises:
        GuaranteeError: one is missing (it would be clipped and noised but never moved) or foreign (it could be
            moved without noise); or the optimizer wants more than one gradient, or a sparse one.
    """
    if isinstance(optimizer, torch.optim.LBFGS | torch.optim.SparseAdam):
        reason = "asks for losses of the data again" if isinstance(optimizer, torch.optim.LBFGS) else "wants sparsity"
        raise GuaranteeError(
            f"{type(optimizer).__name__} {reason}, but a private step has one dense noisy gradient to give",
            "use SGD, Adam, AdamW or another that moves by one dense gradient",
        )
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    missing = [name for name, parameter in parameters.items() if id(parameter) not in held]
    if missing:
        reason = f"the optimizer lacks trainable parameters ({', '.join(missing[:5])})"
        raise GuaranteeError(reason, "freeze them, or give them to the optimizer")
    foreign = len(held - {id(parameter) for parameter in parameters.values()})
    if foreign:
        reason = f"the optimizer holds {foreign} parameters that are not trainable parameters of the model"
        raise GuaranteeError(reason, "make the optimizer from the model's trainable parameters alone")


def check_independence(model: nn.Module, loss: Callable[[Batch], Tensor], data: Encoded, seed: int) -> None:
    """Probes, on the first examples of `data`, that an example's loss depends on that example alone.

    Three things are compared, up to the square root of the precision:
    the loss alone and among neighbours (not in training mode, since dropout differs between the two);
    the gradient among neighbours and among copies of itself (in the model's own mode, dropout modules off);
    the buffers before and after.

    Raises:
        GuaranteeError: the loss is not one figure per example, an example's loss or gradient depends on its
            neighbours or on their number, or a forward pass changes a buffer.
    """
    parameters = list(trainable_parameters(model).values())
    device = parameters[0].device
    count = min(_PROBED, len(data))
    alone = [data.batch([index]).to(device) for index in range(count)]
    together = data.batch(range(count)).to(device)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with seeded(seed, model):
        tolerance = rounding(model, loss, together) ** 0.5
    with seeded(seed, model):
        _compare_losses(model, loss, alone, together, tolerance)
    # The longest example: copies of it have the shape of the batch, so random masks fall alike.
    longest = max(range(count), key=lambda index: sum(t.numel() for t in alone[index].inputs.values()))
    with _without_dropout(model):
        gradients = []
        for batch in (together, _copies(together, longest)):
            with seeded(seed, model):
                gradients.append(_gradient(loss(batch)[longest], parameters))
    if _distance(*gradients) > tolerance:
        raise GuaranteeError(
            "an example's gradient depends on the other examples of its batch, so no clipping bounds one example",
            "remove what mixes examples: statistics over the batch, shared memories, losses averaged over it",
        )
    changed = [name for name, buffer in model.named_buffers() if not torch.equal(buffer, before[name])]
    if changed:
        raise GuaranteeError(
            f"a forward pass changes buffers ({', '.join(changed[:5])}), which would publish examples without noise",
            "remove running statistics, or compute them before from public data",
        )


def rounding(model: nn.Module, loss: Callable[[Batch], Tensor], batch: Batch) -> float:
    """The relative rounding of the coarsest precision in a forward pass: the parameters', or that of autocast."""
    found = {parameter.dtype for parameter in trainable_parameters(model).values()}

    def note(module: nn.Module, inputs: object, output: object) -> None:
        del module, inputs
        if isinstance(output, Tensor) and output.is_floating_point():
            found.add(output.dtype)

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    try:
        loss(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return max(torch.finfo(dtype).eps for dtype in found)


def fingerprint(tensors: Iterable[Tensor]) -> Fingerprint:
    """Which tensors these are and how often each was written to."""
    return tuple((id(tensor), tensor._version, local(tensor)._version) for tensor in tensors)


def check_moved(before: list[Tensor], parameters: list[nn.Parameter]) -> None:
    """Checks that a step has moved the parameters away from `before`; noise alone does that.

    Raises:
        GuaranteeError: epsilon was spent for nothing.
    """
    if all(torch.equal(local(parameter), local(old)) for parameter, old in zip(parameters, before, strict=True)):
        raise GuaranteeError(
            "epsilon was spent but no parameter moved",
            "give the optimizer a learning rate above 0, and keep the trained weights in float32",
        )


def _compare_losses(
    model: nn.Module, loss: Callable[[Batch], Tensor], alone: list[Batch], together: Batch, tolerance: float
) -> None:
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            joint = _one_each(loss(together), len(together))
            single = torch.cat([_one_each(loss(batch), 1) for batch in alone])
    finally:
        model.train(training)
    if not torch.allclose(joint, single, rtol=tolerance, atol=tolerance):
        raise GuaranteeError(
            "an example's loss changes with the other examples of its batch, with their number or with padding",
            "give the sum or mean over the example's own tokens, masked, and nothing over the batch",
        )


def _one_each(losses: Tensor, count: int) -> Tensor:
    if losses.shape != (count,):
        raise ArgumentError("loss", f"one figure per example, of shape ({count},)", tuple(losses.shape))
    return losses


def _copies(batch: Batch, row: int) -> Batch:
    """A batch of the same shape in which every example is that of `row`."""

    def fill(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor[row : row + 1].expand_as(tensor).contiguous() for name, tensor in tensors.items()}

    return replace(batch, inputs=fill(batch.inputs), targets=fill(batch.targets))


def _gradient(loss: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    if not loss.requires_grad:
        raise GuaranteeError("the loss reaches no trainable parameter", "do not detach it, and unfreeze what it uses")
    parts = torch.autograd.grad(loss, parameters, allow_unused=True)
    return torch.cat([part.to_dense().flatten() for part in parts if part is not None])


def _distance(one: Tensor, other: Tensor) -> float:
    """|one - other| relative to the longer of the two; 1 where they do not even reach the same parameters."""
    if one.shape != other.shape:
        return 1.0
    scale = max(float(one.norm()), float(other.norm()))
    return float((one - other).norm()) / scale if scale else 0.0


@contextmanager
def _without_dropout(model: nn.Module) -> Iterator[None]:
    """The model with its dropout modules off and otherwise in the mode that it is in."""
    places: list[tuple[nn.Module, str]] = [
        (module, "p") for module in model.modules() if isinstance(module, dropout._DropoutNd)
    ]
    places += [(module, "dropout") for module in model.modules() if isinstance(module, nn.RNNBase)]
    rates = [getattr(module, name) for module, name in places]
    try:
        for module, name in places:
            setattr(module, name, 0.0)
        yield
    finally:
        for (module, name), rate in zip(places, rates, strict=True):
            setattr(module, name, rate)
