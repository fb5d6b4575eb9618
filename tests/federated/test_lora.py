"""What becomes of the mean product, against dense matrices in float64."""

from typing import Any

import numpy as np
import pytest
import torch
from adapted import Linear, adapted, gradient
from convex import problem
from simulated import train
from torch import nn

from trustnlp.errors import ArgumentError, ModelError
from trustnlp.federated.fedavg import FedAvg
from trustnlp.federated.local_training import LocalTraining
from trustnlp.federated.lora import AGGREGATION_ERROR, AveragedLora, FrozenLora, Lora, MergedLora, ProjectedLora
from trustnlp.federated.low_rank import Factors, adapt, fresh
from trustnlp.federated.simulator import History
from trustnlp.randomness import Streams

SIZES = [4, 6]
PROBLEM = problem(SIZES, spread=2.0)
SHARES = [0.4, 0.6]
LOCAL = LocalTraining(0.1, 8, epochs=3)
SCALE = 1.5


def factors_of(model: Linear) -> tuple[np.ndarray, np.ndarray]:
    return model.layer.a.detach().numpy().copy(), model.layer.b.detach().numpy().copy()


def local_steps(
    w: np.ndarray, a: np.ndarray, b: np.ndarray, device: int, frozen: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Three steps of descent along both factors, by the chain rule from the gradient of the dense matrix."""
    own = PROBLEM.population.devices[device]
    for _ in range(3):
        g = SCALE * gradient(PROBLEM.rows.x[own], PROBLEM.rows.y[own], w + SCALE * b @ a)
        a, b = a if frozen else a - 0.1 * b.T @ g, b - 0.1 * g @ a.T
    return a, b


def one_round(kind: type[Lora], model: Linear, rounds: int = 1, **more: Any) -> History:
    algorithm = kind.of(model, rounds, 2, local=LOCAL, **more)
    return train(PROBLEM, model, algorithm)


def by_hand(model: Linear, frozen: bool = False) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """The dense weight, each device's factors, and the mean of their products."""
    w, (a, b) = model.layer.base.weight.detach().numpy().copy(), factors_of(model)
    ends = [local_steps(w, a, b, device, frozen) for device in range(2)]
    return w, ends, SCALE * sum(share * own_b @ own_a for share, (own_a, own_b) in zip(SHARES, ends, strict=True))


def test_averaged_factors_miss_the_mean_product_by_what_is_told() -> None:
    model = adapted(2, alpha=2 * SCALE)
    _, ends, mean_product = by_hand(model)
    mean_a, mean_b = (sum(share * end[i] for share, end in zip(SHARES, ends, strict=True)) for i in range(2))
    history = one_round(AveragedLora, model)
    found = factors_of(model)
    np.testing.assert_allclose(found[0], mean_a, rtol=1e-9)
    np.testing.assert_allclose(found[1], mean_b, rtol=1e-9)
    error = np.linalg.norm(mean_product - SCALE * mean_b @ mean_a) / np.linalg.norm(mean_product)
    assert error > 1e-3
    assert history.rounds[0].told[AGGREGATION_ERROR] == pytest.approx(error, rel=1e-9)


def test_a_frozen_a_makes_the_mean_exact() -> None:
    model = adapted(2, alpha=2 * SCALE)
    before = factors_of(model)
    _, _, mean_product = by_hand(model, frozen=True)
    one_round(FrozenLora, model)
    a, b = factors_of(model)
    np.testing.assert_array_equal(a, before[0])
    np.testing.assert_allclose(SCALE * b @ a, mean_product, rtol=1e-9)


def test_with_an_orthonormal_a_of_full_rank_frozen_training_is_fedavg_of_the_whole_matrix() -> None:
    model, dense = adapted(3, b=False), Linear()
    with torch.no_grad():
        model.layer.a.copy_(torch.linalg.qr(model.layer.a)[0])
    one_round(FrozenLora, model, rounds=5)
    train(PROBLEM, dense, FedAvg(5, 2, LOCAL))
    a, b = factors_of(model)
    np.testing.assert_allclose(model.layer.base.weight.detach().numpy() + b @ a, dense.layer.weight.detach(), rtol=1e-9)


def test_a_merged_product_is_exact_and_adapters_begin_anew() -> None:
    """Two rounds: in the first B is not zero, so that the server's own product has to join, too."""
    model = adapted(2, alpha=2 * SCALE)
    w, _, mean_product = by_hand(model)
    w = w + mean_product
    a = fresh(2, 3, Streams(5).torch("adapters", 0, 0)).numpy()
    ends = [local_steps(w, a, np.zeros((3, 2)), device) for device in range(2)]
    w = w + SCALE * sum(share * own_b @ own_a for share, (own_a, own_b) in zip(SHARES, ends, strict=True))
    one_round(MergedLora, model, rounds=2, seed=5)
    np.testing.assert_allclose(model.layer.base.weight.detach(), w, rtol=1e-9)
    again, b = factors_of(model)
    np.testing.assert_array_equal(again, fresh(2, 3, Streams(5).torch("adapters", 1, 0)).numpy())
    assert not b.any()


def test_the_change_that_is_merged_is_all_that_a_device_sends() -> None:
    """So its length, by which it is screened and clipped, is that of what it does to the model."""
    model = adapted(2, alpha=2 * SCALE, b=False)
    w = model.layer.base.weight.detach().numpy()
    ends = [local_steps(w, *factors_of(model), device) for device in range(2)]
    lengths = []

    class Watched(MergedLora):
        def finish(self, visit: Any) -> dict[str, torch.Tensor]:
            sent = super().finish(visit)
            lengths.append(float(sent["change"].norm()))
            return sent

    one_round(Watched, model)
    assert lengths == pytest.approx([SCALE * np.linalg.norm(b @ a) for a, b in ends])


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_projected_product_is_the_nearest_of_its_rank(rank: int) -> None:
    model = adapted(rank, alpha=rank * SCALE)
    _, _, mean_product = by_hand(model)
    history = one_round(ProjectedLora, model)
    left, values, right = np.linalg.svd(mean_product)
    nearest = left[:, :rank] * values[:rank] @ right[:rank]
    a, b = factors_of(model)
    np.testing.assert_allclose(SCALE * b @ a, nearest, atol=1e-9)
    np.testing.assert_allclose(a @ a.T, np.eye(rank), atol=1e-12)
    expected = np.linalg.norm(values[rank:]) / np.linalg.norm(values)
    assert history.rounds[0].told[AGGREGATION_ERROR] == pytest.approx(expected, rel=1e-7, abs=1e-12)


def test_of_one_device_no_average_errs() -> None:
    model = adapted(2)
    algorithm = AveragedLora.of(model, 1, 1, local=LOCAL)
    history = train(problem([5]), model, algorithm)
    assert history.rounds[0].told[AGGREGATION_ERROR] < 1e-12


@pytest.mark.parametrize("kind", [AveragedLora, FrozenLora, MergedLora, ProjectedLora])
def test_what_is_not_adapted_follows_fedavg(kind: type[Lora]) -> None:
    """A bias that is trained as it is, beside an adapter whose B stays zero as its inputs are zero."""

    class Biased(Linear):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(3, dtype=torch.float64))

        def loss(self, batch: Any) -> torch.Tensor:
            batch.inputs["x"].zero_()
            return (self.layer(batch.inputs["x"]) + self.bias - batch.targets["y"][:, None]).square().sum(1) / 2

    model, plain = Biased(), Biased()
    adapt(model, 1, trained=("bias",), streams=Streams(0))
    train(PROBLEM, model, kind.of(model, 3, 2, local=LOCAL))
    train(PROBLEM, plain, FedAvg(3, 2, LOCAL))
    torch.testing.assert_close(model.bias, plain.bias)
    assert model.bias.abs().min() > 0.01


