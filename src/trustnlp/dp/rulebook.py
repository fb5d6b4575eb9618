"""Which rule covers which layer, and whether all trained parameters are covered exactly once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from torch import nn

from trustnlp.dp.clipping import Parameters
from trustnlp.dp.crf_rule import CRFRule
from trustnlp.dp.layer_rules import (
    ConvolutionRule,
    EmbeddingRule,
    LayerRule,
    LinearRule,
    NormRule,
    Rule,
    TiedRule,
    TransposedLinearRule,
)
from trustnlp.dp.recurrent_rules import ElmanRule, GRURule, LSTMRule

# By the full name of the type: a subclass may compute something else, and Transformers need not be imported.
_RULES: dict[str, type[LayerRule]] = {
    "torch.nn.modules.linear.Linear": LinearRule,
    "transformers.pytorch_utils.Conv1D": TransposedLinearRule,
    "torch.nn.modules.conv.Conv1d": ConvolutionRule,
    "torch.nn.modules.sparse.Embedding": EmbeddingRule,
    "torch.nn.modules.normalization.LayerNorm": NormRule,
    "torch.nn.modules.normalization.RMSNorm": NormRule,
    "torch.nn.modules.rnn.LSTM": LSTMRule,
    "torch.nn.modules.rnn.GRU": GRURule,
    "torch.nn.modules.rnn.RNN": ElmanRule,
    "trustnlp.models.crf.LinearChainCRF": CRFRule,
}


def rules_for(model: nn.Module, parameters: Parameters) -> tuple[list[Rule], list[str]]:
    """The rules that cover each of `parameters` exactly once, and what they cannot cover, in words."""
    trained = set(parameters.values())
    layers: dict[tuple[Any, ...], list[nn.Module]] = defaultdict(list)
    refused = []
    for name, module in model.named_modules():
        own = [parameter for parameter in module.parameters(recurse=False) if parameter in trained]
        reason = _refusal(module) if own else ""
        if reason:
            refused.append((own, f"{name or 'the model itself'} ({type(module).__name__}): {reason}"))
        elif own:
            layers[_name(module), module.extra_repr(), *map(id, own)].append(module)
    rules = [_RULES[name](modules, trained) for (name, *_), modules in layers.items()]
    tied, shared = _tied(rules)
    alone = [rule for rule in rules if not any(rule in pair for pair in tied)]
    covered = {parameter for rule in rules for parameter in rule.trained.values()}
    # A module may hold a parameter only to share it with a layer inside; where it uses it too, the tape notices.
    missing = [reason for own, reason in refused if not covered.issuperset(own)]
    missing += [f"{name}: shared by different layers" for name, p in parameters.items() if p in shared]
    if not missing and covered != trained:
        missing.append("parameters outside all layers")
    return [*alone, *(TiedRule(*pair) for pair in tied)], missing


def _tied(rules: Sequence[LayerRule]) -> tuple[list[tuple[EmbeddingRule, LinearRule]], set[nn.Parameter]]:
    """Pairs of an embedding and a linear layer with one weight, and parameters that are shared in any other way."""
    owners: dict[nn.Parameter, list[LayerRule]] = defaultdict(list)
    for rule in rules:
        for parameter in rule.trained.values():
            owners[parameter].append(rule)
    pairs, shared = [], set()
    for parameter, holders in owners.items():
        embeddings = [rule for rule in holders if type(rule) is EmbeddingRule]
        heads = [rule for rule in holders if type(rule) is LinearRule and rule.trained.get("weight") is parameter]
        if len(holders) == 2 and embeddings and heads:
            pairs.append((embeddings[0], heads[0]))
        elif len(holders) > 1:
            shared.add(parameter)
    return pairs, shared


def _name(module: nn.Module) -> str:
    """The full name of its type; `fully_shard` puts a type of its own in front, which computes the same."""
    kind = next(kind for kind in type(module).__mro__ if not kind.__module__.startswith("torch.distributed.fsdp"))
    return f"{kind.__module__}.{kind.__qualname__}"


def _refusal(module: nn.Module) -> str:
    """Why no rule fits this layer; empty where one does."""
    rule = _RULES.get(_name(module))
    if rule is None:
        return "no rule for this type of layer"
    if "forward" in module.__dict__:
        return "its forward method was replaced"
    held = [id(parameter) for _, parameter in module.named_parameters(recurse=False, remove_duplicate=False)]
    return "one parameter in two roles" if len(set(held)) < len(held) else rule.refusal(module)
