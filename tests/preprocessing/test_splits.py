"""Splits of both protocols, and the random streams they are drawn from."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mmlab.errors import UserError
from mmlab.preprocessing.random_streams import Stream, random_stream
from mmlab.preprocessing.splits import Split, paper_split, partition, search_split
from mmlab.spec.protocol import MIN_CELLS_PER_PART

Labels = NDArray[np.int64]

FINGERPRINT = "9ff161bc046135465145c769cb4b7fdc55f511adb4e981bf58479d5e3dbd5066"
seeds = st.integers(min_value=0, max_value=2**63)
replicates = st.integers(min_value=0, max_value=1000)


@st.composite
def class_indices(draw: st.DrawFn) -> Labels:
    """Class indices of 2 to 6 classes in random order; some classes have the minimum size."""
    sizes = draw(st.lists(st.integers(min_value=4, max_value=60), min_size=2, max_size=6))
    assume(int(0.1 * sum(sizes)) >= len(sizes))
    y = np.repeat(np.arange(len(sizes)), sizes)
    return np.random.default_rng(draw(st.integers(0, 100))).permutation(y)


def split_stream(seed: int, replicate: int = 0) -> np.random.Generator:
    return random_stream(seed, replicate, Stream.SPLIT)


def cells_of_each_class(y: Labels, cells: Labels) -> Labels:
    return np.bincount(y[cells], minlength=int(y.max()) + 1)


def assert_is_a_70_10_20_split(split: Split, y: Labels) -> None:
    n = len(y)
    cells = np.concatenate([split.train, split.validation, split.test])
    assert cells.dtype == np.int64
    np.testing.assert_array_equal(np.sort(cells), np.arange(n))
    assert len(split.train) == int(0.7 * n)
    assert len(split.validation) == int(0.1 * n)
    for part, least in zip((split.train, split.validation, split.test), (2, 1, 1), strict=True):
        assert cells_of_each_class(y, part).min() >= least


def assert_equal_splits(one: Split, other: Split) -> None:
    np.testing.assert_array_equal(one.train, other.train)
    np.testing.assert_array_equal(one.validation, other.validation)
    np.testing.assert_array_equal(one.test, other.test)


# --- both protocols


@given(class_indices(), seeds, replicates)
def test_the_paper_split_partitions_the_cells(y: Labels, seed: int, replicate: int) -> None:
    assert_is_a_70_10_20_split(paper_split(y, split_stream(seed, replicate)), y)


@given(class_indices(), seeds, replicates)
def test_the_search_split_partitions_the_cells(y: Labels, seed: int, replicate: int) -> None:
    assert_is_a_70_10_20_split(search_split(y, FINGERPRINT, split_stream(seed, replicate)), y)


@given(class_indices(), seeds, replicates)
def test_the_same_seed_and_replicate_give_the_same_split(
    y: Labels, seed: int, replicate: int
) -> None:
    assert_equal_splits(
        paper_split(y, split_stream(seed, replicate)), paper_split(y, split_stream(seed, replicate))
    )


@given(class_indices(), seeds, seeds, replicates)
def test_every_search_has_the_same_held_out_test_set(
    y: Labels, seed: int, other_seed: int, replicate: int
) -> None:
    one = search_split(y, FINGERPRINT, split_stream(seed))
    other = search_split(y, FINGERPRINT, split_stream(other_seed, replicate))
    np.testing.assert_array_equal(one.test, other.test)
    assert not set(one.test) & set(other.train_validation)


def test_the_held_out_test_set_depends_on_the_data() -> None:
    y = np.arange(300) % 3
    one = search_split(y, FINGERPRINT, split_stream(0))
    other = search_split(y, FINGERPRINT[::-1], split_stream(0))
    assert set(one.test) != set(other.test)


def test_replicates_of_a_search_differ_in_train_and_validation() -> None:
    y = np.arange(300) % 3
    one, other = (search_split(y, FINGERPRINT, split_stream(0, r)) for r in (0, 1))
    assert set(one.train) != set(other.train)
    assert set(one.validation) != set(other.validation)


def test_train_validation_is_train_then_validation() -> None:
    split = paper_split(np.arange(100) % 2, split_stream(0))
    np.testing.assert_array_equal(split.train_validation[:70], split.train)
    np.testing.assert_array_equal(split.train_validation[70:], split.validation)


def test_a_split_is_not_ordered_by_class() -> None:
    # Code that uses only the first cells of a part must not get a single class.
    y = np.sort(np.arange(400) % 2)
    first = paper_split(y, split_stream(0)).train[:50]
    assert 5 < y[first].sum() < 45


def test_every_cell_is_equally_likely_to_be_a_test_cell() -> None:
    y = np.repeat([0, 1], [90, 10])
    tested = np.zeros(100)
    n_splits = 400
    for replicate in range(n_splits):
        tested[paper_split(y, split_stream(0, replicate)).test] += 1
    # Within five standard errors of the fraction of test cells; reserved cells add a little.
    assert np.abs(tested / n_splits - 0.2).max() < 5 * np.sqrt(0.2 * 0.8 / n_splits)


@given(class_indices(), seeds)
def test_splitting_does_not_change_the_labels(y: Labels, seed: int) -> None:
    before = y.copy()
    y.setflags(write=False)
    paper_split(y, split_stream(seed))
    search_split(y, FINGERPRINT, split_stream(seed))
    np.testing.assert_array_equal(y, before)


# --- impossible splits


def test_a_class_that_is_too_small_is_reported_with_its_size() -> None:
    y = np.repeat([0, 1, 2], [50, 3, 50])
    with pytest.raises(UserError, match=r"class 1 has 3 cells, fewer than the 4 that"):
        paper_split(y, split_stream(0))
    with pytest.raises(UserError, match=r"class 1 has 3 cells, fewer than the 4 that"):
        search_split(y, FINGERPRINT, split_stream(0))


@pytest.mark.parametrize("protocol", ["paper", "search"])
def test_too_few_cells_for_all_classes_are_rejected(protocol: str) -> None:
    y = np.arange(39) % 4
    with pytest.raises(
        UserError,
        match=r"3 cells is too small for 4 classes with at least 1 cells each: 3[0-9] cells",
    ):
        if protocol == "paper":
            paper_split(y, split_stream(0))
        else:
            search_split(y, FINGERPRINT, split_stream(0))


def test_classes_of_the_minimum_size_can_be_split() -> None:
    y = np.repeat([0, 1, 2], [4, 4, 32])
    for seed in range(20):
        assert_is_a_70_10_20_split(paper_split(y, split_stream(seed)), y)
        assert_is_a_70_10_20_split(search_split(y, FINGERPRINT, split_stream(seed)), y)


@given(class_indices(), seeds)
def test_partition_uses_exactly_the_given_cells(y: Labels, seed: int) -> None:
    cells = np.flatnonzero(np.arange(len(y)) % 7 != 0)
    assume(np.bincount(y[cells]).min() >= 2)
    n_first = len(cells) // 2
    classes = len(np.unique(y[cells]))
    assume(n_first >= classes)
    parts = partition(y, cells, (n_first, len(cells) - n_first), (1, 1), split_stream(seed))
    assert [len(part) for part in parts] == [n_first, len(cells) - n_first]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), cells)


def test_the_minimum_is_that_of_the_paper() -> None:
    assert MIN_CELLS_PER_PART == (2, 1, 1)


# --- random streams


def test_all_streams_of_all_replicates_and_seeds_differ() -> None:
    draws = {
        (seed, replicate, stream): random_stream(seed, replicate, stream).integers(2**63)
        for seed in (0, 1, 2**40)
        for replicate in range(5)
        for stream in Stream
    }
    assert len(set(draws.values())) == len(draws) == 3 * 5 * 4


def test_streams_of_two_replicates_are_not_correlated() -> None:
    streams = [random_stream(0, r, s).random(4000) for r in range(3) for s in Stream]
    for one, other in combinations(streams, 2):
        assert abs(np.corrcoef(one, other)[0, 1]) < 5 / np.sqrt(4000)


def test_random_streams_are_unchanged() -> None:
    # If these numbers changed, digests of finished trials would refer to other splits.
    assert random_stream(0, 0, Stream.SPLIT).integers(1000, size=4).tolist() == [17, 565, 909, 935]
    np.testing.assert_array_equal(
        random_stream(3, 2, Stream.NOISE).random(3), random_stream(3, 2, Stream.NOISE).random(3)
    )


def test_streams_do_not_use_the_global_generator_of_numpy() -> None:
    np.random.seed(1)  # noqa: NPY002
    first = random_stream(0, 0, Stream.SPLIT).random()
    position = np.random.get_state()[2]  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    assert random_stream(0, 0, Stream.SPLIT).random() == first
    assert np.random.get_state()[2] == position  # noqa: NPY002
