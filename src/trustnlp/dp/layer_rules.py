"""One rule per layer type: what of a forward and a backward pass to keep, and what the layer's gradients are made of.

Shape legend: B examples, T positions, D inputs, P outputs, V vocabulary.

While a rule is attached, its layer computes what it always does, but with its parameters as constants: autograd then
spends nothing on their gradients. A use of these parameters anywhere else is still seen by autograd, and so found out.

| layer                        | kept for each call                  | per-example gradient               |
|------------------------------|-------------------------------------|------------------------------------|
| Linear, Conv1D, nn.Conv1d    | inputs, gradients of outputs        | `ghost_norms.OuterProducts`        |
| LSTM                         | inputs and states, gradients of gates | the same, over all positions     |
| Embedding                    | ids, gradients of outputs           | `ghost_norms.Lookups`              |
| LayerNorm, RMSNorm           | inputs, gradients of outputs        | `ghost_norms.Scales`               |
| Embedding and Linear tied    | as both                             | both, and their inner product      |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trustnlp.dp.ghost_norms import Lookups, OuterProducts, Scales, inner_products
from trustnlp.dp.tape import Kept, Tape, UnsupportedUseError, Use
from trustnlp.dp.unit_rows import UnitRows

Sums = Mapping[nn.Parameter, Tensor]


class Rule(Protocol):
    """How some parameters' gradients are clipped: attached for one physical batch, then asked for norms and sums."""

    def attach(self, tape: Tape) -> None:
        """From now on the layers' calls are watched by `tape`."""
        ...

    def detach(self) -> None:
        """The layers are as they were."""
        ...

    def collect(self) -> bool:
        """Takes what the passes have left; whether the loss depends on these layers at all.

        Raises:
            UnsupportedUseError: what was kept is not what it was.
        """
        ...

    def parameters(self) -> Iterable[nn.Parameter]:
        """The trained parameters that the rule covers."""
        ...

    def squared_norms(self) -> Tensor:
        """(B,) squared norm of each example's gradient of all trained parameters of the rule."""
        ...

    def add_to(self, sums: Sums, factors: Tensor) -> None:
        """Adds the per-example gradients, each times its example's factor (B,), to the sum of every parameter."""
        ...

    def drop(self) -> None:
        """Lets go of what was collected."""
        ...


class LayerRule:
    """What the rules of single layers share.

    Args:
        modules: layers with the same parameters and settings, nearly always one.
        trained: those of the model's parameters that are trained; the layer's others are constants.
    """

    def __init__(self, modules: Sequence[nn.Module], trained: Set[nn.Parameter]) -> None:
        self.module: Any = modules[0]
        self._modules = modules
        held = dict(self.module.named_parameters(recurse=False))
        self.trained = {name: parameter for name, parameter in held.items() if parameter in trained}
        self._held = tuple(held.values())
        self._uses: list[Use] = []
        self._only: Kept | None = None  # the input, where there was one call

    @staticmethod
    def refusal(module: Any) -> str:
        """Why this rule does not fit the layer's settings; empty where it does."""
        return "" if dict(module.named_parameters(recurse=False)).keys() <= {"weight", "bias"} else "more parameters"

    def parameters(self) -> Iterable[nn.Parameter]:
        """See `Rule.parameters`."""
        return self.trained.values()

    def attach(self, tape: Tape) -> None:
        """See `Rule.attach`; an attribute of the object hides the method of its class.

        Raises:
            UnsupportedUseError: somebody else has done the same.
        """
        self._uses.clear()
        self._tape = tape
        for module in self._modules:
            if "forward" in module.__dict__:
                raise UnsupportedUseError("a layer's forward method was replaced")
            module.__dict__["forward"] = self.forward

    def detach(self) -> None:
        """See `Rule.detach`."""
        for module in self._modules:
            if module.__dict__.get("forward") == self.forward:
                del module.__dict__["forward"]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The layer's own output, watched."""
        value = args[0] if args else kwargs["input"]
        with self._constants():
            output = type(self.module).forward(self.module, *args, **kwargs)
        use, output = self._tape.watch(value, output)
        self._uses.append(use)
        return output

    @contextmanager
    def _constants(self) -> Iterator[None]:
        """Inside, autograd takes the layer's parameters for constants."""
        before = [parameter.requires_grad for parameter in self._held]
        for parameter in self._held:
            parameter.requires_grad = False
        try:
            yield
        finally:
            for parameter, value in zip(self._held, before, strict=True):
                parameter.requires_grad = value

    def collect(self) -> bool:
        """See `Rule.collect`."""
        pairs = [(use.value, use.gradient) for use in self._uses if use.gradient is not None]
        self._uses.clear()
        if pairs:
            self._only = pairs[0][0] if len(pairs) == 1 else None
            self._take([(value(), gradient()) for value, gradient in pairs])
        return bool(pairs)

    def _take(self, pairs: list[tuple[Tensor, Tensor]]) -> None:
        """Takes (input, gradient of the output) of every call that the loss depends on."""
        raise NotImplementedError

    def squared_norms(self) -> Tensor:
        """See `Rule.squared_norms`."""
        raise NotImplementedError

    def add_to(self, sums: Sums, factors: Tensor) -> None:
        """See `Rule.add_to`."""
        raise NotImplementedError

    def drop(self) -> None:
        """See `Rule.drop`."""
        self._only = None


