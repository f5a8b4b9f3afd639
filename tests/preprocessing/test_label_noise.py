"""Label noise: number of noisy labels, affected cells, transition matrices."""

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
    """Return a uniform transition matrix with one additional class that is never drawn."""
    matrix = np.zeros((n_classes + 1, n_classes + 1))
    matrix[:, :n_classes] = 1 / n_classes
    return matrix


@st.composite
def labelled_cells(draw: st.DrawFn) -> tuple[Labels, Labels, int]:
    """Class indices of all cells, indices of some cells, and the number of classes."""
    n_cells = draw(st.integers(min_value=1, max_value=200))
    n_classes = draw(st.integers(min_value=2, max_value=7))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    y = rng.integers(n_classes, size=n_cells)
    n_chosen = draw(st.integers(min_value=0, max_value=n_cells))
    return y, rng.permutation(n_cells)[:n_chosen], n_classes


levels = st.floats(min_value=0, max_value=1)


@given(labelled_cells(), levels, seeds)
def test_the_number_of_relabelled_cells_is_exact(
    case: tuple[Labels, Labels, int], level: float, seed: int
) -> None:
    y, cells, n_classes = case
    # Label n_classes is never drawn, so every relabelled cell can be identified.
    unlabelled = np.full_like(y, n_classes)
    noisy = draw_label_noise(unlabelled, cells, level, uniform(n_classes), stream(seed))
    assert (noisy != n_classes).sum() == int(level * len(cells))
    assert noisy.min() >= 0


@given(labelled_cells(), levels, levels, seeds)
def test_noise_at_a_higher_level_includes_the_noise_at_a_lower_level(
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


@given(labelled_cells(), levels, seeds)
def test_other_cells_keep_their_labels(
    case: tuple[Labels, Labels, int], level: float, seed: int
) -> None:
    y, cells, n_classes = case
    noisy = draw_label_noise(y, cells, level, uniform(n_classes), stream(seed))
    outside = np.setdiff1d(np.arange(len(y)), cells)
    np.testing.assert_array_equal(noisy[outside], y[outside])


@given(labelled_cells(), seeds)
def test_level_zero_changes_nothing(case: tuple[Labels, Labels, int], seed: int) -> None:
    y, cells, n_classes = case
    np.testing.assert_array_equal(
        draw_label_noise(y, cells, 0.0, uniform(n_classes), stream(seed)), y
    )


@given(labelled_cells(), levels, seeds)
def test_label_noise_does_not_change_its_arguments(
    case: tuple[Labels, Labels, int], level: float, seed: int
) -> None:
    y, cells, n_classes = case
    before, cells_before = y.copy(), cells.copy()
    noisy = draw_label_noise(y, cells, level, uniform(n_classes), stream(seed))
    assert not np.shares_memory(noisy, y)
    assert noisy.dtype == y.dtype
    np.testing.assert_array_equal(y, before)
    np.testing.assert_array_equal(cells, cells_before)


@given(labelled_cells(), levels, seeds)
def test_noise_does_not_depend_on_the_order_of_the_cells(
    case: tuple[Labels, Labels, int], level: float, seed: int
) -> None:
    y, cells, n_classes = case
    np.testing.assert_array_equal(
        draw_label_noise(y, cells, level, uniform(n_classes), stream(seed)),
        draw_label_noise(y, cells[::-1], level, uniform(n_classes), stream(seed)),
    )


@pytest.mark.parametrize(("level", "n_classes"), [(0.2, 2), (0.5, 4), (1.0, 7)])
def test_the_fraction_of_wrong_labels_is_that_of_the_paper(level: float, n_classes: int) -> None:
    n = 40_000
    y = np.arange(n) % n_classes
    noisy = draw_label_noise(y, np.arange(n), level, uniform(n_classes), stream(0))
    expected = level * (1 - 1 / n_classes)
    # The number of drawn labels is fixed; each of them is wrong with probability 1 - 1/C.
    standard_error = np.sqrt(level * (1 - 1 / n_classes) / n_classes / n)
    assert (noisy != y).mean() == pytest.approx(expected, abs=5 * standard_error)


def test_drawn_labels_are_uniform_over_the_classes() -> None:
    n, n_classes = 30_000, 5
    y = np.zeros(n, dtype=np.int64)
    noisy = draw_label_noise(y, np.arange(n), 1.0, uniform(n_classes), stream(0))
    fraction = np.bincount(noisy, minlength=n_classes) / n
    assert np.abs(fraction - 0.2).max() < 5 * np.sqrt(0.2 * 0.8 / n)


def test_different_seeds_relabel_different_cells() -> None:
    y = np.zeros(1000, dtype=np.int64)
    one, other = (
        draw_label_noise(y, np.arange(1000), 0.5, uniform(4), stream(seed)) for seed in (0, 1)
    )
    assert (one != other).any()


# --- transition matrices


def matrix_of(noise: LabelNoise, n_classes: int = 3) -> NDArray[np.float64]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40 * n_classes, 5)).astype(np.float32)
    names = [f"type {c}" for c in range(n_classes)]
    return transition_matrix(noise, names, x, np.arange(len(x)) % n_classes)


