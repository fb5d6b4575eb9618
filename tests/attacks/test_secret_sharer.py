"""Estimates from a sample against the exact exposure, on spaces where all candidates can be scored."""

import itertools
import json
import math

import mpmath
import numpy as np
import pytest
from scipy import stats

from trustnlp.attacks import exposure, secret_sharer
from trustnlp.attacks.secret_sharer import (
    FEWEST,
    Estimate,
    estimate,
    evaluate,
    fit_skew_normal,
    goodness_of_fit,
    log_cdf,
    measure,
)
from trustnlp.data.canaries import Canary
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.results import Verdict
from trustnlp.uncertainty import Interval

SPACE = 10_000


def chain(generator, digits=4, spread=1.0):
    """Losses of all 10 ** digits codes under a random Markov chain of digits, (10 ** digits,), in candidate order."""
    log_p = np.log(generator.dirichlet(np.full(10, 1 / spread), size=(digits, 10)))
    first = np.log(generator.dirichlet(np.full(10, 1 / spread)))
    losses = np.empty((10,) * digits)
    for code in itertools.product(range(10), repeat=digits):
        steps = (log_p[i, code[i - 1], code[i]] for i in range(1, digits))
        losses[code] = -first[code[0]] - sum(steps)
    return losses.reshape(-1)


# --- the skew-normal distribution ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [-20.0, -1.0, 0.0, 0.5, 3.0, 20.0])
def test_the_distribution_function_holds_far_into_both_tails(shape):
    def density(t):
        return 2 * mpmath.npdf(t) * mpmath.ncdf(shape * t)

    for z in (-12.0, -3.0, -0.7, 0.0, 0.4, 5.0):
        near = [z - reach for reach in (40, 10, 3, 1, 0.3, 0.1, 0.03, 0.01, 0)]
        bend = [t for t in (-0.3, -0.1, 0, 0.1, 0.3) if t < z]  # of large shapes
        expected = mpmath.log(mpmath.quad(density, sorted(near + bend)))
        assert float(log_cdf(z, shape)) == pytest.approx(float(expected), rel=1e-8, abs=1e-12)
    grid = np.linspace(-30, 30, 601)
    assert (np.diff(log_cdf(grid, shape)) > -1e-15).all()


@pytest.mark.parametrize("shape", [-4.0, 0.0, 1.5, 6.0])
def test_the_fit_finds_the_parameters_that_were_planted(shape):
    sample = stats.skewnorm.rvs(shape, 20, 3, size=400_000, random_state=1)
    location, scale, found = fit_skew_normal(sample)
    mean, variance, skew = stats.skewnorm.stats(found, location, scale, moments="mvs")
    assert (mean, variance, skew) == pytest.approx((sample.mean(), sample.var(), stats.skew(sample)), abs=1e-9)
    for z in (12.0, 17.0, 20.0):
        exact = stats.skewnorm.logcdf(z, shape, 20, 3)
        if exact > -20:
            assert float(log_cdf((z - location) / scale, found)) == pytest.approx(exact, abs=0.35)
    rows = fit_skew_normal(np.stack([sample[:1000], sample[1000:2000]]))
    np.testing.assert_allclose([row[1] for row in rows], [float(x) for x in fit_skew_normal(sample[1000:2000])])


def test_a_right_shape_is_rejected_as_rarely_as_its_level_says():
    generator = np.random.default_rng(0)
    p_values = [goodness_of_fit(stats.skewnorm.rvs(2, size=150, random_state=i), generator) for i in range(80)]
    assert np.sum(np.array(p_values) <= 0.05) <= 10  # of 80; with 5%, more has a chance of 0.2%


@pytest.mark.parametrize(
    "losses",
    [
        np.append(np.random.default_rng(0).normal(10, 1, 700), np.random.default_rng(1).normal(20, 1, 300)),
        np.random.default_rng(0).standard_cauchy(1000),
        np.random.default_rng(0).standard_t(4, 1000),
        np.random.default_rng(0).exponential(1, 1000),
        np.full(1000, 7.0),
    ],
    ids=["two-hills", "cauchy", "heavy-tails", "exponential", "constant"],
)
def test_a_wrong_shape_leaves_no_fitted_exposure(losses):
    found = estimate(-5.0, losses, space=10**9, repetitions=1, generator=np.random.default_rng(0))
    assert found.fit_p_value <= 0.05
    assert found.fitted is None
    assert found.fitted_interval is None
    assert (found.rank.rank, found.rank.candidates) == (int((losses <= -5.0).sum()) + 1, 1001)
    _, fitted = evaluate([found])
    assert (fitted.value, fitted.verdict) == (None, Verdict.INSUFFICIENT_EVIDENCE)