class LinearRule(LayerRule):
    """`nn.Linear` over inputs (B, ..., D)."""

    def _take(self, pairs: list[tuple[Tensor, Tensor]]) -> None:
        tape = self._tape
        a = joined([self.inputs(value) for value, _ in pairs], tape.units) if "weight" in self.trained else None
        g = joined([self.outputs(g) for _, g in pairs], tape.units)
        self.products = OuterProducts(a, g, int("bias" in self.trained), self._shared_products(), tape.choose)

    def _shared_products(self) -> Callable[[], Tensor] | None:
        """Inner products of the inputs, where several layers need the same."""
        only = self._only
        return only.products if only is not None and only.shared and self._tape.units.of_one_row else None

    def drop(self) -> None:
        """See `Rule.drop`."""
        super().drop()
        del self.products

    def inputs(self, value: Tensor) -> Tensor:
        """(B, T, D) from a call's input."""
        return positions(value)

    def outputs(self, gradient: Tensor) -> Tensor:
        """(B, T, P) from the gradient of a call's output."""
        return positions(gradient)

    def matrix(self, total: Tensor) -> Tensor:
        """The weight's sum as (P, D)."""
        return total

    def squared_norms(self) -> Tensor:
        """See `Rule.squared_norms`."""
        return self.products.squared_norms()

    def add_to(self, sums: Sums, factors: Tensor) -> None:
        """See `Rule.add_to`."""
        if "weight" in self.trained:
            self.products.add_matrix(self.matrix(sums[self.trained["weight"]]), factors)
        if "bias" in self.trained:
            sums[self.trained["bias"]].add_(self.products.vector(factors))


class TransposedLinearRule(LinearRule):
    """Transformers' `Conv1D`: a linear layer whose weight is (D, P)."""

    def matrix(self, total: Tensor) -> Tensor:
        """The weight's sum as (P, D)."""
        return total.t()


class ConvolutionRule(LinearRule):
    """`nn.Conv1d` over (B, channels, length): a linear layer over windows."""

    @staticmethod
    def refusal(module: Any) -> str:
        """Why this rule does not fit the layer's settings; empty where it does."""
        if module.groups != 1 or module.padding_mode != "zeros" or isinstance(module.padding, str):
            return "groups, or padding by name or with other than zeros"
        return LayerRule.refusal(module)

    def _shared_products(self) -> None:
        """None: those of windows are not those of the inputs."""

    def inputs(self, value: Tensor) -> Tensor:
        """(B, T, D): the channels and positions of every window."""
        module = self.module
        padded = F.pad(value, (module.padding[0], module.padding[0]))
        span = module.dilation[0] * (module.kernel_size[0] - 1) + 1
        windows = padded.unfold(2, span, module.stride[0])[..., :: module.dilation[0]]
        return windows.transpose(1, 2).flatten(2)

    def outputs(self, gradient: Tensor) -> Tensor:
        """(B, T, P) from the gradient of a call's output."""
        return gradient.mT

    def matrix(self, total: Tensor) -> Tensor:
        """The weight's sum as (P, D)."""
        return total.flatten(1)


