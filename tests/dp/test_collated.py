import re
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_text import flat
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from trustnlp.dp import Ledger, PrivacyPlan, per_unit_clipped_sum
from trustnlp.dp.clipping import Clip, examples
from trustnlp.dp.collated import Collated, DrawnBatch, on_values, probed, secret_streams
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.models.protocol import Batch
from trustnlp.randomness import Streams

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(30, 4, generator=GENERATOR, dtype=torch.float64)
Y = torch.randint(0, 3, (30,), generator=GENERATOR)
PLAN = PrivacyPlan(examples=30, expected_batch=6, steps=12, noise_multiplier=1.0, delta=1e-3)
Pair = namedtuple("Pair", "x y")


def linear():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def of_dictionaries(model):
    return lambda batch: F.cross_entropy(model(batch["in"]["x"]), batch["y"], reduction="none")


def of_pairs(model):
    def loss(batch):
        x, y = batch
        return F.cross_entropy(model(x), y, reduction="none")

    return loss


def of_tensors(model):
    return lambda x: model(x).square().sum(1)


FORMS = {
    "dictionaries": ([{"in": {"x": x}, "y": int(y)} for x, y in zip(X, Y, strict=True)], of_dictionaries),
    "tuples": (list(zip(X, Y.tolist(), strict=True)), of_pairs),
    "named tuples": ([Pair(x, y) for x, y in zip(X, Y, strict=True)], of_pairs),
    "a dataset": (TensorDataset(X, Y), of_pairs),
    "one tensor": (X, of_tensors),
}


def trained(dataset, form, seed=0, **options):
    model = linear()
    step = PLAN.step(model, torch.optim.SGD(model.parameters(), 0.5), loss=form(model), streams=Streams(seed))
    losses = [step(batch) for batch in PLAN.batches(dataset, streams=Streams(seed), **options)]
    return nn.utils.parameters_to_vector(model.parameters()).detach(), losses, step


