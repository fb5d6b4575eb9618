import numpy as np
import pytest

from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.federated.served import accuracy, loss
from trustnlp.report.explanations import explain
from trustnlp.results import Finding, Verdict
from trustnlp.uncertainty import bonferroni, ratio

K, TEXTS = 200, 10
SIZES = np.arange(1, K + 1)
DEVICES = np.repeat(np.arange(K), TEXTS)


def plant(shares, generator):
    """(n,) right answers, those of each device with its own share, (K,)."""
    return generator.random(len(DEVICES)) < shares[DEVICES]


# The lightest tenth is served worst, the next best.
SHARES = np.where(SIZES <= 20, 0.4, 0.9)
CORRECT = plant(SHARES, np.random.default_rng(4))


def by_id(findings: tuple[Finding, ...]) -> dict[str, Finding]:
    return {finding.id: finding for finding in findings}


def test_the_worst_tenth_is_found_with_its_interval():
    found = by_id(accuracy(CORRECT, DEVICES, SIZES))["accuracy-by-activity-decile"]
    parts = found.details["parts"]
    assert len(parts) == 10
    assert parts[0]["name"] == "1 to 20 texts"
    assert parts[0]["devices"] == 20
    worst = SIZES[DEVICES] <= 20
    assert found.value == pytest.approx(CORRECT[worst].mean())
    # Oracle: each decile's texts, with the device as their cluster.
    ends = []
    for tenth in range(10):
        rows = (SIZES[DEVICES] - 1) // 20 == tenth
        right = CORRECT[rows].astype(float)
        ends.append(ratio(right, np.ones(len(right)), bonferroni(0.95, 10), clusters=DEVICES[rows].tolist()))
    assert found.low == pytest.approx(min(end.low for end in ends))
    assert found.high == pytest.approx(min(end.high for end in ends))
    assert (found.n, found.level) == (K, 0.95)
    assert [part["value"] for part in parts] == sorted(part["value"] for part in parts)


def test_halves_and_what_lies_between_them():
    found = by_id(accuracy(CORRECT, DEVICES, SIZES))
    light, heavy, gap = (found[f"accuracy-{what}"] for what in ("light-half", "heavy-half", "half-gap"))
    half = SIZES[DEVICES] <= 100
    assert light.value == pytest.approx(CORRECT[half].mean())
    assert heavy.value == pytest.approx(CORRECT[~half].mean())
    assert gap.value == pytest.approx(heavy.value - light.value)
    assert gap.low > 0  # 0.9 against 0.8, planted
    assert gap.low < 0.1 < gap.high


def test_losses_are_worst_where_they_are_highest():
    losses = np.where(SHARES[DEVICES] < 0.5, 2.0, 0.5) + np.random.default_rng(5).normal(size=len(DEVICES)) / 10
    found = by_id(loss(losses, DEVICES, SIZES, generator=np.random.default_rng(0)))
    assert found["loss-by-activity-decile"].value == pytest.approx(2.0, abs=0.05)
    assert found["loss-by-activity-decile"].details["parts"][0]["name"] == "1 to 20 texts"
    assert found["loss-half-gap"].value == pytest.approx(0.3, abs=0.05)  # above 0: the light half is served worse
    assert found["loss-half-gap"].low > 0
    assert found["loss-worst-tenth-of-devices"].value > 0.5 + 2 * 0.1 / np.sqrt(TEXTS) / 2
    assert {finding.unit for finding in found.values()} == {"nats"}


def test_intervals_of_losses_are_those_of_a_mean_of_devices():
    noise = np.random.default_rng(5).normal(size=K)
    losses = 3 + noise[DEVICES]  # texts of a device say one thing
    found = by_id(loss(losses, DEVICES, SIZES, generator=np.random.default_rng(0)))["loss-per-device"]
    assert found.value == pytest.approx(3 + noise.mean())
    half = 1.96 * noise.std(ddof=1) / np.sqrt(K)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)


def test_texts_of_one_device_are_no_new_evidence():
    once = accuracy(CORRECT, DEVICES, SIZES)
    twice = accuracy(np.tile(CORRECT, 2), np.tile(DEVICES, 2), SIZES)
    for first, second in zip(once, twice, strict=True):
        assert second.value == pytest.approx(first.value)
        assert (second.low, second.high) == pytest.approx((first.low, first.high))


def test_the_order_of_texts_does_not_matter():
    order = np.random.default_rng(5).permutation(len(DEVICES))
    groups = np.where(DEVICES % 2, "odd", "even")
    assert accuracy(CORRECT[order], DEVICES[order], SIZES, groups=list(groups[order])) == accuracy(
        CORRECT, DEVICES, SIZES, groups=list(groups)
    )


def test_each_device_counts_once_in_the_mean_over_devices():
    devices = np.concatenate([np.repeat(np.arange(40), 1), np.repeat(np.arange(40, 80), 9)])
    correct = devices >= 40
    found = by_id(accuracy(correct, devices, np.arange(80)))
    assert found["accuracy-per-device"].value == 0.5
    assert found["accuracy-light-half"].value == 0.0
    assert found["accuracy-light-half"].high > 0  # nothing right of 40 devices is no proof of 0


def test_devices_of_equal_activity_are_not_parted():
    sizes = np.where(SIZES <= 150, 1, SIZES)
    parts = by_id(accuracy(CORRECT, DEVICES, sizes))["accuracy-by-activity-decile"].details["parts"]
    assert len(parts) < 10
    assert next(part["devices"] for part in parts if part["name"] == "1 text") == 150
    assert sum(part["devices"] for part in parts) == K


