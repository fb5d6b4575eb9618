import copy

import pytest
import torch
from small_text import Tagger, Texts
from torch import nn

from trustnlp.dp import validation
from trustnlp.errors import ArgumentError, GuaranteeError

TEXTS = Texts.random(6)


def probe(model, texts=TEXTS, loss=None):
    validation.check_independence(model, loss or model.loss, texts, seed=0)


class TestTrainableParameters:
    def test_frozen_ones_are_left_out(self):
        model = Tagger()
        model.embedding.requires_grad_(False)
        names = list(validation.trainable_parameters(model))
        assert "embedding.weight" not in names
        assert "head.bias" in names

    def test_none_is_refused(self):
        with pytest.raises(GuaranteeError, match="no trainable"):
            validation.trainable_parameters(Tagger().requires_grad_(False))

    def test_parameters_without_shape_are_refused(self):
        with pytest.raises(GuaranteeError, match="without a shape"):
            validation.trainable_parameters(nn.LazyLinear(3))

    @pytest.mark.parametrize("dtype", [torch.complex64, torch.float8_e4m3fn])
    def test_quantised_and_complex_ones_are_refused(self, dtype):
        model = nn.Module()
        model.weight = nn.Parameter(torch.zeros(3).to(dtype))
        with pytest.raises(GuaranteeError, match=r"weight.*; freeze them"):
            validation.trainable_parameters(model)

    def test_a_frozen_quantised_base_is_left_alone(self):
        model = Tagger()
        model.base = nn.Parameter(torch.zeros(3, dtype=torch.int8), requires_grad=False)
        assert "base" not in validation.trainable_parameters(model)


class TestRefuseUnsoundForms:
    @pytest.mark.parametrize("wrap", [lambda m: m, nn.Sequential])
    def test_wrappers_that_add_up_unclipped_gradients(self, wrap):
        with pytest.raises(GuaranteeError, match=r"DataParallel adds up.*; give the model inside"):
            validation.refuse_unsound_forms(wrap(nn.DataParallel(nn.Linear(2, 2))))

    def test_merged_adapters(self):
        peft = pytest.importorskip("peft")
        model = peft.get_peft_model(nn.Sequential(nn.Linear(3, 2)), peft.LoraConfig(r=1, target_modules=["0"]))
        validation.refuse_unsound_forms(model)
        model.merge_adapter()
        with pytest.raises(GuaranteeError, match=r"merged into its weights.*unmerge"):
            validation.refuse_unsound_forms(model)
        model.unmerge_adapter()
        validation.refuse_unsound_forms(model)


class TestRefuseGradients:
    def test_what_another_backward_has_left(self):
        model = Tagger()
        validation.refuse_gradients(validation.trainable_parameters(model))
        model.head(torch.ones(1, 4).double()).sum().backward()
        with pytest.raises(GuaranteeError, match=r"left gradients \(head.weight, head.bias\)"):
            validation.refuse_gradients(validation.trainable_parameters(model))


class TestRefuseMixingLayers:
    @pytest.mark.parametrize(
        "layer",
        [
            nn.BatchNorm1d(3),
            nn.BatchNorm2d(3),
            nn.SyncBatchNorm(3),
            nn.LazyBatchNorm1d(),
            nn.InstanceNorm1d(3, track_running_stats=True),
        ],
    )
    def test_the_layer_and_its_replacement_are_named(self, layer):
        with pytest.raises(GuaranteeError, match=f"'1.0' \\({type(layer).__name__}\\).*; (replace|set)"):
            validation.refuse_mixing_layers(nn.Sequential(nn.Linear(2, 3), nn.Sequential(layer)))

    def test_layers_of_one_example_pass(self):
        validation.refuse_mixing_layers(
            nn.Sequential(nn.LayerNorm(3), nn.GroupNorm(1, 3), nn.InstanceNorm1d(3), nn.LSTM(3, 3))
        )


