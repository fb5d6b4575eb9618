import pytest
from rows import random_weights
from small_text import Tagger, trainable
from torch import nn
from torch.nn.utils import parametrizations

from trustnlp.dp.layer_rules import LinearRule, TiedRule
from trustnlp.dp.rulebook import rules_for


def missing(model):
    return rules_for(model, trainable(model))[1]


def linear(**changes):
    layer = nn.Linear(3, 3)
    for name, value in changes.items():
        setattr(layer, name, value)
    return layer


class Louder(nn.Linear):
    """A subclass may compute something else."""

    def forward(self, x):
        return 2 * super().forward(x)


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(random_weights(nn.Linear(2, 2)).weight[0].detach())
        self.inner = nn.Linear(2, 2)


def shared(one, other, name="weight"):
    setattr(other, name, getattr(one, name))
    return nn.ModuleList([one, other])


class TestRulesFor:
    def test_every_trained_parameter_has_one_rule(self):
        model = Tagger()
        rules, lacking = rules_for(model, trainable(model))
        covered = [parameter for rule in rules for parameter in rule.trained.values()]
        assert lacking == []
        assert sorted(map(id, covered)) == sorted(map(id, model.parameters()))

    def test_frozen_layers_need_none(self):
        model = nn.ModuleList([nn.Linear(2, 2), nn.Bilinear(2, 2, 2), nn.Embedding(3, 2, max_norm=1.0)])
        model[1].requires_grad_(False)
        model[2].requires_grad_(False)
        assert [type(rule) for rule in rules_for(model, trainable(model))[0]] == [LinearRule]

    @pytest.mark.parametrize(
        ("model", "reason"),
        [
            (nn.Sequential(nn.Linear(2, 2), nn.Conv2d(1, 1, 1)), "1 (Conv2d): no rule"),
            (nn.MultiheadAttention(4, 2), "MultiheadAttention"),
            (Louder(2, 2), "the model itself"),
            (Own(), "Own"),
            (parametrizations.weight_norm(nn.Linear(2, 2)), "ParametrizedLinear"),
            (linear(extra=nn.Parameter(nn.Linear(2, 2).weight.detach())), "more parameters"),
            (linear(forward=lambda x: x), "replaced"),
            (nn.Embedding(3, 2, max_norm=1.0), "max_norm"),
            (nn.Embedding(3, 2, scale_grad_by_freq=True), "scale_grad_by_freq"),
            (nn.Conv1d(2, 2, 3, groups=2), "groups"),
            (nn.Conv1d(2, 2, 3, padding="same"), "padding"),
            (shared(nn.Linear(3, 3), nn.Linear(3, 3)), "shared by different layers"),
            (shared(nn.Linear(3, 3), nn.LayerNorm(3), "bias"), "shared by different layers"),
            (shared(nn.Embedding(3, 3), nn.Embedding(3, 3, padding_idx=1)), "shared by different layers"),
        ],
    )
    def test_what_is_not_covered_is_named(self, model, reason):
        assert any(reason in each for each in missing(model))

    def test_a_weight_in_two_roles_of_one_layer(self):
        lstm = nn.LSTM(3, 3, batch_first=True)
        lstm.weight_hh_l0 = lstm.weight_ih_l0
        assert "two roles" in missing(lstm)[0]

    def test_an_embedding_and_its_head(self):
        model = shared(nn.Embedding(5, 3), nn.Linear(3, 5))
        rules, lacking = rules_for(model, trainable(model))
        assert lacking == []
        assert [type(rule) for rule in rules] == [TiedRule]

    def test_three_layers_with_one_weight_are_too_many(self):
        model = shared(nn.Embedding(5, 3), nn.Linear(3, 5))
        model.append(nn.Embedding(5, 3, padding_idx=0))
        model[2].weight = model[0].weight
        assert "shared" in missing(model)[0]
