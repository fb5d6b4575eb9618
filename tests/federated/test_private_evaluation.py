import math

import numpy as np
import pytest
from scipy import stats

from trustnlp.errors import ArgumentError
from trustnlp.federated.private_evaluation import (
    DeviceMetric,
    PrivateEvaluation,
    activity_cell,
    noisy_ratio,
)
from trustnlp.federated.private_sum import NoisySum, PrivateSum
from trustnlp.randomness import Streams
from trustnlp.results import Direction, Finding, Results, Verdict

STREAMS = Streams(7)
ACCURACY = DeviceMetric("label-accuracy", "Accuracy", most=20)
LOSS = DeviceMetric("loss", "Loss", most=20, scale=10.0, unit="nats", direction=Direction.LOWER, ideal=0.0)
CELLS = {"activity": ("light", "middle", "heavy"), "region": ("north", "south")}


def by_id(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.id: finding for finding in findings}


class Devices:
    """Devices with sizes, shares of right answers that differ by activity, losses and regions."""

    def __init__(self, count: int, seed: int) -> None:
        generator = np.random.default_rng(seed)
        self.sizes = generator.integers(1, 60, count)
        self.cells = {
            "activity": np.array([activity_cell(size, [10, 30]) for size in self.sizes]),
            "region": generator.integers(0, 2, count),
        }
        self.right = generator.binomial(self.sizes, np.array([0.6, 0.75, 0.9])[self.cells["activity"]])
        self.losses = generator.gamma(2.0, 0.4, count) * self.sizes

    def vectors(self, evaluation: PrivateEvaluation) -> list[np.ndarray]:
        return [
            evaluation.vector(
                {"label-accuracy": (self.right[k], self.sizes[k]), "loss": (self.losses[k], self.sizes[k])},
                {name: int(cells[k]) for name, cells in self.cells.items()},
            )
            for k in range(len(self.sizes))
        ]

    def ratio(self, figures: np.ndarray, mask: np.ndarray) -> float:
        weights = np.minimum(self.sizes, 20)[mask]
        return float((weights * (figures / self.sizes)[mask]).sum() / weights.sum())


class TestFindings:
    def test_without_noise_they_are_numpys_ratios(self):
        devices = Devices(500, 0)
        evaluation = PrivateEvaluation.for_budget(1.0, 1e-6, [ACCURACY, LOSS], CELLS)
        noiseless = NoisySum(np.sum(devices.vectors(evaluation), axis=0), 0.0)
        found = by_id(evaluation.findings(noiseless))
        everyone = np.ones(500, dtype=bool)
        assert found["on-device-label-accuracy"].value == pytest.approx(devices.ratio(devices.right, everyone))
        assert found["on-device-loss"].value == pytest.approx(devices.ratio(devices.losses, everyone))
        for name, cells in CELLS.items():
            for metric, figures in (("label-accuracy", devices.right), ("loss", devices.losses)):
                rows = found[f"on-device-{metric}-by-{name}"].details["cells"]
                expected = [devices.ratio(figures, devices.cells[name] == i) for i in range(len(cells))]
                assert [row["cell"] for row in rows] == list(cells)
                assert [row["value"] for row in rows] == pytest.approx(expected)

    def test_the_worst_cell_is_told_by_the_metrics_direction(self):
        devices = Devices(2000, 1)
        evaluation = PrivateEvaluation.for_budget(8.0, 1e-6, [ACCURACY, LOSS], CELLS)
        found = by_id(evaluation.release(devices.vectors(evaluation), STREAMS))
        accuracy, loss = found["on-device-label-accuracy-by-activity"], found["on-device-loss-by-region"]
        assert accuracy.details["worst"] == "light"
        assert accuracy.value == min(row["value"] for row in accuracy.details["cells"])
        assert loss.value == max(row["value"] for row in loss.details["cells"])
        assert accuracy.level == pytest.approx(1 - 0.05 / 3)

    def test_the_noise_is_that_of_the_budget(self):
        evaluation = PrivateEvaluation.for_budget(2.0, 1e-6, [ACCURACY, LOSS], CELLS)
        assert evaluation.summing.bound == math.sqrt(2 * 2 * 3)
        assert 0.99 * 2 <= evaluation.summing.epsilon() <= 2
        empty = [np.zeros(2 * 2 * 6)]
        drawn = [evaluation.summing.release(empty[0], STREAMS.child("run", run)).values for run in range(300)]
        assert np.std(drawn) == pytest.approx(evaluation.summing.std, rel=0.05)
        privacy = evaluation.release(empty, STREAMS)[0].details["privacy"]
        assert (privacy["unit"], privacy["adjacency"], privacy["delta"]) == ("device", "add-remove", 1e-6)

    def test_too_few_devices_are_said_to_be(self):
        evaluation = PrivateEvaluation.for_budget(1.0, 1e-6, [ACCURACY], {"region": ("north", "south")})
        vector = evaluation.vector({"label-accuracy": (1, 2)}, {"region": 0})
        for finding in evaluation.release([vector], STREAMS):
            assert (finding.value, finding.verdict) == (None, Verdict.INSUFFICIENT_EVIDENCE)

    def test_they_can_be_saved(self, tmp_path):
        evaluation = PrivateEvaluation.for_budget(8.0, 1e-6, [ACCURACY, LOSS], CELLS)
        findings = evaluation.release(Devices(2000, 2).vectors(evaluation), STREAMS)
        Results({}, tuple(findings)).save(tmp_path)
        assert Results.load(tmp_path).findings == tuple(findings)


