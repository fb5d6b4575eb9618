import copy
import itertools
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats

from trustnlp.dp import secure_noise
from trustnlp.dp.noise import Scratch
from trustnlp.dp.secure_noise import SecureNoise, gaussians, keystream_into
from trustnlp.errors import ArgumentError, GuaranteeError

KEY = bytes(range(32))


def released(noise, start=0.0, std=1.0, size=1000, block=0, divisor=1.0, dtype=torch.float64):
    sums = {"one": torch.full((size,), start, dtype=dtype)}
    noise.release_(sums, block, {"one": std}, divisor)
    return sums["one"].numpy()


def box_muller(raw):
    """The transform entry by entry, with Python's own whole numbers and the C library's functions."""
    half = len(raw) // 2
    whole = [int.from_bytes(raw[i : i + 8], "little", signed=True) for i in range(0, len(raw), 8)]
    pairs = list(zip(whole[: half // 8], whole[half // 8 :], strict=True))
    # |2j + 1| / 2^64 is |j + 1/2| / 2^63 without rounding before the division
    radii = [math.sqrt(-2.0 * math.log(min(abs(2 * j + 1) / 2**64, 1.0))) for j, _ in pairs]
    angles = [math.pi * (k / 2**63) for _, k in pairs]
    cosines = [r * math.cos(a) for r, a in zip(radii, angles, strict=True)]
    return np.array(cosines + [r * math.sin(a) for r, a in zip(radii, angles, strict=True)])


def integers(*values):
    return np.array(values, dtype="<i8").view(np.uint8)


class TestKeystream:
    def test_it_is_that_of_the_published_vectors(self):
        """NIST SP 800-38A, F.5.5 CTR-AES256.Encrypt: key stream = plaintext xor ciphertext, four blocks."""
        key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
        plain = bytes.fromhex(
            "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
            "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
        )
        cipher = bytes.fromhex(
            "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
            "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6"
        )
        counter = 0xF0F1F2F3F4F5F6F7F8F9FAFBFCFDFEFF
        stream = np.empty(64, dtype=np.uint8)
        keystream_into(key, counter, stream)
        assert bytes(np.frombuffer(plain, np.uint8) ^ stream) == cipher

    def test_no_two_chunks_share_key_and_counter(self, monkeypatch):
        used = []
        original = keystream_into

        def listen(key, counter, out):
            used.append((key, counter, len(out) // 16))
            original(key, counter, out)

        monkeypatch.setattr(secure_noise, "keystream_into", listen)
        noise = SecureNoise(KEY)
        for block in (0, 1, 10):
            sums = {name: torch.zeros(300_000) for name in ("w", "0/w", "1/w")}
            noise.release_(sums, block, dict.fromkeys(sums, 1.0), 1.0)
        assert len(used) == 3 * 3 * 3
        assert len({key for key, _, _ in used}) == 9
        for key in {key for key, _, _ in used}:
            spans = sorted((counter, counter + blocks) for other, counter, blocks in used if other == key)
            assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans))


class TestGaussians:
    def test_they_are_those_of_the_slow_transform(self):
        raw = np.random.default_rng(0).integers(0, 256, 16 * 5000, dtype=np.uint8)
        found = gaussians(raw, 1.0, Scratch())
        assert np.abs(found - box_muller(raw.tobytes())).max() < 2**-50

    @pytest.mark.parametrize("j", [0, -1, 1, 2**40, 2**52 + 1, 2**62, 2**63 - 1, -(2**63)])
    @pytest.mark.parametrize("k", [0, 2**62, -(2**62), 2**61, 2**63 - 1, -(2**63)])
    def test_the_ends_are_exact_too(self, j, k):
        raw = integers(j, k)
        assert np.abs(gaussians(raw, 1.0, Scratch()) - box_muller(raw.tobytes())).max() < 2**-49

    def test_the_tail_ends_where_the_module_says(self):
        assert gaussians(integers(0, 0), 1.0, Scratch())[0] == pytest.approx(math.sqrt(128 * math.log(2)), rel=1e-15)

    def test_more_than_one_serial_piece_is_filled(self):
        raw = np.random.default_rng(1).integers(0, 256, 16 * 40_000, dtype=np.uint8)
        assert stats.kstest(gaussians(raw, 3.0, Scratch()) / 3.0, "norm").pvalue > 1e-3


class TestKey:
    def test_two_objects_never_agree(self):
        assert not np.isin(released(SecureNoise()), released(SecureNoise())).all()
        assert np.corrcoef(released(SecureNoise()), released(SecureNoise()))[0, 1] < 6 / np.sqrt(1000)

    def test_it_is_the_operating_systems_and_not_the_seeds(self, monkeypatch):
        asked = []
        monkeypatch.setattr(secure_noise.secrets, "token_bytes", lambda size: asked.append(size) or KEY)
        assert np.array_equal(released(SecureNoise()), released(SecureNoise(KEY)))
        assert asked == [32]

    def test_every_bit_of_it_counts(self):
        other = KEY[:-1] + bytes([KEY[-1] ^ 1])
        assert abs(np.corrcoef(released(SecureNoise(KEY)), released(SecureNoise(other)))[0, 1]) < 6 / np.sqrt(1000)

    @pytest.mark.parametrize("key", [b"", b"short", bytes(33), "x" * 32, 5, list(KEY)])
    def test_another_length_or_type_is_refused_without_showing_it(self, key):
        with pytest.raises(ArgumentError, match="not shown"):
            SecureNoise(key)

    @pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy])
    def test_it_is_neither_written_nor_copied(self, copied):
        with pytest.raises(GuaranteeError, match="cannot be pickled or copied"):
            copied(SecureNoise())

    def test_it_is_not_shown(self):
        assert KEY.hex() not in repr(SecureNoise(KEY))
        assert str(KEY) not in repr(SecureNoise(KEY))

    def test_a_forked_process_is_refused(self, monkeypatch):
        noise = SecureNoise()
        monkeypatch.setattr(secure_noise.os, "getpid", lambda: -1)
        with pytest.raises(GuaranteeError, match="another process"):
            released(noise)


class TestGrid:
    """Jin et al. (2022): what the output can be must not depend on the sum."""

    @pytest.mark.parametrize("std", [1.0, 0.7, 3e-5, 12345.0])
    @pytest.mark.parametrize("start", [0.0, 1.0, 1 / 3, -7.77e-6])
    def test_every_output_lies_on_a_grid_that_the_sum_does_not_choose(self, std, start):
        grid = 2.0 ** (math.floor(math.log2(std)) - 12)
        steps = released(SecureNoise(), start, std) / grid
        assert np.array_equal(steps, np.rint(steps))
        assert not np.array_equal(steps / 2, np.rint(steps / 2))

    def test_the_plain_float_sum_would_not(self):
        """The property can fail: without the grid the low bits show the sum."""
        noise = np.random.default_rng(0).normal(size=1000).astype(np.float32)
        steps = (noise + np.float32(1 / 3)) * 2**12
        assert not np.array_equal(steps, np.rint(steps))

    def test_small_steps_are_all_reached_whatever_the_sum(self):
        for start in (0.0, 1 / 3, 1e-9):
            steps = np.rint(released(SecureNoise(KEY), start, size=2_000_000) * 2**12)
            near = steps[np.abs(steps) <= 64]
            assert set(near) == set(range(-64, 65))
            assert stats.chisquare(np.bincount((near + 64).astype(int), minlength=129)).pvalue > 1e-3

    def test_rounding_moves_an_entry_by_half_a_step_at_most(self):
        exact = entry_noise(4096)
        assert np.abs(released(SecureNoise(KEY), size=4096) - exact).max() <= 2**-13 * (1 + 1e-12)


def entry_noise(size):
    """What the key's stream of block 0 gives before the grid, by the slow transform."""
    raw = np.empty(8 * size, dtype=np.uint8)
    keystream_into(secure_noise._stream_key(KEY, 0, "one"), 0, raw)
    return box_muller(raw.tobytes())


def test_a_new_process_draws_another_key():
    """What a resumed run does: the same program and the same block in another process."""
    program = """
import torch
from trustnlp.dp.secure_noise import SecureNoise
sums = {"one": torch.zeros(4, dtype=torch.float64)}
SecureNoise().release_(sums, 0, {"one": 1.0}, 1.0)
print(sums["one"].tolist())
"""
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout
    assert len(there.split(",")) == 4
    assert there.strip() != str(released(SecureNoise(), size=4).tolist())
