import numpy as np
import pytest
from convex import Rows, problem

from trustnlp.errors import ArgumentError
from trustnlp.federated.population import Generated, Partitioned

ROWS = Rows(np.arange(12.0).reshape(6, 2), np.arange(6.0))


def test_devices_see_their_own_examples_alone() -> None:
    population = Partitioned(ROWS, (np.array([4, 1]), np.array([], dtype=np.int64), np.array([0])))
    assert population.sizes.tolist() == [2, 0, 1]
    own = population.data(0)
    assert len(own) == 2
    assert own.batch([0, 1]).targets["y"].tolist() == [4, 1]
    assert own.batch(np.array([1])).inputs["x"].tolist() == [[2, 3]]


@pytest.mark.parametrize(
    ("devices", "said"),
    [
        ((np.array([0, 6]),), "'devices' must be indices of the 6 examples"),
        ((np.array([-1, 2]),), "'devices' must be indices of the 6 examples"),
        ((np.array([0, 1]), np.array([1])), "'devices' must be disjoint, got '1 examples on two"),
        ((), "'devices' must be not empty"),
    ],
)
def test_a_wrong_partition_is_refused(devices: tuple[np.ndarray, ...], said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        Partitioned(ROWS, devices)


def test_generated_devices_are_made_when_visited() -> None:
    asked: list[int] = []

    def make(device: int) -> Rows:
        asked.append(device)
        return problem([3], seed=device).rows

    population = Generated(np.full(10**6, 3), make)
    assert population.sizes.sum() == 3 * 10**6
    assert asked == []
    np.testing.assert_array_equal(population.data(7).batch([0]).inputs["x"], population.data(7).batch([0]).inputs["x"])
    assert asked == [7, 7]


def test_a_device_of_another_size_than_it_said_is_refused() -> None:
    with pytest.raises(ArgumentError, match="'make' must be a function that gives device 1 4 texts, got 3"):
        Generated(np.array([3, 4]), lambda device: problem([3]).rows).data(1)
