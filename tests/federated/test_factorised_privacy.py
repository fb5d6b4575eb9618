import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from trustnlp.dp import accounting
from trustnlp.dp.accounting import Event
from trustnlp.errors import GuaranteeError
from trustnlp.federated.factorised_privacy import FactorisedPrivacy
from trustnlp.federated.matrix_factorisation import Factorisation, independent
from trustnlp.randomness import Streams

STREAMS = Streams(3)


def plan(**fields) -> FactorisedPrivacy:
    factor = fields.pop("factorisation", Factorisation(20, (1.0, 0.5, 0.3)))
    given = {"devices": 100, "separation": 5, "participations": 4, "cohort": 10.0, "noise_multiplier": 2.0}
    return FactorisedPrivacy(**{**given, "factorisation": factor, "delta": 1e-4, **fields})


def test_it_is_one_gaussian_release():
    found = plan().epsilon()
    assert found == accounting.epsilon([Event(1.0, 2.0)], 1e-4)


def test_independent_noise_costs_what_composition_says():
    # k participations at noise multiplier s are one at s / sqrt(k): the oracle is the accountant's composition.
    private = plan(factorisation=independent(20), separation=5, participations=4, noise_multiplier=1.5)
    per_round = 1.5 * private.sensitivity()
    assert private.epsilon() == pytest.approx(accounting.epsilon([Event(1.0, per_round, 4)], 1e-4), rel=1e-3)


def test_releases_are_sums_with_noise_of_the_sensitivity():
    private = plan(clip_norm=3.0)
    run = private.begin(STREAMS)
    found = torch.stack([run.release(torch.full((4000,), 7.0), [t, t + 50]) for t in range(20)])
    noise = found.numpy() * 10 - 7
    fresh = private.factorisation.dense() @ noise
    assert fresh.std() == pytest.approx(2.0 * 3.0 * private.sensitivity(), rel=0.01)
    assert noise.mean() == pytest.approx(0, abs=0.2)


def test_a_budget_is_used_up_with_least_error():
    private = FactorisedPrivacy.for_budget(3.0, 1e-4, 60, devices=100, cohort=10, separation=12)
    assert (private.participations, private.factorisation.bands) == (5, 12)
    assert 0.99 * 3 <= private.epsilon() <= 3
    fresh = FactorisedPrivacy.for_budget(3.0, 1e-4, 60, devices=100, cohort=10, separation=12, bands=1)
    assert private.error() < 0.6 * fresh.error()


def test_a_schedule_that_breaks_the_plan_is_refused_before_anything_is_released():
    run = plan().begin(STREAMS)
    run.release(torch.zeros(3), [1, 2])
    with pytest.raises(GuaranteeError, match="took part less than 5 rounds ago"):
        run.release(torch.zeros(3), [2, 3])
    assert run.available().sum() == 98
    run.release(torch.zeros(3), np.flatnonzero(run.available())[:5])


def test_stopped_and_restored_it_goes_on_with_the_same_bits_and_rules():
    whole, first, second = (plan().begin(STREAMS) for _ in range(3))
    expected = [whole.release(torch.ones(5), [t]) for t in range(8)]
    begun = [first.release(torch.ones(5), [t]) for t in range(3)]
    second.restore(first.state())
    with pytest.raises(GuaranteeError, match="rounds ago"):
        second.release(torch.ones(5), [2])
    assert all(map(torch.equal, begun + [second.release(torch.ones(5), [t]) for t in range(3, 8)], expected))


def test_broken_sums_are_refused():
    with pytest.raises(GuaranteeError, match="bound every update"):
        plan().begin(STREAMS).release(torch.tensor([math.inf]), [0])


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("adjacency", "add-remove", "may choose others"),
        ("adjacency", "replace", "twice the clip norm"),
        ("weights", "samples", "number of texts"),
        ("denominator", "realised-cohort", "is private"),
        ("aggregation", "buffered", "asynchronous"),
        ("device_state", "released", "SCAFFOLD"),
        ("metrics", "exact", "nothing would noise"),
        ("noise", "none", "nothing is guaranteed"),
        ("clip_norm", None, "without a clip norm"),
        ("noise_multiplier", 0.01, "protects nobody"),
        ("separation", 2, "3 bands"),
    ],
)
def test_unsound_combinations_are_refused(field, value, reason):
    with pytest.raises(GuaranteeError, match=reason):
        replace(plan(), **{field: value})


def test_the_statement_names_schedule_and_error():
    statement = plan().statement()
    text = str(statement)
    for words in ("replacing its updates by zeros", "any 5 consecutive rounds", "at most 4 times", "fresh noise"):
        assert words in text
    found = json.loads(json.dumps(statement.as_dict()))
    assert found["error"] == plan().error()
    assert found["adjacency"] == "zero-out"


def test_bounded_as_in_user_privacy():
    assert float(plan(clip_norm=0.5).bound(torch.ones(9)).norm()) == pytest.approx(0.5)
