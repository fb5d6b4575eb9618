import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trustnlp.dp.noise import SeededNoise
from trustnlp.dp.secure_noise import SecureNoise
from trustnlp.errors import ArgumentError, GuaranteeError
from trustnlp.randomness import Streams

KEY = bytes(range(32))
SIZES = {"one": 300_001, "other": 300, "third": 1}  # several chunks, one chunk, an odd single entry
SOURCES = {"seeded": lambda: SeededNoise(Streams(0)), "secure": lambda: SecureNoise(KEY)}


@pytest.fixture(params=SOURCES)
def make(request):
    return SOURCES[request.param]


@pytest.fixture
def two_threads():
    before, interval = torch.get_num_threads(), sys.getswitchinterval()
    torch.set_num_threads(2)
    sys.setswitchinterval(1e-5)
    yield
    torch.set_num_threads(before)
    sys.setswitchinterval(interval)


def released(noise, block=0, std=1.0, sizes=SIZES, dtype=torch.float32, start=0.0, divisor=1.0):
    sums = {name: torch.full((size,), start, dtype=dtype) for name, size in sizes.items()}
    noise.release_(sums, block, dict.fromkeys(sizes, std), divisor)
    return sums


def entries(noise, size=400_000, **options):
    return released(noise, sizes={"one": size}, **options)["one"].double().numpy()


class TestDistribution:
    def test_it_is_gaussian_with_the_asked_deviation(self, make):
        sample = entries(make(), std=2.0) / 2.0
        assert stats.kstest(sample, "norm").pvalue > 1e-3
        assert abs(sample.mean()) < 4 / np.sqrt(len(sample))
        assert sample.std() == pytest.approx(1.0, abs=4 / np.sqrt(2 * len(sample)))
        assert stats.skew(sample) == pytest.approx(0.0, abs=4 * np.sqrt(6 / len(sample)))
        assert stats.kurtosis(sample) == pytest.approx(0.0, abs=4 * np.sqrt(24 / len(sample)))

    @pytest.mark.parametrize("deviations", [3.0, 4.0])
    @pytest.mark.parametrize("side", [1, -1])
    def test_its_tails_hold_what_they_should(self, make, deviations, side):
        expected = 2_000_000 * stats.norm.sf(deviations)
        found = np.count_nonzero(side * entries(make(), 2_000_000) > deviations)
        assert found == pytest.approx(expected, abs=4 * np.sqrt(expected))

    def test_blocks_names_and_chunks_are_independent(self, make):
        noise = make()
        first, second = (released(noise, number, sizes={"one": 262_144, "other": 262_144}) for number in (0, 1))
        streams = [part.numpy() for sums in (first, second) for t in sums.values() for part in t.split(2**15)]
        correlations = np.corrcoef(streams)[np.triu_indices(len(streams), 1)]
        # The greatest of 496 correlations; a true Gaussian goes beyond 5.5 deviations once in 50,000 such tests.
        assert np.abs(correlations).max() < 5.5 / np.sqrt(2**15)
        assert len({stream[:8].tobytes() for stream in streams}) == len(streams)
        assert len({stream.tobytes() for stream in np.abs(np.array(streams)[:, :8])}) == len(streams)

    def test_neighbours_within_a_stream_are_independent(self, make):
        sample = entries(make(), 2**17)
        half = len(sample) // 2
        for lag in (1, 2, 8, half):
            assert abs(np.corrcoef(sample[:-lag], sample[lag:])[0, 1]) < 4.5 / np.sqrt(len(sample) - lag)
            squares = np.corrcoef(sample[:-lag] ** 2, sample[lag:] ** 2)[0, 1]
            assert abs(squares) < 4.5 / np.sqrt(len(sample) - lag)


