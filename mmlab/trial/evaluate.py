"""What a panel is worth: classifiers and regressions that see the panel's genes alone."""

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
from mmlab.metrics.reconstruction import linear_reconstruction, reconstruction_by_type
from mmlab.metrics.structure import leiden_clusters
from mmlab.preprocessing.expression import ZScores, to_dense

#: The paper's classifiers, by the prefix of their metrics: seed -> unfitted estimator with
#: scikit-learn's defaults (5 neighbours; 100 trees).
CLASSIFIERS: dict[str, Callable[[int], Any]] = {
    "knn": lambda seed: KNeighborsClassifier(),
    "random_forest": lambda seed: RandomForestClassifier(random_state=seed),
}

#: Before the prefix of a classifier that was fitted on true labels while the method was not.
CLEAN_PREFIX = "clean_"


@dataclass(frozen=True)
class Evaluation:
    """What a panel is worth.

    Attributes
    ----------
    metrics
        By name: ``knn/accuracy``, ...
    confusion, per_class_f1
        By classifier.
    per_class_reconstruction
        By what reconstructs and measure: ``linear/jaccard``, ..., ``decoder/l2``; a number a class.
    """

    metrics: dict[str, float]
    confusion: dict[str, NDArray[np.int64]]
    per_class_f1: dict[str, NDArray[np.float64]]
    per_class_reconstruction: dict[str, NDArray[np.float64]]


def compute_metrics(prefix: str, kind: Kind, *arrays: Any) -> dict[str, float]:
    """All metrics of a kind, as ``prefix/name``."""
    return {
        f"{prefix}/{name}": metric.function(*arrays)
        for name, metric in METRICS.items()
        if metric.kind == kind
    }


def metrics_by_type(
    prefix: str,
    x: NDArray[np.float32],
    rebuilt: NDArray[np.float32],
    y: NDArray[np.int64],
    n_classes: int,
) -> dict[str, NDArray[np.float64]]:
    """Measures of a reconstruction on each type's cells, as ``prefix/measure``."""
    found = reconstruction_by_type(x, rebuilt, y, n_classes)
    return {f"{prefix}/{name}": values for name, values in found.items()}


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
) -> Evaluation:
    """Fit the paper's classifiers and its regression on the panel, judge them on other cells.

    Parameters
    ----------
    panel
        Gene indices.
    x_fit, y_fit
        Cells (n_cells, n_genes), z-scores, and class indices to fit on.
    x, y
        Cells and true class indices to judge on.
    n_classes
        Rows and columns of the confusion matrices.
    seed
        Of the random forest and of the clustering.
    clean_labels
        True classes of the cells to fit on, where ``y_fit`` holds wrong ones: each classifier is
        also fitted on these.

    Returns
    -------
    ``knn/...`` and ``random_forest/...`` (classification), ``clean_knn/...`` and
    ``clean_random_forest/...`` (the same with ``clean_labels``), ``linear/...`` (all genes from the
    panel, the paper's table 2), ``leiden/...`` (clusters of the panel against the types) and
    ``panel/...`` (redundancy, neighbourhoods); the last two on the cells to judge on alone.
    """
    metrics: dict[str, float] = {}
    confusion: dict[str, NDArray[np.int64]] = {}
    f1: dict[str, NDArray[np.float64]] = {}
    seen, fitted = x[:, panel], to_dense(x_fit[:, panel])
    fitted_on = {"": y_fit} | ({} if clean_labels is None else {CLEAN_PREFIX: clean_labels})
    for (kind, labels), (classifier, make) in product(fitted_on.items(), CLASSIFIERS.items()):
        prefix = kind + classifier
        predicted = make(seed).fit(fitted, labels).predict(seen)
        metrics |= compute_metrics(prefix, "classification", y, predicted)
        confusion[prefix] = confusion_matrix(y, predicted, n_classes)
        f1[prefix] = per_class_f1(y, predicted, n_classes)
    rebuilt = linear_reconstruction(x_fit, x, panel)
    metrics |= compute_metrics("linear", "reconstruction", x, rebuilt)
    metrics |= compute_metrics("leiden", "clustering", y, leiden_clusters(seen, seed))
    metrics |= compute_metrics("panel", "redundancy", seen)
    metrics |= compute_metrics("panel", "neighbourhood", seen, x)
    return Evaluation(metrics, confusion, f1, metrics_by_type("linear", x, rebuilt, y, n_classes))
