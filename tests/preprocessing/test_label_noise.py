"""Wrong labels: how many cells, which ones, and what they become."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from tiny import CLASSES

from mmlab.preprocessing.label_noise import (
    draw_label_noise,
    label_noise_problems,
    nearest_classes,
    transition_matrix,
)
from mmlab.preprocessing.random_streams import Stream, random_stream
from mmlab.spec.trial import LabelNoise

Labels = NDArray[np.int64]

seeds = st.integers(min_value=0, max_value=2**63)


def stream(seed: int) -> np.random.Generator:
    return random_stream(seed, 0, Stream.NOISE)


def uniform(n_classes: int) -> NDArray[np.float64]:
    """Every class in the place of every other, and of one more that is never drawn."""
    matrix = np.zeros((n_classes + 1, n_classes + 1))
    matrix[:, :n_classes] = 1 / n_classes
    return matrix


@st.composite
def cells_to_mislabel(draw: st.DrawFn) -> tuple[Labels, Labels, int]:
    """Labels, some of the cells, and the number of classes."""
    n_cells = draw(st.integers(min_value=1, max_value=200))
    n_classes = draw(st.integers(min_value=2, max_value=7))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    y = rng.integers(n_classes, size=n_cells)
    n_chosen = draw(st.integers(min_value=0, max_value=n_cells))
    return y, rng.permutation(n_cells)[:n_chosen], n_classes


levels = st.floats(min_value=0, max_value=1)


@given(cells_to_mislabel(), levels, seeds)
def test_the_number_of_cells_that_are_drawn_anew_is_exact(
    case: tuple[Labels, Labels, int], level: float, seed: int
) -> None:
    y, cells, n_classes = case
    # A label that no draw can give shows every cell that was drawn, right or wrong.
    unlabelled = np.full_like(y, n_classes)
    noisy = draw_label_noise(unlabelled, cells, level, uniform(n_classes), stream(seed))
    assert (noisy != n_classes).sum() == int(level * len(cells))
    assert noisy.min() >= 0


@given(cells_to_mislabel(), levels, levels, seeds)
def test_a_higher_level_contains_the_lower_one(
    case: tuple[Labels, Labels, int], level: float, other_level: float, seed: int
) -> None:
    y, cells, n_classes = case
    low, high = sorted([level, other_level])
    unlabelled = np.full_like(y, n_classes)
    less, more = (
        draw_label_noise(unlabelled, cells, p, uniform(n_classes), stream(seed))
        for p in (low, high)
    )
    drawn = less != n_classes
    np.testing.assert_array_equal(more[drawn], less[drawn])


@given(cells_to_mislabel(), levels, seeds)
def test_cells_outside_keep_their_label(
    case: tuple[Labels, Labels, int], level: float, seed: int
) -> None:
    y, cells, n_classes = case
    noisy = draw_label_noise(y, cells, level, uniform(n_classes), stream(seed))
    outside = np.setdiff1d(np.arange(len(y)), cells)
    np.testing.assert_array_equal(noisy[outside], y[outside])


@given(cells_to_mislabel(), seeds)
def test_level_zero_changes_nothing(case: tuple[Labels, Labels, int], seed: int) -> None:
    y, cells, n_classes = case
    np.testing.assert_array_equal(
        draw_label_noise(y, cells, 0.0, uniform(n_classes), stream(seed)), y
    )


@given(cells_to_mislabel(), levels, seeds)
def test_mislabel_returns_a_new_array_and_leaves_its_input(
    case: tuple[Labels, Labels, int], level: float, seed: int
) -> None:
    y, cells, n_classes = case
    before, cells_before = y.copy(), cells.copy()
    noisy = draw_label_noise(y, cells, level, uniform(n_classes), stream(seed))
    assert not np.shares_memory(noisy, y)
    assert noisy.dtype == y.dtype
    np.testing.assert_array_equal(y, before)
    np.testing.assert_array_equal(cells, cells_before)


@given(cells_to_mislabel(), levels, seeds)
def test_noise_does_not_depend_on_the_order_of_the_cells(
    case: tuple[Labels, Labels, int], level: float, seed: int
) -> None:
    y, cells, n_classes = case
    np.testing.assert_array_equal(
        draw_label_noise(y, cells, level, uniform(n_classes), stream(seed)),
        draw_label_noise(y, cells[::-1], level, uniform(n_classes), stream(seed)),
    )


@pytest.mark.parametrize(("level", "n_classes"), [(0.2, 2), (0.5, 4), (1.0, 7)])
def test_the_share_of_wrong_labels_is_the_papers(level: float, n_classes: int) -> None:
    n = 40_000
    y = np.arange(n) % n_classes
    noisy = draw_label_noise(y, np.arange(n), level, uniform(n_classes), stream(0))
    expected = level * (1 - 1 / n_classes)
    # The number drawn is fixed; whether a draw is wrong is a coin of 1 - 1/C.
    standard_error = np.sqrt(level * (1 - 1 / n_classes) / n_classes / n)
    assert (noisy != y).mean() == pytest.approx(expected, abs=5 * standard_error)


def test_wrong_labels_are_uniform_over_the_classes() -> None:
    n, n_classes = 30_000, 5
    y = np.zeros(n, dtype=np.int64)
    noisy = draw_label_noise(y, np.arange(n), 1.0, uniform(n_classes), stream(0))
    share = np.bincount(noisy, minlength=n_classes) / n
    assert np.abs(share - 0.2).max() < 5 * np.sqrt(0.2 * 0.8 / n)


def test_different_seeds_mislabel_different_cells() -> None:
    y = np.zeros(1000, dtype=np.int64)
    one, other = (
        draw_label_noise(y, np.arange(1000), 0.5, uniform(4), stream(seed)) for seed in (0, 1)
    )
    assert (one != other).any()


# --- which class a wrong label names


def matrix_of(noise: LabelNoise, n_classes: int = 3) -> NDArray[np.float64]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40 * n_classes, 5)).astype(np.float32)
    names = [f"type {c}" for c in range(n_classes)]
    return transition_matrix(noise, names, x, np.arange(len(x)) % n_classes)


@pytest.mark.parametrize("kind", ["uniform", "uniform_other", "pairwise"])
@pytest.mark.parametrize("n_classes", [2, 5])
def test_rows_of_a_matrix_are_probabilities(kind: str, n_classes: int) -> None:
    matrix = matrix_of(LabelNoise.model_validate({"level": 0.5, "kind": kind}), n_classes)
    assert matrix.shape == (n_classes, n_classes)
    assert (matrix >= 0).all()
    np.testing.assert_allclose(matrix.sum(axis=1), 1)
    assert (np.diag(matrix) == (1 / n_classes if kind == "uniform" else 0)).all()


@pytest.mark.parametrize("kind", ["uniform_other", "pairwise"])
def test_every_label_that_is_drawn_is_wrong(kind: str) -> None:
    y = np.arange(3000) % 3
    noise = LabelNoise.model_validate({"level": 0.4, "kind": kind})
    noisy = draw_label_noise(y, np.arange(3000), noise.level, matrix_of(noise), stream(0))
    assert (noisy != y).sum() == 1200


def test_pairwise_takes_the_class_whose_mean_is_nearest() -> None:
    means = np.array([[0.0, 0], [1, 0], [10, 0], [10, 4]], dtype=np.float32)
    y = np.repeat(np.arange(4), 50)
    x = means[y] + np.random.default_rng(0).normal(0, 0.1, (200, 2)).astype(np.float32)
    assert nearest_classes(x, y, 4).tolist() == [1, 0, 3, 2]
    matrix = transition_matrix(LabelNoise(level=1, kind="pairwise"), list("abcd"), x, y)
    noisy = draw_label_noise(y, np.arange(200), 1.0, matrix, stream(3))
    assert noisy.tolist() == np.repeat([1, 0, 3, 2], 50).tolist()


def test_a_matrix_of_the_user_is_followed() -> None:
    """A class that it does not name keeps its labels; 0 is never drawn, at the end either."""
    given_matrix = {"type 0": {"type 1": 0.75, "type 0": 0.25}, "type 1": {"type 0": 1.0}}
    noise = LabelNoise(level=1.0, kind="class_dependent", matrix=given_matrix)
    y = np.arange(30_000) % 3
    noisy = draw_label_noise(y, np.arange(len(y)), 1.0, matrix_of(noise), stream(1))
    assert set(noisy[y == 2]) == {2}
    assert set(noisy[y == 1]) == {0}
    assert set(noisy[y == 0]) == {0, 1}
    assert (noisy[y == 0] == 1).mean() == pytest.approx(0.75, abs=5 * np.sqrt(0.1875 / 10_000))


def test_a_class_that_the_data_do_not_have_is_named() -> None:
    noise = LabelNoise(level=1, kind="class_dependent", matrix={"neuron": {"glia": 1.0}})
    (problem,) = label_noise_problems(noise, list(CLASSES))
    assert "'glia'" in problem
    assert "astrocyte, microglia, neuron" in problem


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"kind": "class_dependent"}, "needs one"),
        ({"matrix": {"a": {"b": 1.0}}}, "belongs to the kind class_dependent"),
        ({"kind": "class_dependent", "matrix": {"a": {"b": 0.7}}}, "add up to 0.7"),
        ({"kind": "class_dependent", "matrix": {"a": {"b": 1.5, "a": -0.5}}}, "negative"),
        ({"kind": "adversarial"}, "uniform_other"),
        ({"level": 1.01}, "less than or equal to 1"),
    ],
)
def test_noise_that_makes_no_sense_is_refused(content: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LabelNoise.model_validate(content)
