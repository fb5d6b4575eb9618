"""Texts come out of their tree as they went in, each token below those before it, and nothing is there twice."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trustnlp.models.prefix_trees import grow

ROWS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6).map(tuple), max_size=12)


@given(ROWS, st.integers(6, 20))
def test_each_row_is_a_way_from_a_root(rows, largest):
    trees, places = grow(rows, largest)
    for row, (number, way) in zip(rows, places, strict=True):
        tree = trees[number]
        assert tuple(tree.ids[i] for i in way) == row
        assert [tree.parents[i] for i in way] == [-1, *way[:-1]]
        assert [tree.depths[i] for i in way] == [*range(len(row))]
        for end in range(len(way)):
            assert np.flatnonzero(tree.sight()[way[end]]).tolist() == way[: end + 1]
    assert all(0 < len(tree) <= largest for tree in trees)


@given(ROWS)
def test_where_all_fits_each_beginning_is_there_once(rows):
    alike = [(9, *row) for row in rows]
    trees, _ = grow(alike, 100)
    beginnings = {row[: end + 1] for row in alike for end in range(len(row))}
    assert [len(tree) for tree in trees] == ([len(beginnings)] if rows else [])


def test_the_example():
    trees, places = grow([(1, 2, 5), (1, 3, 5), (1, 3, 6)], 8)
    (tree,) = trees
    assert tree.ids == [1, 2, 5, 3, 5, 6]
    assert [way for _, way in places] == [[0, 1, 2], [0, 3, 4], [0, 3, 5]]
