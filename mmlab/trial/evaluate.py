"""Evaluate a panel: fit classifiers and a linear regression on its genes, compute all metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier

from mmlab.metrics import METRICS, Kind
from mmlab.metrics.classification import confusion_matrix, per_class_f1
from mmlab.metrics.reconstruction import (
    linear_reconstruction,
    reconstruction_by_type,
    squared_error_per_cell,
)
from mmlab.metrics.structure import leiden_clusters
from mmlab.preprocessing.expression import ZScores, to_dense

#: The paper's classifiers by the prefix of their metrics: seed -> unfitted estimator with
#: scikit-learn's defaults (5 neighbours; 100 trees).
CLASSIFIERS: dict[str, Callable[[int], Any]] = {
    "knn": lambda seed: KNeighborsClassifier(),
    "random_forest": lambda seed: RandomForestClassifier(random_state=seed),
}

#: Prefix of a classifier that is fitted on true labels although the method saw noisy ones.
CLEAN_PREFIX = "clean_"


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a panel.

    Attributes
    ----------
    metrics
        Value by name: ``knn/accuracy``, ...
    confusion
        Confusion matrix by classifier, int64, shape (n_classes, n_classes), rows are true classes.
    per_class_f1
        F1 of each class by classifier, shape (n_classes,).
    per_class_reconstruction
        Reconstruction metric of each class, shape (n_classes,), by source of the reconstruction
        and measure: ``linear/jaccard``, ..., ``decoder/l2``.
    per_cell
        Value of each evaluated cell, shape (n_cells,), by name of the metric that is their mean:
        1 or 0 for ``knn/accuracy`` and ``random_forest/accuracy``, the squared error averaged over
        genes for ``linear/l2``. Empty if it was not requested.
    """

    metrics: dict[str, float]
    confusion: dict[str, NDArray[np.int64]]
    per_class_f1: dict[str, NDArray[np.float64]]
    per_class_reconstruction: dict[str, NDArray[np.float64]]
    per_cell: dict[str, NDArray[np.int64] | NDArray[np.float64]]


def compute_metrics(prefix: str, kind: Kind, *arrays: Any) -> dict[str, float]:
    """Compute all metrics of one kind, named ``prefix/metric``."""
    return {
        f"{prefix}/{name}": metric.function(*arrays)
        for name, metric in METRICS.items()
        if metric.kind == kind
    }


def metrics_by_type(
    prefix: str,
    x: NDArray[np.float32],
    reconstructed: NDArray[np.float32],
    y: NDArray[np.int64],
    n_classes: int,
) -> dict[str, NDArray[np.float64]]:
    """Compute reconstruction metrics on the cells of each type, named ``prefix/measure``."""
    values_by_name = reconstruction_by_type(x, reconstructed, y, n_classes)
    return {f"{prefix}/{name}": values for name, values in values_by_name.items()}


def evaluate_panel(
    panel: NDArray[np.int64],
    x_fit: ZScores,
    y_fit: NDArray[np.int64],
    x: NDArray[np.float32],
    y: NDArray[np.int64],
    n_classes: int,
    seed: int,
    *,
    clean_labels: NDArray[np.int64] | None = None,
    keep_cells: bool = False,
) -> Evaluation:
    """Fit the paper's classifiers and regression on a panel and evaluate them on other cells.

    Parameters
    ----------
    panel
        Gene indices.
    x_fit, y_fit
        Cells to fit on, z-scores of shape (n_cells, n_genes), and their class indices.
    x, y
        Cells to evaluate on, z-scores of shape (n_cells, n_genes), and their true class indices.
    n_classes
        Number of rows and columns of the confusion matrices.
    seed
        Seed of the random forest and of the clustering.
    clean_labels
        True classes of the cells to fit on, if ``y_fit`` has noisy labels: each classifier is
        then also fitted on the true ones.
    keep_cells
        Whether to return the values of each cell, ``Evaluation.per_cell``.

    Returns
    -------
    Metrics ``knn/...`` and ``random_forest/...`` (classification), ``clean_knn/...`` and
    ``clean_random_forest/...`` (the same classifiers fitted on ``clean_labels``), ``linear/...``
    (all genes reconstructed from the panel, table 2 of the paper), ``leiden/...`` (clusters of
    the panel compared with the cell types) and ``panel/...`` (redundancy, neighbourhoods). The
    last two are computed on the cells to evaluate on and need no fit.
    """
    metrics: dict[str, float] = {}
    confusion: dict[str, NDArray[np.int64]] = {}
    f1: dict[str, NDArray[np.float64]] = {}
    per_cell: dict[str, NDArray[np.int64] | NDArray[np.float64]] = {}
    x_panel, x_fit_panel = x[:, panel], to_dense(x_fit[:, panel])
    labels_by_prefix = {"": y_fit} | ({} if clean_labels is None else {CLEAN_PREFIX: clean_labels})
    for (label_prefix, labels), (name, make) in product(
        labels_by_prefix.items(), CLASSIFIERS.items()
    ):
        prefix = label_prefix + name
        predicted = make(seed).fit(x_fit_panel, labels).predict(x_panel)
        metrics |= compute_metrics(prefix, "classification", y, predicted)
        confusion[prefix] = confusion_matrix(y, predicted, n_classes)
        f1[prefix] = per_class_f1(y, predicted, n_classes)
        if keep_cells and not label_prefix:
            per_cell[f"{name}/accuracy"] = (predicted == y).astype(np.int64)
    reconstructed = linear_reconstruction(x_fit, x, panel)
    metrics |= compute_metrics("linear", "reconstruction", x, reconstructed)
    if keep_cells:
        per_cell["linear/l2"] = squared_error_per_cell(x, reconstructed)
    metrics |= compute_metrics("leiden", "clustering", y, leiden_clusters(x_panel, seed))
    metrics |= compute_metrics("panel", "redundancy", x_panel)
    metrics |= compute_metrics("panel", "neighbourhood", x_panel, x)
    by_type = metrics_by_type("linear", x, reconstructed, y, n_classes)
    return Evaluation(metrics, confusion, f1, by_type, per_cell)
