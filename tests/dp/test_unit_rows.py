import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rows import normal

from trustnlp.dp.clipping import Unit
from trustnlp.dp.unit_rows import UnitRows, packed


def units(sizes):
    ends = np.cumsum(sizes)
    return [Unit(np.arange(end - size, end), 1 / (size + 1)) for size, end in zip(sizes, ends, strict=True)]


class TestUnitRows:
    def test_rows_of_a_unit_follow_each_other(self):
        joined = UnitRows(units([2, 2]), [0, 1]).joined(normal(4, 3, 5))
        assert torch.equal(joined, normal(4, 3, 5).reshape(2, 6, 5))

    def test_shorter_units_end_in_zeros(self):
        joined, x = UnitRows(units([1, 3]), [0, 1]).joined(normal(4, 2, 5)), normal(4, 2, 5)
        assert torch.equal(joined[0], torch.cat([x[0], torch.zeros(4, 5)]))
        assert torch.equal(joined[1], x[1:].flatten(0, 1))

    def test_examples_are_left_alone(self):
        x = normal(3, 2)
        assert UnitRows.single(3).joined(x) is x

    def test_ids_are_joined_too(self):
        joined = UnitRows(units([2, 1]), [0, 1]).joined(torch.tensor([[1, 2], [3, 4], [5, 6]]))
        assert joined.tolist() == [[1, 2, 3, 4], [5, 6, 0, 0]]


class TestPacked:
    @given(st.lists(st.integers(0, 7), max_size=12), st.integers(1, 9))
    def test_every_unit_is_in_one_place_and_no_batch_is_too_large(self, sizes, size):
        batches, large = packed(units(sizes), size)
        inside = [number for batch in batches for number in batch.numbers]
        assert inside == [number for number, rows in enumerate(sizes) if 0 < rows <= size]
        assert large == [number for number, rows in enumerate(sizes) if rows > size]
        for batch in batches:
            assert len(batch.numbers) * max(sizes[number] for number in batch.numbers) <= size
            assert len(batch.rows) == sum(sizes[number] for number in batch.numbers)

    @pytest.mark.parametrize(("count", "parts"), [(0, 0), (1, 1), (4, 1), (5, 2), (9, 3)])
    def test_examples_fill_batches(self, count, parts):
        assert len(packed(units([1] * count), 4)[0]) == parts

    def test_weights_are_the_units(self):
        batches, _ = packed(units([2, 1, 3]), 9)
        assert torch.allclose(batches[0].weights, torch.tensor([1 / 3, 1 / 2, 1 / 4], dtype=torch.float64))