def test_without_differences_in_activity_there_are_no_halves():
    found = by_id(accuracy(CORRECT, DEVICES, np.full(K, 7)))
    assert found["accuracy-light-half"].value == pytest.approx(CORRECT.mean())
    for what in ("heavy-half", "half-gap"):
        assert found[f"accuracy-{what}"].value is None
        assert found[f"accuracy-{what}"].verdict is Verdict.INSUFFICIENT_EVIDENCE
        assert found[f"accuracy-{what}"].details["reason"]


def test_the_worst_group():
    names = np.where(DEVICES < 20, "north", np.where(DEVICES < 198, "south", "few"))
    groups = [None if place % 50 == 0 else name for place, name in enumerate(names)]
    found = by_id(accuracy(CORRECT, DEVICES, SIZES, groups=groups))["accuracy-by-group"]
    assert [part["name"] for part in found.details["parts"]] == ["north", "south"]
    assert [part["name"] for part in found.details["not_compared"]] == ["few"]
    known = np.array([group == "north" for group in groups])
    assert found.value == pytest.approx(CORRECT[known].mean())
    assert "accuracy-by-group" not in by_id(accuracy(CORRECT, DEVICES, SIZES))


def test_the_worst_tenth_of_devices_by_hand():
    # Device k of 100 has k + 1 right answers of 100.
    devices = np.repeat(np.arange(100), 100)
    correct = np.tile(np.arange(100), 100) <= devices
    found = by_id(accuracy(correct, devices, np.ones(100, int)))["accuracy-worst-tenth-of-devices"]
    assert found.value == pytest.approx(0.10)
    # P(Binomial(100, 0.1) <= 4) = 0.0237 <= 0.025 < 0.0576; P(>= 17) = 0.0206, P(>= 16) = 0.0399.
    assert (found.low, found.high) == pytest.approx((0.05, 0.17))
    mirrored = loss(-np.where(correct, 1.0, 0.0), devices, np.arange(100), generator=np.random.default_rng(0))
    worst = by_id(mirrored)["loss-worst-tenth-of-devices"]
    assert (worst.value, worst.low, worst.high) == pytest.approx((-0.10, -0.17, -0.05))


def test_devices_with_few_texts_have_no_say_in_the_worst_tenth():
    devices = np.append(DEVICES, np.arange(K, K + 50))  # fifty more with a single, wrong text
    correct, sizes = np.append(CORRECT, np.zeros(50, bool)), np.append(SIZES, np.ones(50, int))
    found = by_id(accuracy(correct, devices, sizes))["accuracy-worst-tenth-of-devices"]
    assert found.value == by_id(accuracy(CORRECT, DEVICES, SIZES))["accuracy-worst-tenth-of-devices"].value
    assert found.details["left_out"] == 50
    assert by_id(accuracy(correct, devices, sizes, least_texts=1))["accuracy-worst-tenth-of-devices"].value == 0


def test_few_devices_are_insufficient_evidence():
    for finding in accuracy(np.ones(8, bool), np.repeat(np.arange(4), 2), np.arange(4)):
        assert finding.value is None
        assert finding.verdict is Verdict.INSUFFICIENT_EVIDENCE
        assert finding.details["reason"]


def test_losses_that_are_all_alike_show_nothing():
    found = loss(np.ones(len(DEVICES)), DEVICES, SIZES, generator=np.random.default_rng(0))
    assert by_id(found)["loss-per-device"].value is None


def test_intervals_cover_the_worst_tenth():
    shares = np.clip(0.75 + 0.1 * np.sin(np.arange(K) / 20), 0, 1)
    truth = shares.reshape(10, -1).mean(1).min()
    generator, covered, runs = np.random.default_rng(9), 0, 200
    for _ in range(runs):
        found = by_id(accuracy(plant(shares, generator), DEVICES, SIZES))["accuracy-by-activity-decile"]
        covered += found.low <= truth <= found.high
    assert covered / runs >= 0.92  # 95% less two standard errors


def test_every_finding_is_explained():
    groups = ["one"] * len(DEVICES)
    losses = np.random.default_rng(5).random(len(DEVICES))
    for finding in (
        *accuracy(CORRECT, DEVICES, SIZES, groups=groups),
        *loss(losses, DEVICES, SIZES, groups=groups, generator=np.random.default_rng(0)),
    ):
        assert explain(finding.id), finding.id


@pytest.mark.parametrize("wrong", [0.5, np.nan, 2.0])
def test_answers_are_right_or_wrong(wrong):
    with pytest.raises(GuaranteeError, match="true and false"):
        accuracy([1.0, wrong], [0, 1], [1, 1])


def test_losses_are_finite():
    with pytest.raises(GuaranteeError, match="1 of 2 losses"):
        loss([1.0, np.nan], [0, 1], [1, 1], generator=np.random.default_rng(0))


@pytest.mark.parametrize(
    ("correct", "devices", "options"),
    [
        ([], [], {}),
        ([1], [0, 1], {}),
        ([1, 0], [0, 2], {}),
        ([1, 0], [0, -1], {}),
        ([1, 0], [0.0, 1.0], {}),
        ([1, 0], [0, 1], {"groups": ["a"]}),
        ([1, 0], [0, 1], {"level": 1.0}),
        ([1, 0], [0, 1], {"least_texts": 0}),
    ],
)
def test_texts_that_do_not_fit_are_refused(correct, devices, options):
    with pytest.raises(ArgumentError):
        accuracy(correct, devices, [1, 1], **options)
