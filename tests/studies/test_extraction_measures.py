import numpy as np
import pytest

from trustnlp.results import Verdict
from trustnlp.studies.extraction_measures import Attacked, findings, judge

N = 20


def one(right: int, rank: int, **more: float) -> Attacked:
    fields = {"accuracy": 0.9, "slot_f1": 0.8, "epochs": 7}
    return Attacked(length=4, alphabet=10, right=right, rank=rank, candidates=10_000, **(fields | more))


def by_chance(generator: np.random.Generator, n: int = N) -> list[Attacked]:
    """Models that have learned nothing: ranks are uniform, tokens right with probability 1/10."""
    ranks, right = generator.integers(1, 10_001, n), generator.binomial(4, 0.1, n)
    return [one(int(k), int(rank)) for k, rank in zip(right, ranks, strict=True)]


def test_what_a_job_returns_is_read_back() -> None:
    attacked = one(3, 17)
    assert Attacked.of(attacked.arrays()) == attacked
    assert all(value.dtype != object for value in attacked.arrays().values())


def test_the_secret_itself_is_nowhere() -> None:
    assert set(one(4, 1).arrays()) == set(vars(one(4, 1)))
    assert "secret" not in vars(one(4, 1))


def test_models_that_know_nothing_are_rarely_accused_and_mostly_acquitted() -> None:
    generator = np.random.default_rng(0)
    said = [judge(by_chance(generator))[0] for _ in range(1000)]
    assert said.count(Verdict.LEAKS) <= 50 + 3 * np.sqrt(1000 * 0.05 * 0.95)
    assert said.count(Verdict.NO_LEAK_FOUND) >= 900


def test_few_codes_acquit_nobody() -> None:
    assert judge(by_chance(np.random.default_rng(1), 8))[0] is Verdict.INSUFFICIENT_EVIDENCE


@pytest.mark.parametrize(
    ("attacked", "why"),
    [
        ([one(4, 1)] * N, "exact_p_value"),
        ([one(4, 5000)] + [one(0, 5000)] * 19, "exact_p_value"),  # one secret by inversion, which ranks do not show
        ([one(2, 5000)] * N, "tokens_p_value"),
        ([one(0, 300)] * N, "ranks_p_value"),
    ],
)
def test_any_of_the_three_figures_tells_of_a_leak(attacked: list[Attacked], why: str) -> None:
    said, evidence = judge(attacked)
    assert said is Verdict.LEAKS
    assert evidence[why] == min(evidence[name] for name in evidence if name != "p_value") <= 0.05 / 3


def test_the_figures_of_a_cell() -> None:
    attacked = [one(4, 1, accuracy=0.7)] * 15 + [one(1, 4000, slot_f1=0.2)] * 5
    found = {finding.id: finding for finding in findings(attacked, {"epsilon": 8.0})}
    exact = found["inversion-exact-match"]
    assert exact.value == 0.75
    assert (exact.low, exact.high) == pytest.approx((0.5090, 0.9134), abs=1e-4)  # Clopper-Pearson of 15 of 20
    assert exact.details["ranks"] == [1] * 15 + [4000] * 5
    assert exact.details["epochs"] == [7] * N
    assert exact.details["epsilon"] == 8.0
    assert found["inversion-hamming"].value == pytest.approx(15 / 80)
    assert found["canary-rank"].value == 1 / 10_000
    assert found["canary-exposure"].value == pytest.approx((15 * np.log2(10_000) + 5 * np.log2(2.5)) / 20)
    assert (found["label-accuracy"].value, found["slot-f1"].value) == (0.7, 0.8)
    assert [f.verdict for f in found.values()][1:] == [Verdict.MEASURED] * 5
