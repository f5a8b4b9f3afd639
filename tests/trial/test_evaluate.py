"""Evaluation of a panel: classifiers, reconstruction and panel metrics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier
from tiny import as_cells, simulate_cells

from mmlab.datasets.cells import Cells
from mmlab.metrics import METRICS
from mmlab.metrics.structure import mean_redundancy, neighbourhood_preservation
from mmlab.trial.evaluate import CLASSIFIERS, Evaluation, compute_metrics, evaluate_panel

Matrix = NDArray[np.float32]

FIT, HELD_OUT = np.arange(90), np.arange(90, 120)


def evaluate(zscore: Matrix, y_fit: Any, y: Any, panel: Any, seed: int = 0) -> Evaluation:
    return evaluate_panel(
        np.asarray(panel), zscore[FIT], y_fit[FIT], zscore[HELD_OUT], y[HELD_OUT], 3, seed
    )


@pytest.fixture(scope="module")
def of_true_markers(zscore: Matrix, tiny_cells: Cells, true_markers: set[int]) -> Evaluation:
    return evaluate(zscore, tiny_cells.y, tiny_cells.y, sorted(true_markers))


def test_every_registered_metric_is_computed(
    of_true_markers: Evaluation,
) -> None:
    prefixes = {
        "classification": CLASSIFIERS,
        "reconstruction": ["linear"],
        "clustering": ["leiden"],
        "redundancy": ["panel"],
        "neighbourhood": ["panel"],
    }
    expected = {f"{p}/{name}" for name, metric in METRICS.items() for p in prefixes[metric.kind]}
    assert set(of_true_markers.metrics) == expected


def test_the_confusion_matrices_agree_with_the_accuracies(
    of_true_markers: Evaluation, tiny_cells: Cells
) -> None:
    assert set(of_true_markers.confusion) == set(CLASSIFIERS)
    for name, matrix in of_true_markers.confusion.items():
        np.testing.assert_array_equal(
            matrix.sum(axis=1), np.bincount(tiny_cells.y[HELD_OUT], minlength=3)
        )
        accuracy = np.trace(matrix) / matrix.sum()
        assert of_true_markers.metrics[f"{name}/accuracy"] == pytest.approx(accuracy)


def test_knn_uses_scikit_learns_defaults_on_the_panel_genes(
    zscore: Matrix, tiny_cells: Cells, of_true_markers: Evaluation, true_markers: set[int]
) -> None:
    x, y = zscore[:, sorted(true_markers)], tiny_cells.y
    expected = (
        KNeighborsClassifier(n_neighbors=5).fit(x[FIT], y[FIT]).score(x[HELD_OUT], y[HELD_OUT])
    )
    assert of_true_markers.metrics["knn/accuracy"] == pytest.approx(expected)


def test_true_markers_score_higher_than_uninformative_genes(
    zscore: Matrix, tiny_cells: Cells, of_true_markers: Evaluation, true_markers: set[int]
) -> None:
    uninformative = [gene for gene in range(40) if gene not in true_markers][:9]
    of_uninformative = evaluate(zscore, tiny_cells.y, tiny_cells.y, uninformative)
    for name in ("knn/accuracy", "random_forest/accuracy", "knn/weighted_f1"):
        assert of_true_markers.metrics[name] > 0.9
        assert of_uninformative.metrics[name] < of_true_markers.metrics[name] - 0.2
    assert of_true_markers.metrics["linear/l2"] < of_uninformative.metrics["linear/l2"]


def test_random_labels_give_chance_accuracy() -> None:
    cells = as_cells(simulate_cells(n_cells=900))
    x = np.log1p(cells.adata.X.toarray())
    y = np.random.default_rng(0).permutation(cells.y)
    fit, held_out = np.arange(450), np.arange(450, 900)
    metrics = evaluate_panel(np.arange(9), x[fit], y[fit], x[held_out], y[held_out], 3, 0).metrics
    five_standard_errors = 5 * np.sqrt(1 / 3 * 2 / 3 / 450)
    for name in CLASSIFIERS:
        assert metrics[f"{name}/accuracy"] == pytest.approx(1 / 3, abs=five_standard_errors)


def test_only_the_forest_and_the_clusters_depend_on_the_seed(
    zscore: Matrix, tiny_cells: Cells
) -> None:
    # Uninformative genes: forests with different seeds differ on them.
    genes = [0, 1, 3]
    one, same, other = (
        evaluate(zscore, tiny_cells.y, tiny_cells.y, genes, seed).metrics for seed in (0, 0, 1)
    )
    assert one == same
    changed = {name for name in one if one[name] != other[name]}
    assert changed
    assert all(name.startswith(("random_forest/", "leiden/")) for name in changed)


def test_labels_to_fit_on_and_labels_to_evaluate_on_are_separate(
    zscore: Matrix, tiny_cells: Cells, true_markers: set[int]
) -> None:
    panel = sorted(true_markers)
    shifted = (tiny_cells.y + 1) % 3
    correct = evaluate(zscore, tiny_cells.y, tiny_cells.y, panel).metrics
    shifted_metrics = evaluate(zscore, shifted, tiny_cells.y, panel).metrics
    assert correct["knn/accuracy"] > 0.9
    assert shifted_metrics["knn/accuracy"] < 0.1
    assert shifted_metrics["linear/l2"] == correct["linear/l2"]


def test_evaluation_does_not_change_numpys_global_random_state(
    zscore: Matrix, tiny_cells: Cells
) -> None:
    np.random.seed(3)  # noqa: NPY002
    before = np.random.get_state()  # noqa: NPY002
    evaluate(zscore, tiny_cells.y, tiny_cells.y, [0, 1])
    after = np.random.get_state()  # noqa: NPY002
    assert before[2] == after[2]
    np.testing.assert_array_equal(before[1], after[1])


def test_compute_metrics_returns_the_metrics_of_one_kind() -> None:
    y = np.array([0, 1, 1])
    scores = compute_metrics("mine", "classification", y, y)
    assert scores["mine/accuracy"] == 1
    assert "mine/l2" not in scores


def test_panel_metrics_are_computed_on_the_held_out_cells(
    zscore: Matrix, of_true_markers: Evaluation, true_markers: set[int]
) -> None:
    x = zscore[HELD_OUT]
    x_panel = x[:, sorted(true_markers)]
    metrics = of_true_markers.metrics
    assert metrics["panel/mean_redundancy"] == pytest.approx(mean_redundancy(x_panel))
    expected = neighbourhood_preservation(x_panel, x)
    assert metrics["panel/neighbourhood_preservation"] == pytest.approx(expected)
    assert metrics["leiden/nmi"] > 0.2


def test_the_mean_of_per_class_f1_is_the_macro_f1(of_true_markers: Evaluation) -> None:
    for name in CLASSIFIERS:
        f1 = of_true_markers.per_class_f1[name]
        assert f1.shape == (3,)
        assert np.nanmean(f1) == pytest.approx(of_true_markers.metrics[f"{name}/mean_f1"])
