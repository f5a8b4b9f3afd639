"""Metrics: common properties of all of them, and comparison with other implementations."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable

import igraph
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as sk

from mmlab.metrics import METRICS, classification, reconstruction
from mmlab.metrics.structure import (
    ari,
    leiden_clusters,
    max_redundancy,
    mean_redundancy,
    neighbourhood_preservation,
    nmi,
)

Labels = NDArray[np.int64]
Matrix = NDArray[np.float32]

every_metric = pytest.mark.parametrize("name", sorted(METRICS))
every_metric_of_two = pytest.mark.parametrize(
    "name", sorted(name for name in METRICS if METRICS[name].kind != "redundancy")
)


@st.composite
def label_pairs(draw: st.DrawFn) -> tuple[Labels, Labels]:
    """True and predicted class indices; a class may be missing from either."""
    n = draw(st.integers(min_value=1, max_value=40))
    classes = st.integers(min_value=0, max_value=draw(st.integers(1, 5)))
    one, other = (draw(st.lists(classes, min_size=n, max_size=n)) for _ in range(2))
    return np.asarray(one, dtype=np.int64), np.asarray(other, dtype=np.int64)


def matrix_pair(seed: int) -> tuple[Matrix, Matrix]:
    rng = np.random.default_rng(seed)
    shape = rng.integers(2, 12, size=2)  # a single cell has no variance to explain
    truth, prediction = rng.normal(size=(2, *shape)).astype(np.float32)
    return truth, prediction


def arrays_for(name: str, seed: int) -> tuple[NDArray[np.generic], ...]:
    """Return random arguments for the kind of a metric; rows are cells."""
    if METRICS[name].kind == "redundancy":
        return matrix_pair(seed)[:1]
    if METRICS[name].kind in ("reconstruction", "neighbourhood"):
        return matrix_pair(seed)
    rng = np.random.default_rng(seed)
    n, n_classes = rng.integers(1, 40), rng.integers(2, 6)
    truth, prediction = rng.integers(n_classes, size=(2, n))
    return truth, prediction


# --- properties of every metric


@every_metric
@given(seed=st.integers(0, 10_000))
def test_values_are_within_the_range(name: str, seed: int) -> None:
    metric = METRICS[name]
    value = metric.function(*arrays_for(name, seed))
    assert type(value) is float
    assert metric.low <= value <= metric.high


@every_metric_of_two
@given(seed=st.integers(0, 10_000))
def test_a_perfect_prediction_has_the_best_value(name: str, seed: int) -> None:
    metric = METRICS[name]
    truth, _ = arrays_for(name, seed)
    best = metric.high if metric.direction == "max" else metric.low
    assert metric.function(truth, truth.copy()) == pytest.approx(best, abs=1e-12)


@every_metric_of_two
def test_a_better_prediction_has_a_better_value(name: str) -> None:
    metric = METRICS[name]
    truth = np.random.default_rng(0).integers(3, size=30)
    axis = 0
    if metric.kind == "neighbourhood":
        truth = np.random.default_rng(0).normal(size=(30, 2))
    elif metric.kind == "reconstruction":
        # Genes of increasing variance, rolled over genes: variances ignore the order of cells.
        truth, axis = np.random.default_rng(0).normal(size=(30, 10)) * np.arange(1, 11), 1
    better, worse = truth.copy(), np.roll(truth, 1, axis=axis)
    better[:5] = worse[:5]
    gain = metric.function(truth, better) - metric.function(truth, worse)
    assert gain > 0 if metric.direction == "max" else gain < 0


@every_metric
@given(seed=st.integers(0, 10_000))
def test_the_order_of_the_cells_does_not_matter(name: str, seed: int) -> None:
    metric = METRICS[name]
    arrays = arrays_for(name, seed)
    order = np.random.default_rng(seed + 1).permutation(len(arrays[0]))
    shuffled = metric.function(*(array[order] for array in arrays))
    rounding = 1e-12 if metric.kind in ("classification", "clustering") else 1e-5
    expected = metric.function(*arrays)
    assert shuffled == pytest.approx(expected, rel=rounding, abs=rounding)


@every_metric
def test_a_metric_does_not_change_its_arguments(name: str) -> None:
    arrays = arrays_for(name, 1)
    for array in arrays:
        array.setflags(write=False)
    assert np.isfinite(METRICS[name].function(*arrays))


# --- classification, compared with other implementations


def counts(y_true: Labels, y_pred: Labels, label: int) -> tuple[int, int, int]:
    """Return true positives, false positives and false negatives of a class."""
    tp = int(((y_true == label) & (y_pred == label)).sum())
    return tp, int((y_pred == label).sum()) - tp, int((y_true == label).sum()) - tp


def precision_by_hand(y_true: Labels, y_pred: Labels, label: int) -> float:
    tp, fp, _ = counts(y_true, y_pred, label)
    return tp / (tp + fp) if tp + fp else 0.0


def f1_by_hand(y_true: Labels, y_pred: Labels, label: int) -> float:
    tp, fp, fn = counts(y_true, y_pred, label)
    return 2 * tp / (2 * tp + fp + fn)


@given(label_pairs())
def test_balanced_accuracy_equals_scikit_learn(pair: tuple[Labels, Labels]) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="y_pred contains classes not in y_true")
        warnings.filterwarnings("ignore", message="A single label was found")
        expected = sk.balanced_accuracy_score(*pair)
    assert classification.balanced_accuracy(*pair) == pytest.approx(expected)


@given(label_pairs())
def test_accuracy_is_the_fraction_of_correct_cells(pair: tuple[Labels, Labels]) -> None:
    assert classification.accuracy(*pair) == pytest.approx(np.mean(pair[0] == pair[1]))


@given(label_pairs())
def test_mean_misclassification_is_one_minus_the_mean_precision(
    pair: tuple[Labels, Labels],
) -> None:
    precision = [precision_by_hand(*pair, label) for label in np.unique(pair[0])]
    expected = 1 - np.mean(precision)
    assert classification.mean_misclassification(*pair) == pytest.approx(expected)


@given(label_pairs())
def test_mean_f1_is_the_unweighted_mean_over_the_true_classes(pair: tuple[Labels, Labels]) -> None:
    f1 = [f1_by_hand(*pair, label) for label in np.unique(pair[0])]
    assert classification.mean_f1(*pair) == pytest.approx(np.mean(f1))


@given(label_pairs())
def test_weighted_f1_is_weighted_by_true_class_size(pair: tuple[Labels, Labels]) -> None:
    present, size = np.unique(pair[0], return_counts=True)
    f1 = [f1_by_hand(*pair, label) for label in present]
    assert classification.weighted_f1(*pair) == pytest.approx(np.average(f1, weights=size))


def test_averages_of_an_example_calculated_by_hand() -> None:
    y_true = np.array([0, 0, 0, 0, 1, 1])
    y_pred = np.array([0, 0, 0, 1, 1, 2])
    # precision: 3/3, 1/2; recall: 3/4, 1/2; F1: 6/7, 1/2.
    assert classification.accuracy(y_true, y_pred) == pytest.approx(4 / 6)
    assert classification.balanced_accuracy(y_true, y_pred) == pytest.approx(5 / 8)
    assert classification.mean_misclassification(y_true, y_pred) == pytest.approx(1 / 4)
    assert classification.mean_f1(y_true, y_pred) == pytest.approx((6 / 7 + 1 / 2) / 2)
    assert classification.weighted_f1(y_true, y_pred) == pytest.approx(4 / 6 * 6 / 7 + 1 / 6)


@given(label_pairs())
def test_the_confusion_matrix_counts_every_cell_once(pair: tuple[Labels, Labels]) -> None:
    matrix = classification.confusion_matrix(*pair, 7)
    expected = np.zeros((7, 7), dtype=np.int64)
    for true, predicted in zip(*pair, strict=True):
        expected[true, predicted] += 1
    np.testing.assert_array_equal(matrix, expected)
    assert matrix.dtype == np.int64


# --- reconstruction, compared with other implementations


@given(st.integers(0, 10_000))
def test_errors_are_means_over_all_cells_and_genes(seed: int) -> None:
    x, rebuilt = matrix_pair(seed)
    differences = [float(a) - float(b) for a, b in zip(x.ravel(), rebuilt.ravel(), strict=True)]
    l2 = sum(d * d for d in differences) / len(differences)
    l1 = sum(abs(d) for d in differences) / len(differences)
    assert reconstruction.mean_squared_error(x, rebuilt) == pytest.approx(l2, rel=1e-5)
    assert reconstruction.mean_absolute_error(x, rebuilt) == pytest.approx(l1, rel=1e-5)


@pytest.mark.parametrize(
    ("rebuild", "expected"),
    [
        (lambda x: x, 1.0),
        (lambda x: np.broadcast_to(x.mean(axis=0), x.shape), 0.0),
        (lambda x: (x + x.mean(axis=0)) / 2, 0.75),
    ],
    ids=["perfect", "mean", "halfway"],
)
def test_explained_variance_is_one_for_a_perfect_and_zero_for_a_mean_reconstruction(
    rebuild: Callable[[Matrix], Matrix], expected: float
) -> None:
    x = np.random.default_rng(0).normal(3, 2, size=(50, 6)).astype(np.float32)
    assert reconstruction.explained_variance(x, rebuild(x)) == pytest.approx(expected, abs=1e-6)


def test_explained_variance_of_constant_genes_is_nan() -> None:
    # The mean of three times 0.1 is not 0.1 in float32.
    x = np.tile(np.array([0.1, 0.7], dtype=np.float32), (3, 1))
    assert np.isnan(reconstruction.explained_variance(x, x + 1))


def test_f1_per_class_is_nan_for_absent_classes() -> None:
    y_true, y_pred = np.array([0, 0, 2, 2, 2]), np.array([0, 1, 2, 2, 0])
    found = classification.per_class_f1(y_true, y_pred, 4)
    np.testing.assert_allclose(found, [0.5, np.nan, 0.8, np.nan])


# --- structure


@given(seed=st.integers(0, 10_000))
def test_redundancy_is_the_correlation_of_numpy(seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(20, 5)).astype(np.float32)
    pairs = np.abs(np.corrcoef(x, rowvar=False))[np.triu_indices(5, k=1)]
    assert mean_redundancy(x) == pytest.approx(pairs.mean(), abs=1e-5)
    assert max_redundancy(x) == pytest.approx(pairs.max(), abs=1e-5)


def test_a_copied_gene_is_redundant_and_a_constant_or_single_gene_is_not() -> None:
    x = np.random.default_rng(0).normal(size=(20, 1)).astype(np.float32)
    assert max_redundancy(np.hstack([x, -2 * x])) == pytest.approx(1)
    assert max_redundancy(np.hstack([x, np.ones_like(x)])) == 0
    assert mean_redundancy(x) == max_redundancy(x) == 0
    # The mean of three times 0.1 is not 0.1 in floating point.
    assert max_redundancy(np.tile([0.1, 0.7], (3, 1))) == 0


def test_neighbourhood_preservation_equals_brute_force() -> None:
    x = np.random.default_rng(1).normal(size=(30, 6)).astype(np.float32)
    panel = x[:, :2]

    def nearest(points: Matrix, cell: int) -> set[int]:
        distance = np.linalg.norm(points - points[cell], axis=1)
        distance[cell] = np.inf
        return set(np.argsort(distance)[:4].tolist())

    expected = np.mean([len(nearest(panel, i) & nearest(x, i)) / 4 for i in range(30)])
    assert neighbourhood_preservation(panel, x, n_neighbors=4) == pytest.approx(expected)
    assert neighbourhood_preservation(x, x) == 1
    # With few cells all other cells are neighbours.
    assert neighbourhood_preservation(panel[:5], x[:5], n_neighbors=15) == 1
    with pytest.raises(ValueError, match="at least two cells, got 1"):
        neighbourhood_preservation(panel[:1], x[:1])


def test_leiden_separates_distant_clusters() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 40)
    x = (rng.normal(size=(120, 4)) + 50 * y[:, None]).astype(np.float32)
    clusters = leiden_clusters(x, seed=0)
    # A type may be split, but no cluster contains cells of two types.
    assert all(len(np.unique(y[clusters == c])) == 1 for c in np.unique(clusters))
    assert nmi(y, y[::-1]) == ari(y, y) == 1


def test_leiden_is_reproducible_and_does_not_use_the_global_generator() -> None:
    x = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    random.seed(1)
    before = random.getstate()
    one = leiden_clusters(x, seed=0)
    assert random.getstate() == before
    random.seed(2)
    np.testing.assert_array_equal(leiden_clusters(x, seed=0), one)


def test_igraph_uses_the_global_generator_again_after_leiden() -> None:
    leiden_clusters(np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32), seed=0)
    before = random.getstate()
    igraph.Graph.Erdos_Renyi(20, 0.5)
    assert random.getstate() != before