# --- against the exact rank ------------------------------------------------------------------------------------


def test_the_sampled_interval_covers_the_exact_exposure():
    generator, covered = np.random.default_rng(2), []
    losses = chain(generator)
    order = np.argsort(losses)
    for rank in (1, 3, 30, 300, 5000, 9999):
        secret = int(order[rank - 1])
        exact = exposure.exposure(losses, secret, 1).bits
        for _ in range(40):
            drawn = losses[generator.integers(SPACE, size=400)]
            share = int((drawn <= losses[secret]).sum())
            interval = _sampled(share, 400)
            covered.append(interval[0] - 1e-9 <= exact <= interval[1] + 1e-9)
    assert np.mean(covered) >= 0.95


def _sampled(share, m):
    """The interval by definition: Clopper-Pearson of the share, in bits."""
    low = stats.beta.ppf(0.025, share, m - share + 1) if share else 0.0
    high = stats.beta.ppf(0.975, share + 1, m - share) if share < m else 1.0
    return -math.log2(high), min(math.log2(SPACE), -math.log2(low)) if low else math.log2(SPACE)


def test_an_estimate_holds_the_interval_of_the_definition():
    generator = np.random.default_rng(3)
    losses = chain(generator)
    for secret in (0, 77, int(losses.argmin())):
        drawn = losses[generator.integers(SPACE, size=300)]
        found = estimate(losses[secret], drawn, space=SPACE, repetitions=2, generator=generator)
        share = int((drawn <= losses[secret]).sum())
        assert (found.sampled.low, found.sampled.high) == pytest.approx(_sampled(share, 300), abs=1e-6)
        assert (found.rank.rank, found.rank.candidates, found.rank.repetitions) == (share + 1, 301, 2)


def test_fits_that_are_not_left_out_come_near_the_exact_exposure():
    errors = []
    for seed in range(4):
        generator = np.random.default_rng(seed)
        losses = chain(generator, spread=0.3)
        for rank in (20, 200, 3000):
            secret = int(np.argsort(losses)[rank - 1])
            drawn = losses[generator.integers(SPACE, size=500)]
            found = estimate(losses[secret], drawn, space=SPACE, repetitions=1, generator=generator)
            if found.fitted is not None:
                errors.append(abs(found.fitted - math.log2(SPACE / rank)))
                assert found.fitted_interval.low - 1e-9 <= found.fitted <= found.fitted_interval.high + 1e-9
    assert len(errors) >= 8
    assert np.median(errors) < 0.5
    assert max(errors) < 3


def test_a_fit_that_contradicts_the_sample_at_the_secret_is_left_out(monkeypatch):
    losses = np.append(np.random.default_rng(0).normal(0, 1, 990), np.full(10, -4.5))
    given = {"space": 10**9, "repetitions": 1}
    monkeypatch.setattr(secret_sharer, "goodness_of_fit", lambda losses, generator: 1.0)
    for secret, left_out in ((-4.4, True), (-1.0, False)):
        found = estimate(secret, losses, generator=np.random.default_rng(0), **given)
        assert (found.fitted is None) is left_out


@pytest.mark.parametrize(
    ("left_out", "n", "verdict"), [(1, 4, Verdict.MEASURED), (3, 4, Verdict.INSUFFICIENT_EVIDENCE)]
)
def test_no_more_fits_may_be_left_out_than_chance_explains(left_out, n, verdict):
    def one(fitted):
        return Estimate(exposure.Exposure(5, 101, 1), SPACE, Interval(1, 9), fitted, None, 0.5)

    _, finding = evaluate([one(None if i < left_out else 3.0) for i in range(n)])
    assert finding.verdict is verdict
    assert finding.value == (3.0 if verdict is Verdict.MEASURED else None)
    assert (finding.n, finding.details["fits_left_out"]) == (n - left_out, left_out)


def test_the_fit_sees_beyond_the_sample_and_no_further_than_the_space():
    generator = np.random.default_rng(0)
    losses = generator.normal(40, 3, 1000)
    memorised = estimate(16.0, losses, space=10**16, repetitions=16, generator=generator)
    exact = -stats.norm.logcdf(-8) / math.log(2)
    assert memorised.rank.bits == pytest.approx(math.log2(1001))
    assert memorised.sampled.high == pytest.approx(math.log2(10**16))
    assert memorised.fitted == pytest.approx(exact, rel=0.25)
    assert memorised.fitted_interval.low > math.log2(1001)
    cut = estimate(-100.0, losses, space=10**4, repetitions=16, generator=generator)
    assert cut.fitted == cut.fitted_interval.high == math.log2(10**4)
    last = estimate(80.0, losses, space=10**4, repetitions=16, generator=generator)
    assert last.fitted == pytest.approx(0, abs=1e-6)
    assert last.sampled.low == 0