class TestCheckOptimizer:
    model = Tagger()
    parameters = validation.trainable_parameters(model)

    def test_exactly_the_parameters_pass(self):
        validation.check_optimizer(torch.optim.SGD(self.model.parameters(), 0.1), self.parameters)

    @pytest.mark.parametrize("optimizer", [torch.optim.LBFGS, torch.optim.SparseAdam])
    def test_optimizers_that_want_other_gradients_are_refused(self, optimizer):
        with pytest.raises(GuaranteeError, match="one dense noisy gradient"):
            validation.check_optimizer(optimizer(list(self.model.parameters())), self.parameters)

    def test_missing_ones_are_refused(self):
        with pytest.raises(GuaranteeError, match=r"lacks .*head.weight"):
            validation.check_optimizer(torch.optim.SGD(self.model.lstm.parameters(), 0.1), self.parameters)

    def test_foreign_ones_are_refused(self):
        foreign = [*self.model.parameters(), nn.Parameter(torch.zeros(1))]
        with pytest.raises(GuaranteeError, match="holds 1 parameters"):
            validation.check_optimizer(torch.optim.SGD(foreign, 0.1), self.parameters)


class MeanOverBatch(Tagger):
    def mix(self, pooled):
        return pooled - 0.1 * pooled.mean(0)


class OnlyInTraining(Tagger):
    def mix(self, pooled):
        return pooled - 0.1 * pooled.mean(0) if self.training else pooled


class Detached(Tagger):
    def mix(self, pooled):
        return pooled + 0.1 * pooled.detach().amax(0)


class Attention(Tagger):
    """A transposed batch: attention over examples where it should be over words."""

    def mix(self, pooled):
        return torch.softmax(pooled @ pooled.T, -1) @ pooled


class HiddenByZeroHead(OnlyInTraining):
    """The losses do not show the leak yet, the gradients do."""

    def __init__(self):
        super().__init__()
        nn.init.zeros_(self.head.weight)


class Counting(Tagger):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(4, dtype=torch.float64))

    def mix(self, pooled):
        self.mean += pooled.detach().sum(0)
        return pooled


class TestCheckIndependence:
    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize("dropout", [0.0, 0.5])
    def test_an_honest_model_passes_and_is_left_as_it_was(self, training, dropout):
        model = Tagger(dropout=dropout).train(training)
        before, state = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
        probe(model)
        assert (model.training, model.dropout.p) == (training, dropout)
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
        assert torch.equal(torch.random.get_rng_state(), state)
        assert all(parameter.grad is None for parameter in model.parameters())

    def test_an_honest_model_in_single_precision_passes(self):
        probe(Tagger().float().train())

    @pytest.mark.parametrize("leaking", [MeanOverBatch, OnlyInTraining, Detached, Attention, HiddenByZeroHead])
    def test_planted_leaks_between_examples_are_found(self, leaking):
        with pytest.raises(GuaranteeError, match="other examples of its batch"):
            probe(leaking().train())

    def test_losses_averaged_over_the_batch_are_found(self):
        model = Tagger()
        with pytest.raises(GuaranteeError, match="their number"):
            probe(model, loss=lambda batch: model.loss(batch) / len(batch))

    def test_losses_that_depend_on_padding_are_found(self):
        model = Tagger()
        with pytest.raises(GuaranteeError, match="padding"):
            probe(model, loss=lambda batch: model.loss(batch) / batch.inputs["ids"].shape[1])

    def test_running_statistics_are_found(self):
        with pytest.raises(GuaranteeError, match=r"buffers \(mean\)"):
            probe(Counting())

    @pytest.mark.parametrize("reduce", [torch.mean, torch.sum, lambda losses: losses[:, None]])
    def test_a_loss_that_is_not_one_per_example_is_refused(self, reduce):
        model = Tagger()
        with pytest.raises(ArgumentError, match="one figure per example"):
            probe(model, loss=lambda batch: reduce(model.loss(batch)))

    def test_a_loss_that_reaches_no_parameter_is_refused(self):
        model = Tagger()
        with pytest.raises(GuaranteeError, match="reaches no trainable"):
            probe(model, loss=lambda batch: model.loss(batch).detach())

    def test_one_example_alone_has_no_neighbours(self):
        probe(Tagger(), Texts.random(1))


class TestCheckMoved:
    def test_standing_still_is_refused(self):
        model = Tagger()
        parameters = list(model.parameters())
        before = [parameter.detach().clone() for parameter in parameters]
        with pytest.raises(GuaranteeError, match="no parameter moved"):
            validation.check_moved(before, parameters)
        model.head.bias.data += 1
        validation.check_moved(before, parameters)


class TestFingerprint:
    def test_writing_and_replacing_change_it(self):
        one, other = torch.zeros(2), torch.zeros(2)
        before = validation.fingerprint([one])
        assert validation.fingerprint([one]) == before
        assert validation.fingerprint([other]) != before
        one.add_(1)
        assert validation.fingerprint([one]) != before