class EmbeddingRule(LayerRule):
    """`nn.Embedding` of ids (B, ...); of ids (1, ...), which all examples share, too."""

    @staticmethod
    def refusal(module: Any) -> str:
        """Why this rule does not fit the layer's settings; empty where it does."""
        if module.max_norm is not None or module.scale_grad_by_freq:
            return "max_norm or scale_grad_by_freq"
        return LayerRule.refusal(module)

    def _take(self, pairs: list[tuple[Tensor, Tensor]]) -> None:
        ids = joined([value.reshape(len(value), -1) for value, _ in pairs], self._tape.units)
        g = joined([positions(g) for _, g in pairs], self._tape.units)
        module = self.module
        if module.padding_idx is not None:
            g = g * (ids != module.padding_idx)[:, :, None]
        self.lookups = Lookups(ids, g, module.num_embeddings)

    def squared_norms(self) -> Tensor:
        """See `Rule.squared_norms`."""
        return self.lookups.squared_norms()

    def add_to(self, sums: Sums, factors: Tensor) -> None:
        """See `Rule.add_to`."""
        self.lookups.add_matrix(sums[self.trained["weight"]], factors)

    def drop(self) -> None:
        """See `Rule.drop`."""
        super().drop()
        del self.lookups


class TiedRule:
    """An embedding and a linear head with one weight W (V, D): its gradient is the sum of both layers' gradients.

    The squared norm of that sum S + O needs the inner product <S, O>, which is a sum over positions t of the embedding
    and s of the head: the entry of the head's output gradient at the id of t, times (gradient at t).(input at s).
    """

    def __init__(self, embedding: EmbeddingRule, head: LinearRule) -> None:
        self._embedding, self._head = embedding, head
        self._reached: list[LayerRule] = []

    def parameters(self) -> Iterable[nn.Parameter]:
        """See `Rule.parameters`."""
        return {*self._embedding.parameters(), *self._head.parameters()}

    def attach(self, tape: Tape) -> None:
        """See `Rule.attach`."""
        self._embedding.attach(tape)
        self._head.attach(tape)

    def detach(self) -> None:
        """See `Rule.detach`."""
        self._embedding.detach()
        self._head.detach()

    def collect(self) -> bool:
        """See `Rule.collect`."""
        self._reached = [rule for rule in (self._embedding, self._head) if rule.collect()]
        return bool(self._reached)

    def squared_norms(self) -> Tensor:
        """See `Rule.squared_norms`."""
        parts = torch.stack([rule.squared_norms() for rule in self._reached])
        if len(self._reached) == 1:
            return parts[0]
        rounding = 4 * torch.finfo(parts.dtype).eps * parts.clamp(min=0).sqrt().sum(0).square()
        return parts.sum(0) + 2 * inner_products(self._embedding.lookups, self._head.products) + rounding

    def add_to(self, sums: Sums, factors: Tensor) -> None:
        """See `Rule.add_to`."""
        for rule in self._reached:
            rule.add_to(sums, factors)

    def drop(self) -> None:
        """See `Rule.drop`."""
        for rule in self._reached:
            rule.drop()


class NormRule(LayerRule):
    """`nn.LayerNorm` and `nn.RMSNorm`: what is normalised, times a weight, plus a bias."""

    def _take(self, pairs: list[tuple[Tensor, Tensor]]) -> None:
        units = self._tape.units
        g, x = joined([self._flat(g) for _, g in pairs], units), None
        if "weight" in self.trained:
            x = joined([self._flat(self._normalised(value)) for value, _ in pairs], units)
        self._scales = Scales(x, g, "bias" in self.trained)

    def _normalised(self, value: Tensor) -> Tensor:
        module = self.module
        normalise = F.layer_norm if isinstance(module, nn.LayerNorm) else F.rms_norm
        return normalise(value, module.normalized_shape, eps=module.eps)

    def _flat(self, value: Tensor) -> Tensor:
        """(B, T, D) with all normalised dimensions in one."""
        module = self.module
        width = int(torch.Size(module.normalized_shape).numel())
        return value.reshape(len(value), -1, width)

    def squared_norms(self) -> Tensor:
        """See `Rule.squared_norms`."""
        return self._scales.squared_norms()

    def add_to(self, sums: Sums, factors: Tensor) -> None:
        """See `Rule.add_to`."""
        for name, total in zip(("weight", "bias"), self._scales.vectors(factors), strict=True):
            if total is not None:
                parameter = self.trained[name]
                sums[parameter].add_(total.view_as(parameter))

    def drop(self) -> None:
        """See `Rule.drop`."""
        super().drop()
        del self._scales


def positions(tensor: Tensor) -> Tensor:
    """(B, T, D) from (B, ..., D)."""
    return tensor.reshape(len(tensor), -1, tensor.shape[-1])


def joined(parts: list[Tensor], units: UnitRows) -> Tensor:
    """(U, T, ...) the calls of one layer, and the rows of one unit, as if they were more positions of one call."""
    return units.joined(parts[0] if len(parts) == 1 else torch.cat(parts, 1))