class TestWhatFixesTheBits:
    def test_the_number_of_threads_does_not(self, make, two_threads):
        both = released(make())
        torch.set_num_threads(1)
        alone = released(make())
        assert all(torch.equal(both[name], alone[name]) for name in SIZES)

    def test_earlier_blocks_and_the_other_tensors_do_not(self, make):
        noise = make()
        released(noise, 0)
        later = released(noise, 3)
        assert torch.equal(later["other"], released(make(), 3, sizes={"other": 300})["other"])
        assert not torch.equal(later["other"], released(make(), 2)["other"])

    @pytest.mark.parametrize("cuts", [[150_000], [0], [1, 32_768, 131_072, 131_073, 290_000]])
    def test_a_part_is_a_slice_of_the_whole(self, make, cuts):
        whole = released(make(), start=5.0, divisor=3.0)["one"]
        for begin, end in zip([0, *cuts], [*cuts, SIZES["one"]], strict=True):
            part = torch.full((end - begin,), 5.0)
            make().release_({"one": part}, 0, {"one": 1.0}, 3.0, {"one": (begin, SIZES["one"])})
            assert torch.equal(part, whole[begin:end])

    @pytest.mark.parametrize("size", [40_000, 12])
    def test_strides_do_not(self, make, size):
        plain = released(make(), sizes={"one": size})["one"].view(4, -1)
        strided = torch.zeros(size // 4, 4).t()
        make().release_({"one": strided}, 0, {"one": 1.0}, 1.0)
        assert torch.equal(strided, plain)

    def test_what_lies_between_strides_is_left_alone(self, make):
        around = torch.full((50, 7), 9.0)
        make().release_({"one": around[:, 2:5]}, 0, {"one": 1.0}, 1.0)
        assert torch.equal(around[:, [0, 1, 5, 6]], torch.full((50, 4), 9.0))
        assert not (around[:, 2:5] == 9.0).any()

    def test_the_seed_does(self):
        assert not np.array_equal(entries(SeededNoise(Streams(1))), entries(SeededNoise(Streams(0))))

    def test_the_global_generator_is_left_alone(self, make):
        state = torch.random.get_rng_state()
        released(make())
        assert torch.equal(torch.random.get_rng_state(), state)


class TestWhatIsReleased:
    @settings(max_examples=30, deadline=None)
    @given(
        start=st.floats(-1e3, 1e3, width=32),
        divisor=st.floats(0.1, 1e4),
        source=st.sampled_from(sorted(SOURCES)),
        dtype=st.sampled_from([torch.float32, torch.float64]),
    )
    def test_almost_no_noise_leaves_the_quotient(self, start, divisor, source, dtype):
        sums = released(SOURCES[source](), std=1e-30, sizes={"one": 40}, start=start, divisor=divisor, dtype=dtype)
        expected = torch.full((40,), start, dtype=dtype) / divisor
        torch.testing.assert_close(sums["one"], expected, rtol=4 * torch.finfo(dtype).eps, atol=1e-25)

    def test_the_noise_is_divided_too_and_every_tensor_has_its_deviation(self, make):
        sums = {"one": torch.full((40_000,), 80.0), "other": torch.full((40_000,), 80.0)}
        make().release_(sums, 0, {"one": 1.0, "other": 6.0}, 4.0)
        for tensor, std in ((sums["one"], 0.25), (sums["other"], 1.5)):
            assert float(tensor.mean()) == pytest.approx(20.0, abs=4 * std / 200)
            assert float(tensor.std()) == pytest.approx(std, rel=4 / np.sqrt(80_000))

    def test_the_same_noise_is_added_to_every_sum(self, make):
        noise = entries(make(), 1000, dtype=torch.float64)
        moved = entries(make(), 1000, dtype=torch.float64, start=3.0, divisor=2.0)
        assert np.allclose(moved, (3.0 + noise) / 2.0, rtol=1e-14)

    def test_a_sum_without_entries_passes(self, make):
        assert released(make(), sizes={"none": 0, "one": 2})["none"].shape == (0,)

    def test_a_sum_with_a_gradient_is_moved_without_a_trace(self, make):
        parameter = torch.nn.Parameter(torch.zeros(100))
        make().release_({"one": parameter}, 0, {"one": 1.0}, 1.0)
        assert parameter.is_leaf
        assert float(parameter.detach().std()) > 0.5


class TestRefusals:
    @pytest.mark.parametrize("again", [0, 2, 4])
    def test_no_block_is_used_twice(self, make, again):
        noise = make()
        released(noise, 4, sizes={"one": 2})
        with pytest.raises(GuaranteeError, match=f"block {again} was used before"):
            released(noise, again, sizes={"one": 2})

    @pytest.mark.parametrize("std", [0.0, -1.0, float("nan"), float("inf")])
    def test_no_noise(self, make, std):
        with pytest.raises(ArgumentError, match=r"stds\[one\]"):
            released(make(), std=std, sizes={"one": 2})

    @pytest.mark.parametrize("divisor", [0.0, -1.0, float("nan"), float("inf")])
    def test_no_divisor(self, make, divisor):
        with pytest.raises(ArgumentError, match="divisor"):
            released(make(), divisor=divisor, sizes={"one": 2})

    @pytest.mark.parametrize("stds", [{}, {"other": 1.0}, {"one": 1.0, "other": 1.0}])
    def test_names_that_do_not_match(self, make, stds):
        with pytest.raises(ArgumentError, match="stds"):
            make().release_({"one": torch.zeros(2)}, 0, stds, 1.0)

    @pytest.mark.parametrize("parts", [{"other": (0, 2)}, {"one": (-1, 9)}, {"one": (8, 9)}])
    def test_parts_that_do_not_fit(self, make, parts):
        with pytest.raises(ArgumentError, match="parts"):
            make().release_({"one": torch.zeros(2)}, 0, {"one": 1.0}, 1.0, parts)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64])
    def test_sums_of_few_bits(self, make, dtype):
        with pytest.raises(ArgumentError, match="float32 or float64"):
            released(make(), sizes={"one": 2}, dtype=dtype)

    def test_a_failing_thread_is_heard(self, make, monkeypatch, two_threads):
        noise = make()
        monkeypatch.setattr(noise, "_release_chunk_", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            released(noise)

    def test_a_refused_call_leaves_the_sums_as_they_were(self, make):
        sums = {"one": torch.zeros(4), "other": torch.zeros(4, dtype=torch.float16)}
        with pytest.raises(ArgumentError):
            make().release_(sums, 0, {"one": 1.0, "other": 1.0}, 1.0)
        assert torch.equal(sums["one"], torch.zeros(4))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestOnADevice:
    def test_seeded_noise_is_gaussian_and_repeats(self):
        first, again = (
            {"one": torch.zeros(400_000, device="cuda")},
            {"one": torch.zeros(400_000, device="cuda")},
        )
        for sums in (first, again):
            SeededNoise(Streams(0)).release_(sums, 0, {"one": 1.0}, 1.0)
        assert torch.equal(first["one"], again["one"])
        assert stats.kstest(first["one"].cpu().numpy(), "norm").pvalue > 1e-3

    def test_secure_noise_is_that_of_the_cpu(self):
        sums = {"one": torch.full((400_001,), 5.0, device="cuda")}
        SecureNoise(KEY).release_(sums, 0, {"one": 1.0}, 3.0)
        host = {"one": torch.full((400_001,), 5.0)}
        SecureNoise(KEY).release_(host, 0, {"one": 1.0}, 3.0)
        torch.testing.assert_close(sums["one"].cpu(), host["one"])
