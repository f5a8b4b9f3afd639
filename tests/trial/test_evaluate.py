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

FIT, JUDGE = np.arange(90), np.arange(90, 120)


def evaluate(zscore: Matrix, y_fit: Any, y: Any, panel: Any, seed: int = 0) -> Evaluation:
    return evaluate_panel(
        np.asarray(panel), zscore[FIT], y_fit[FIT], zscore[JUDGE], y[JUDGE], 3, seed
    )


@pytest.fixture(scope="module")
def of_true_markers(zscore: Matrix, tiny_cells: Cells, true_markers: set[int]) -> Evaluation:
    return evaluate(zscore, tiny_cells.y, tiny_cells.y, sorted(true_markers))


def test_the_metrics_are_all_of_each_classifier_and_of_the_regression(
    of_true_markers: Evaluation,
) -> None:
    where = {
        "classification": CLASSIFIERS,
        "reconstruction": ["linear"],
        "clustering": ["leiden"],
        "redundancy": ["panel"],
        "neighbourhood": ["panel"],
    }
    expected = {f"{p}/{name}" for name, metric in METRICS.items() for p in where[metric.kind]}
    assert set(of_true_markers.metrics) == expected


def test_the_confusion_matrices_agree_with_the_accuracies(
    of_true_markers: Evaluation, tiny_cells: Cells
) -> None:
    assert set(of_true_markers.confusion) == set(CLASSIFIERS)
    for name, matrix in of_true_markers.confusion.items():
        np.testing.assert_array_equal(
            matrix.sum(axis=1), np.bincount(tiny_cells.y[JUDGE], minlength=3)
        )
        accuracy = np.trace(matrix) / matrix.sum()
        assert of_true_markers.metrics[f"{name}/accuracy"] == pytest.approx(accuracy)


def test_knn_has_scikit_learns_defaults_on_the_panel_alone(
    zscore: Matrix, tiny_cells: Cells, of_true_markers: Evaluation, true_markers: set[int]
) -> None:
    x, y = zscore[:, sorted(true_markers)], tiny_cells.y
    expected = KNeighborsClassifier(n_neighbors=5).fit(x[FIT], y[FIT]).score(x[JUDGE], y[JUDGE])
    assert of_true_markers.metrics["knn/accuracy"] == pytest.approx(expected)


def test_true_markers_beat_genes_that_tell_nothing(
    zscore: Matrix, tiny_cells: Cells, of_true_markers: Evaluation, true_markers: set[int]
) -> None:
    others = [gene for gene in range(40) if gene not in true_markers][:9]
    of_others = evaluate(zscore, tiny_cells.y, tiny_cells.y, others)
    for name in ("knn/accuracy", "random_forest/accuracy", "knn/weighted_f1"):
        assert of_true_markers.metrics[name] > 0.9
        assert of_others.metrics[name] < of_true_markers.metrics[name] - 0.2
    assert of_true_markers.metrics["linear/l2"] < of_others.metrics["linear/l2"]


def test_random_labels_give_the_accuracy_of_chance() -> None:
    cells = as_cells(simulate_cells(n_cells=900))
    x = np.log1p(cells.adata.X.toarray())
    y = np.random.default_rng(0).permutation(cells.y)
    fit, judge = np.arange(450), np.arange(450, 900)
    metrics = evaluate_panel(np.arange(9), x[fit], y[fit], x[judge], y[judge], 3, 0).metrics
    five_standard_errors = 5 * np.sqrt(1 / 3 * 2 / 3 / 450)
    for name in CLASSIFIERS:
        assert metrics[f"{name}/accuracy"] == pytest.approx(1 / 3, abs=five_standard_errors)


def test_the_forest_repeats_with_its_seed_and_the_rest_does_not_depend_on_it(
    zscore: Matrix, tiny_cells: Cells
) -> None:
    # Genes that tell little: forests of two seeds differ there.
    genes = [0, 1, 3]
    one, same, other = (
        evaluate(zscore, tiny_cells.y, tiny_cells.y, genes, seed).metrics for seed in (0, 0, 1)
    )
    assert one == same
    changed = {name for name in one if one[name] != other[name]}
    assert changed
    assert all(name.startswith(("random_forest/", "leiden/")) for name in changed)


def test_the_labels_to_fit_on_and_to_judge_on_are_told_apart(
    zscore: Matrix, tiny_cells: Cells, true_markers: set[int]
) -> None:
    panel = sorted(true_markers)
    shifted = (tiny_cells.y + 1) % 3
    right = evaluate(zscore, tiny_cells.y, tiny_cells.y, panel).metrics
    wrong = evaluate(zscore, shifted, tiny_cells.y, panel).metrics
    assert right["knn/accuracy"] > 0.9
    assert wrong["knn/accuracy"] < 0.1
    assert wrong["linear/l2"] == right["linear/l2"]


def test_evaluating_does_not_touch_numpys_global_generator(
    zscore: Matrix, tiny_cells: Cells
) -> None:
    np.random.seed(3)  # noqa: NPY002
    before = np.random.get_state()  # noqa: NPY002
    evaluate(zscore, tiny_cells.y, tiny_cells.y, [0, 1])
    after = np.random.get_state()  # noqa: NPY002
    assert before[2] == after[2]
    np.testing.assert_array_equal(before[1], after[1])


def test_score_names_the_metrics_of_one_kind() -> None:
    y = np.array([0, 1, 1])
    scores = compute_metrics("mine", "classification", y, y)
    assert scores["mine/accuracy"] == 1
    assert "mine/l2" not in scores


def test_the_panel_itself_is_measured_on_the_cells_to_judge_on(
    zscore: Matrix, of_true_markers: Evaluation, true_markers: set[int]
) -> None:
    x = zscore[JUDGE]
    seen = x[:, sorted(true_markers)]
    metrics = of_true_markers.metrics
    assert metrics["panel/mean_redundancy"] == pytest.approx(mean_redundancy(seen))
    expected = neighbourhood_preservation(seen, x)
    assert metrics["panel/neighbourhood_preservation"] == pytest.approx(expected)
    assert metrics["leiden/nmi"] > 0.2


def test_f1_of_each_class_averages_to_the_macro_f1(of_true_markers: Evaluation) -> None:
    for name in CLASSIFIERS:
        f1 = of_true_markers.per_class_f1[name]
        assert f1.shape == (3,)
        assert np.nanmean(f1) == pytest.approx(of_true_markers.metrics[f"{name}/mean_f1"])