@pytest.mark.parametrize("kind", ["uniform", "uniform_other", "pairwise"])
@pytest.mark.parametrize("n_classes", [2, 5])
def test_rows_of_a_transition_matrix_are_probabilities(kind: str, n_classes: int) -> None:
    matrix = matrix_of(LabelNoise.model_validate({"level": 0.5, "kind": kind}), n_classes)
    assert matrix.shape == (n_classes, n_classes)
    assert (matrix >= 0).all()
    np.testing.assert_allclose(matrix.sum(axis=1), 1)
    assert (np.diag(matrix) == (1 / n_classes if kind == "uniform" else 0)).all()


@pytest.mark.parametrize("kind", ["uniform_other", "pairwise"])
def test_every_drawn_label_is_wrong(kind: str) -> None:
    y = np.arange(3000) % 3
    noise = LabelNoise.model_validate({"level": 0.4, "kind": kind})
    noisy = draw_label_noise(y, np.arange(3000), noise.level, matrix_of(noise), stream(0))
    assert (noisy != y).sum() == 1200


def test_pairwise_noise_takes_the_class_with_the_nearest_mean() -> None:
    means = np.array([[0.0, 0], [1, 0], [10, 0], [10, 4]], dtype=np.float32)
    y = np.repeat(np.arange(4), 50)
    x = means[y] + np.random.default_rng(0).normal(0, 0.1, (200, 2)).astype(np.float32)
    assert nearest_classes(x, y, 4).tolist() == [1, 0, 3, 2]
    matrix = transition_matrix(LabelNoise(level=1, kind="pairwise"), list("abcd"), x, y)
    noisy = draw_label_noise(y, np.arange(200), 1.0, matrix, stream(3))
    assert noisy.tolist() == np.repeat([1, 0, 3, 2], 50).tolist()


def test_class_dependent_noise_follows_its_matrix() -> None:
    """A class that is not listed keeps its labels; a class of probability 0 is never drawn."""
    given_matrix = {"type 0": {"type 1": 0.75, "type 0": 0.25}, "type 1": {"type 0": 1.0}}
    noise = LabelNoise(level=1.0, kind="class_dependent", matrix=given_matrix)
    y = np.arange(30_000) % 3
    noisy = draw_label_noise(y, np.arange(len(y)), 1.0, matrix_of(noise), stream(1))
    assert set(noisy[y == 2]) == {2}
    assert set(noisy[y == 1]) == {0}
    assert set(noisy[y == 0]) == {0, 1}
    assert (noisy[y == 0] == 1).mean() == pytest.approx(0.75, abs=5 * np.sqrt(0.1875 / 10_000))


def test_an_unknown_class_of_the_matrix_is_reported() -> None:
    noise = LabelNoise(level=1, kind="class_dependent", matrix={"neuron": {"glia": 1.0}})
    (problem,) = label_noise_problems(noise, list(CLASSES))
    assert "'glia'" in problem
    assert "astrocyte, microglia, neuron" in problem


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"kind": "class_dependent"}, "class_dependent requires a matrix"),
        ({"matrix": {"a": {"b": 1.0}}}, "valid only for the noise class_dependent, not uniform"),
        ({"kind": "class_dependent", "matrix": {"a": {"b": 0.7}}}, "their sum is 0.7"),
        ({"kind": "class_dependent", "matrix": {"a": {"b": 1.5, "a": -0.5}}}, "non-negative"),
        ({"kind": "adversarial"}, "uniform_other"),
        ({"level": 1.01}, "less than or equal to 1"),
    ],
)
def test_invalid_label_noise_is_rejected(content: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LabelNoise.model_validate(content)