class TestLoop:
    @pytest.mark.parametrize("form", FORMS)
    def test_any_form_of_batches_trains_to_the_end_of_the_plan(self, form):
        weights, losses, step = trained(*FORMS[form])
        assert step.ledger.spent_epsilon() == PLAN.epsilon()
        assert len(losses) == 12
        assert step._clipped_sum.fallback == ""
        assert torch.equal(weights, trained(*FORMS[form])[0])
        assert not torch.allclose(weights, trained(*FORMS[form], seed=1)[0])

    def test_forms_with_the_same_content_give_the_same_bits(self):
        found = [trained(*FORMS[form])[0] for form in ("dictionaries", "tuples", "named tuples", "a dataset")]
        assert all(torch.equal(found[0], other) for other in found[1:])

    def test_a_collate_function_pads_texts_of_unlike_lengths(self):
        rows = [torch.arange(1, 2 + i % 4, dtype=torch.float64) for i in range(30)]
        seen = []

        def collate(part):
            seen.append(len(part))
            return nn.utils.rnn.pad_sequence(part, batch_first=True)

        model = nn.Linear(1, 2).double()
        step = PLAN.step(
            model,
            torch.optim.SGD(model.parameters(), 0.5),
            loss=lambda batch: (model(batch[:, :, None]) * (batch > 0)[:, :, None]).sum((1, 2)),
        )
        for batch in PLAN.batches(rows, collate=collate):
            step(batch)
        assert 0 not in seen  # an empty draw is a step, but nothing to collate
        assert step.ledger.spent == 12

    def test_seeds_are_secret_where_none_is_given(self):
        def draws():
            return [batch.draw.indices.tolist() for batch in PLAN.batches(X)]

        assert draws() != draws()
        assert secret_streams().seed.bit_length() > 64
        models = [linear(), linear()]
        for model in models:
            step = PLAN.step(model, torch.optim.SGD(model.parameters(), 0.5), loss=of_tensors(model))
            step(next(PLAN.batches(X, streams=Streams(0))))
        assert not torch.allclose(models[0][0].weight, models[1][0].weight)

    def test_a_run_goes_on_at_the_ledgers_count(self, tmp_path):
        model = linear()
        optimizer = torch.optim.SGD(model.parameters(), 0.5)
        first = PLAN.step(model, optimizer, loss=of_tensors(model), ledger=Ledger.open(tmp_path / "l", PLAN))
        for batch, _ in zip(PLAN.batches(X), range(5), strict=False):
            first(batch)
        ledger = Ledger.open(tmp_path / "l", PLAN)
        step = PLAN.step(model, optimizer, loss=of_tensors(model), ledger=ledger)
        with pytest.raises(GuaranteeError, match="5 is next"):
            step(next(PLAN.batches(X)))
        for batch in PLAN.batches(X, start=ledger.spent):
            step(batch)
        assert Ledger.read(tmp_path / "l").spent_epsilon() == PLAN.epsilon()

    def test_users_are_drawn_and_clipped_as_one(self):
        users = [number // 3 for number in range(30)]
        plan = replace(PLAN, examples=10, expected_batch=2, unit="user")
        model = linear()
        step = plan.step(model, torch.optim.SGD(model.parameters(), 0.5), loss=of_tensors(model))
        for batch in plan.batches(X, users=users):
            step(batch)
        assert step.ledger.spent_epsilon() == plan.epsilon()
        other = plan.step(model, torch.optim.SGD(model.parameters(), 0.5), loss=of_tensors(model))
        with pytest.raises(GuaranteeError, match="not by user"):
            other(next(plan.batches(X[:10])))

    def test_other_data_draws_and_losses_are_refused(self):
        model = linear()
        optimizer = torch.optim.SGD(model.parameters(), 0.5)
        step = PLAN.step(model, optimizer, loss=of_tensors(model))
        with pytest.raises(GuaranteeError, match="30 examples, the data has 29"):
            step(next(PLAN.batches(X[:29])))
        with pytest.raises(ArgumentError, match=r"plan\.batches"):
            step(Collated(X))
        with pytest.raises(ArgumentError, match="one figure per example"):
            PLAN.step(model, optimizer, loss=lambda x: model(x).mean())(next(PLAN.batches(X)))
        with pytest.raises(GuaranteeError, match="loss changes with the other examples"):
            PLAN.step(model, optimizer, loss=lambda x: model(x).sum(1) / len(x))(next(PLAN.batches(X)))
        assert step.ledger.spent == 0


class TestCollated:
    def test_the_private_step_sees_the_same_sum_as_one_made_by_hand(self):
        model, loss = linear(), None
        parameters = dict(model.named_parameters())
        clip = Clip(PLAN.clipping, dict.fromkeys(parameters, 0), torch.tensor([0.7]))
        dataset, form = FORMS["dictionaries"]
        loss, rows = on_values(form(model)), examples([3, 5, 8])
        found = per_unit_clipped_sum(model, loss, Collated(dataset), rows, parameters, clip)
        expected = torch.zeros_like(flat(found.gradients))
        for row in (3, 5, 8):
            own = F.cross_entropy(model(X[row : row + 1]), Y[row : row + 1])
            g = torch.cat([part.flatten() for part in torch.autograd.grad(own, list(parameters.values()))])
            expected += g * min(1.0, 0.7 / float(g.norm()))
        assert torch.allclose(flat(found.gradients), expected, atol=1e-12)

    def test_a_batch_keeps_its_form_on_the_way_to_a_device(self):
        batch = Collated(FORMS["dictionaries"][0]).batch(np.array([2, 4]))
        assert len(batch) == 2
        assert set(batch.inputs) == {"in.x", "y"}
        value = batch.to("cpu").value
        assert torch.equal(value["in"]["x"], X[[2, 4]])
        assert torch.equal(value["y"], Y[[2, 4]])
        assert isinstance(Collated(FORMS["named tuples"][0]).batch([1]).value, Pair)

    def test_losses_are_given_other_batches_as_they_are(self):
        batch = Batch({"x": X[:2]}, {})
        assert on_values(lambda given: given)(batch) is batch

    def test_examples_are_fetched_together_where_the_dataset_can(self):
        class Fetching:
            def __len__(self):
                return 5

            def __getitem__(self, index):
                raise AssertionError

            def __getitems__(self, numbers):
                return [torch.tensor([float(n)]) for n in numbers]

        assert Collated(Fetching()).batch([4, 1]).value.tolist() == [[4.0], [1.0]]

    def test_streams_of_examples_are_refused(self):
        with pytest.raises(GuaranteeError, match="map-style dataset or a list"):
            Collated(iter(X))

    @pytest.mark.parametrize(
        "collate",
        [lambda rows: torch.cat(rows), lambda rows: {"n": torch.tensor(1.0)}, lambda rows: ["text"] * len(rows)],
    )
    def test_batches_without_a_row_for_each_example_are_refused(self, collate):
        with pytest.raises(ArgumentError, match="'collate' must be a list of examples -> tensors"):
            Collated(X, collate).batch([0, 1])

    def test_random_collation_is_probed_on_one_batch(self):
        def masked(rows):
            rows = torch.stack(rows)
            return rows * (torch.rand(rows.shape) < 0.7)

        data = Collated(X, masked)
        frozen = probed(data)
        assert torch.equal(frozen.batch([3]).value, frozen.batch([1, 3]).value[1:])
        assert not torch.equal(data.batch([3, 4, 5]).value, data.batch([3, 4, 5]).value)
        assert probed(Collated(X)) == Collated(X)
        assert trained(X, of_tensors, collate=masked)[2].ledger.spent == 12

    def test_a_leak_between_examples_is_found_under_random_collation_too(self):
        model = linear()
        step = PLAN.step(
            model,
            torch.optim.SGD(model.parameters(), 0.5),
            loss=lambda x: (model(x) - model(x).mean(0)).square().sum(1),
        )
        batches = PLAN.batches(X, collate=lambda rows: torch.stack(rows) * (torch.rand(len(rows), 4) < 0.7))
        with pytest.raises(GuaranteeError, match="other examples"):
            step(next(batches))

    def test_a_drawn_batch_knows_its_size(self):
        batch = next(PLAN.batches(X, streams=Streams(3)))
        assert isinstance(batch, DrawnBatch)
        assert len(batch) == len(batch.draw.indices)


def test_the_how_to_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs/how-to/private-pytorch-loop.md").read_text()
    (script,) = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    found = {}
    exec(compile(script, "the how-to", "exec"), found)  # noqa: S102
    assert "Guarantee: (7.9" in capsys.readouterr().out
    assert found["step"]._clipped_sum.fallback == ""
    assert Ledger.read("ledger.jsonl").spent == found["plan"].steps
