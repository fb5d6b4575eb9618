from dataclasses import replace

import numpy as np
import pytest
import torch
from small_text import Tagger, Texts, flat, trainable

from trustnlp.dp import ByUser, FlatClipping, PrivacyPlan
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.randomness import Streams

STREAMS = Streams(5)
TEXTS = Texts.random(12)
USERS = ["ann", "bob", "ann", "cid", "ann", "bob", "dan", "eve", "ann", "eve", "fay", "gus"]
PLAN = PrivacyPlan(7, 3, 4, 1.0, 1e-3, clipping=FlatClipping(0.5), unit="user")


class Silent:
    """In the place of an engine's noise: keeps what comes, and divides."""

    def release_(self, sums, block, stds, divisor):
        self.sums = {name: tensor.clone() for name, tensor in sums.items()}
        for tensor in sums.values():
            tensor.div_(divisor)


def released(plan, data, draw, model):
    """The clipped sum of a draw, out of the real engine."""
    step = plan.step(model, torch.optim.SGD(model.parameters(), 0.1), streams=STREAMS)
    step._noise = Silent()
    loss = step(data, draw)
    return flat(step._noise.sums), loss


class TestByUser:
    data = ByUser(TEXTS, USERS)

    def test_items_are_users_in_order_of_appearance_with_all_their_examples(self):
        assert len(self.data) == 7
        assert self.data.rows(0).tolist() == [0, 2, 4, 8]
        assert self.data.rows(6).tolist() == [11]
        assert sorted(np.concatenate([self.data.rows(user) for user in range(7)])) == list(range(12))

    def test_a_batch_has_all_examples_of_its_users(self):
        batch = self.data.batch([1, 3])
        assert torch.equal(batch.inputs["ids"], TEXTS.batch([1, 5, 6]).inputs["ids"])

    def test_a_unit_is_a_users_mean(self):
        units = self.data.units([0, 2], STREAMS, 0)
        assert [unit.rows.tolist() for unit in units] == [[0, 2, 4, 8], [3]]
        assert [unit.weight for unit in units] == [1 / 4, 1]

    def test_who_has_more_than_the_cap_gets_fresh_rows_each_step_all_alike_in_the_long_run(self):
        data = ByUser(TEXTS, USERS, most_rows=2)
        counts = np.zeros(12)
        for step in range(600):
            ann, bob = data.units([0, 1], STREAMS, step)
            assert len(set(ann.rows)) == 2
            assert ann.weight == 1 / 2
            assert bob.rows.tolist() == [1, 5]
            counts[ann.rows] += 1
        assert counts[[0, 2, 4, 8]].sum() == 1200
        assert abs(counts[[0, 2, 4, 8]] - 300).max() < 5 * np.sqrt(600 / 4)

    def test_rows_of_one_user_do_not_depend_on_who_else_was_drawn(self):
        data = ByUser(TEXTS, USERS, most_rows=1)
        alone, among = data.units([5], STREAMS, 3)[0], data.units([0, 1, 5], STREAMS, 3)[2]
        assert alone.rows.tolist() == among.rows.tolist()

    @pytest.mark.parametrize(
        ("users", "most_rows", "reason"), [(USERS[1:], None, "one length"), (USERS, 0, "most_rows")]
    )
    def test_bad_arguments_are_refused(self, users, most_rows, reason):
        with pytest.raises(ArgumentError, match=reason):
            ByUser(TEXTS, users, most_rows)


class TestUserLevelSteps:
    def test_a_users_mean_gradient_is_clipped_as_one(self):
        model, data, draw = Tagger(), ByUser(TEXTS, USERS), PLAN.sampler(STREAMS).draw(0)
        expected = 0
        for user in draw.indices:
            rows = [row for row, name in enumerate(USERS) if name == list(dict.fromkeys(USERS))[user]]
            loss = sum(model.loss(TEXTS.batch([row]))[0] for row in rows) / len(rows)
            gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, trainable(model).values())])
            expected = expected + gradient * min(1, 0.5 / float(gradient.norm()))
        found, loss = released(PLAN, data, draw, model)
        assert torch.allclose(found, expected, atol=1e-12)
        assert np.isfinite(loss)

    def test_all_of_a_users_texts_move_the_sum_by_at_most_the_clip_norm(self):
        texts = Texts.random(40)
        many = ["heavy"] * 34 + [f"u{i}" for i in range(6)]
        plan = replace(PLAN, expected_batch=7, clipping=FlatClipping(1e-3))  # everybody, in every step
        whole, _ = released(plan, ByUser(texts, many), plan.sampler(STREAMS).draw(0), Tagger())
        rest = ByUser(Texts(texts.ids[34:], texts.labels[34:]), many[34:])
        plan = replace(plan, examples=6, expected_batch=6)
        others, _ = released(plan, rest, plan.sampler(STREAMS).draw(0), Tagger())
        assert float((whole - others).norm()) == pytest.approx(1e-3, rel=1e-6)

    @pytest.mark.parametrize(
        ("plan", "data", "reason"),
        [
            (PLAN, TEXTS, "protects one user, but the data is not by user"),
            (replace(PLAN, unit="example"), ByUser(TEXTS, USERS), "protects one example, but the data is by user"),
            (PLAN, ByUser(TEXTS, range(12)), "is for 7 users, the data has 12"),
        ],
    )
    def test_data_of_another_unit_is_refused_before_anything_is_spent(self, plan, data, reason):
        model = Tagger()
        step = plan.step(model, torch.optim.SGD(model.parameters(), 0.1), streams=STREAMS)
        with pytest.raises(GuaranteeError, match=reason):
            step(data, plan.sampler(STREAMS).draw(0))
        assert step.ledger.spent == 0

    def test_examples_that_mix_are_found_within_users_too(self):
        class Leaking(Tagger):
            def mix(self, pooled):
                return pooled - pooled.mean(0)

        with pytest.raises(GuaranteeError, match="other examples"):
            released(PLAN, ByUser(TEXTS, USERS), PLAN.sampler(STREAMS).draw(0), Leaking())