def test_an_adapted_model_of_peft_gets_the_mean_product_in_its_own_weights() -> None:
    peft = pytest.importorskip("peft")
    model = Linear()
    config = peft.LoraConfig(r=2, lora_alpha=2 * SCALE, target_modules=["layer"], init_lora_weights=False)
    peft.inject_adapter_in_model(config, model)
    layer = model.layer
    for factor in (layer.lora_A, layer.lora_B):
        factor["default"].double()
    a, b = (factor["default"].weight.detach().numpy().copy() for factor in (layer.lora_A, layer.lora_B))
    w = layer.base_layer.weight.detach().numpy().copy()
    ends = [local_steps(w, a, b, device) for device in range(2)]
    expected = w + SCALE * sum(share * own_b @ own_a for share, (own_a, own_b) in zip(SHARES, ends, strict=True))
    one_round(MergedLora, model)
    np.testing.assert_allclose(layer.base_layer.weight.detach(), expected, rtol=1e-9)


def test_another_model_and_a_layer_that_takes_no_product_are_refused() -> None:
    algorithm = AveragedLora(1, 2, factors=Factors.of(adapted(2)))
    with pytest.raises(ArgumentError, match="'factors' must be of the model that is trained, with 6 entries, got 12"):
        train(PROBLEM, adapted(1), algorithm)
    model = adapted(2)
    model.layer.base = nn.Bilinear(3, 1, 3)
    with pytest.raises(ModelError, match="layer adapts a Bilinear, into which no product can be merged"):
        MergedLora.of(model, 1, 2)