class TestVector:
    def test_its_norm_is_within_the_bound_whatever_the_figures(self):
        evaluation = PrivateEvaluation.for_budget(1.0, 1e-6, [ACCURACY, LOSS], CELLS)
        for right, losses, size in ((0, 0, 1), (60, 1e9, 60), (10**6, 10**9, 10**6), (0, 0, 0), (5, 3.0, 3)):
            vector = evaluation.vector(
                {"label-accuracy": (right, size), "loss": (losses, size)}, {"activity": 2, "region": 1}
            )
            assert np.linalg.norm(vector) <= evaluation.summing.bound * (1 + 1e-12)
            assert ((vector >= 0) & (vector <= 1)).all()

    def test_a_heavy_device_counts_as_most_texts(self):
        assert ACCURACY.pair(10, 20) == ACCURACY.pair(500, 1000) == (0.5, 1.0)
        assert ACCURACY.pair(1, 2) == (0.05, 0.1)
        assert LOSS.pair(100.0, 2) == (0.1, 0.1)
        assert ACCURACY.pair(0, 0) == (0.0, 0.0)

    def test_cells_by_activity_begin_at_their_edges(self):
        assert [activity_cell(size, [10, 30]) for size in (1, 9, 10, 29, 30, 99)] == [0, 0, 1, 1, 2, 2]

    @pytest.mark.parametrize(
        ("figures", "cells"),
        [
            ({}, {"region": 0}),
            ({"label-accuracy": (1, 2)}, {}),
            ({"label-accuracy": (1, 2)}, {"region": 2}),
            ({"label-accuracy": (-1, 2)}, {"region": 0}),
            ({"label-accuracy": (math.nan, 2)}, {"region": 0}),
        ],
    )
    def test_what_was_not_asked_for_is_refused(self, figures, cells):
        evaluation = PrivateEvaluation.for_budget(1.0, 1e-6, [ACCURACY], {"region": ("north", "south")})
        with pytest.raises(ArgumentError):
            evaluation.vector(figures, cells)

    def test_bad_plans_are_refused(self):
        summing = PrivateSum(math.sqrt(2), 1.0, 1e-6)
        for metrics, groupings in (((), {}), ((ACCURACY, ACCURACY), {}), ((ACCURACY,), {"a": ()}), ((LOSS,), CELLS)):
            with pytest.raises(ArgumentError):
                PrivateEvaluation(metrics, groupings, summing)


class TestNoisyRatio:
    @pytest.mark.parametrize(("hits", "n"), [(0, 10), (7, 10), (180, 200), (200, 200)])
    def test_without_noise_and_one_text_a_device_it_is_wilsons(self, hits, n):
        value, low, high = noisy_ratio(hits, n, 0.0)
        expected = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
        assert value == hits / n
        assert (low, high) == pytest.approx((expected.low, expected.high))

    @pytest.mark.parametrize(("rate", "devices", "std"), [(0.9, 300, 8.0), (0.5, 1000, 30.0), (0.97, 200, 3.0)])
    def test_it_covers_the_populations_share_with_noise_and_sample(self, rate, devices, std):
        generator, runs, hits = np.random.default_rng(3), 2000, 0
        for _ in range(runs):
            part = generator.binomial(devices, rate) + generator.normal(0, std)
            found = noisy_ratio(part, devices + generator.normal(0, std), std)
            hits += found is not None and found[1] <= rate <= found[2]
        assert runs * 0.935 <= hits <= runs * 0.99
        # Wilson's interval alone would leave out the noise.
        assert std < 5 or _wilson_coverage(rate, devices, std) < 0.9

    def test_it_covers_where_devices_have_many_texts_of_different_shares(self):
        generator, runs, hits = np.random.default_rng(4), 400, 0
        for _ in range(runs):
            sizes = generator.integers(1, 40, 400)
            shares = generator.beta(4, 1, 400)
            weights = np.minimum(sizes, 20) / 20
            part = (weights * generator.binomial(sizes, shares) / sizes).sum() + generator.normal(0, 4)
            found = noisy_ratio(part, weights.sum() + generator.normal(0, 4), 4.0)
            hits += found is not None and found[1] <= 0.8 <= found[2]
        assert hits >= runs * 0.95

    def test_noise_widens_it_and_too_much_leaves_nothing(self):
        widths = [noisy_ratio(80, 100, std) for std in (0.0, 5.0, 20.0)]
        assert sorted(high - low for _, low, high in widths) == [high - low for _, low, high in widths]
        assert noisy_ratio(80, 100, 60.0) is None
        assert noisy_ratio(0, 0, 0.0) is None

    def test_a_ratio_beyond_1_by_noise_is_1(self):
        value, low, high = noisy_ratio(1010, 1000, 3.0)
        assert (value, high) == (1.0, 1.0)
        assert low <= 1.0


def _wilson_coverage(rate: float, devices: int, std: float) -> float:
    generator, hits = np.random.default_rng(3), 0
    for _ in range(500):
        part, whole = generator.binomial(devices, rate) + generator.normal(0, std), devices + generator.normal(0, std)
        found = noisy_ratio(part, whole, 0.0)
        hits += found is not None and found[1] <= rate <= found[2]
    return hits / 500