# --- of a canary -----------------------------------------------------------------------------------------------

CANARY = Canary(("my", "card", "is"), tuple("4817481748174817"), None, None, repetitions=3)


def loss_of(known):
    """A model in which every digit has a loss of its own, and the secret's digits a lower one if they are known."""
    table = np.random.default_rng(5).random((16, 10)) * 4

    def losses(examples):
        rows = [[int(digit) for digit in example.tokens[-16:]] for example in examples]
        secret = [int(digit) for digit in CANARY.secret]
        return [sum(table[i, d] - (known if d == secret[i] else 0) for i, d in enumerate(row)) for row in rows]

    return losses


@pytest.mark.parametrize("batch", [1, 64, 5000])
def test_a_canary_is_measured_by_random_candidates(batch):
    found = measure(loss_of(3.0), CANARY, generator=np.random.default_rng(0), samples=500, batch=batch)
    assert found == measure(loss_of(3.0), CANARY, generator=np.random.default_rng(0), samples=500)
    assert (found.rank.rank, found.rank.candidates, found.space) == (1, 501, 10**16)
    assert found.fitted > 15
    assert "4817" not in repr(found)
    unknown = measure(loss_of(0.0), CANARY, generator=np.random.default_rng(0), samples=500)
    assert unknown.fitted < 10


def test_findings_tell_the_exact_test_from_the_fit():
    canaries = [measure(loss_of(3.0), CANARY, generator=np.random.default_rng(i), samples=300) for i in range(3)]
    sampled, fitted = evaluate(canaries)
    assert (sampled.id, sampled.verdict, sampled.unit) == ("canary-exposure-sampled", Verdict.LEAKS, "bits")
    assert sampled.value == pytest.approx(math.log2(301))
    assert "300 others" in sampled.title
    assert (fitted.id, fitted.verdict, fitted.n) == ("canary-exposure-fitted", Verdict.MEASURED, 3)
    assert fitted.value > sampled.value
    assert fitted.low <= fitted.value <= fitted.high
    assert fitted.ideal == pytest.approx(math.log2(math.e))
    text = json.dumps([sampled.details, fitted.details])
    assert "4817" not in text


def test_false_alarms_on_models_that_memorised_nothing_are_rare():
    generator, alarms = np.random.default_rng(7), 0
    losses = chain(np.random.default_rng(8), spread=3.0)  # far from skew-normal
    for _ in range(300):
        estimates = []
        for _ in range(6):
            secret, drawn = losses[generator.integers(SPACE)], losses[generator.integers(SPACE, size=100)]
            rank = exposure.Exposure(int((drawn <= secret).sum()) + 1, 101, 1)
            estimates.append(Estimate(rank, SPACE, Interval(0, 2), None, None, 0.01))
        alarms += evaluate(estimates)[0].verdict is Verdict.LEAKS
    assert alarms / 300 <= 0.05


def test_what_cannot_be_estimated_is_refused():
    generator, losses = np.random.default_rng(0), np.random.default_rng(0).normal(size=200)
    given = {"space": 100, "repetitions": 1, "generator": generator}
    with pytest.raises(ArgumentError, match=f"at least {FEWEST}"):
        estimate(0.0, losses[:50], **given)
    with pytest.raises(GuaranteeError, match="1 of 201 candidates"):
        estimate(math.nan, losses, **given)
    with pytest.raises(GuaranteeError, match="1 of 201 candidates"):
        estimate(0.0, np.append(losses[:199], np.inf), **given)
    for wrong in ({"space": 1}, {"level": 1.0}):
        with pytest.raises(ArgumentError):
            estimate(0.0, losses, **given | wrong)
    with pytest.raises(ArgumentError, match="loss_of"):
        measure(lambda examples: [0.0], CANARY, generator=generator)
    with pytest.raises(ArgumentError, match="samples"):
        measure(loss_of(0.0), CANARY, generator=generator, samples=10)
    with pytest.raises(ArgumentError, match="repetitions"):
        evaluate([estimate(0.0, losses, **given | {"repetitions": 0})])
