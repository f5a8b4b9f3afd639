"""What a panel is worth: classifiers and regressions that see the panel's genes alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier

from mmlab.metrics import METRICS, Kind
from mmlab.metrics.classification import confusion_matrix, per_class_f1
from mmlab.metrics.panel import leiden_clusters
from mmlab.metrics.reconstruction import linear_reconstruction

#: The paper's classifiers, by the prefix of their metrics: seed -> unfitted estimator with
#: scikit-learn's defaults (5 neighbours; 100 trees).
CLASSIFIERS: dict[str, Callable[[int], Any]] = {
    "knn": lambda seed: KNeighborsClassifier(),
    "random_forest": lambda seed: RandomForestClassifier(random_state=seed),
}


@dataclass(frozen=True)
class Evaluation:
    """Metrics by name (``knn/accuracy``, ...); by classifier a confusion matrix and F1 a class."""

    metrics: dict[str, float]
    confusion: dict[str, NDArray[np.int64]]
    per_class_f1: dict[str, NDArray[np.float64]]


def score(prefix: str, kind: Kind, *arrays: Any) -> dict[str, float]:
    """All metrics of a kind, as ``prefix/name``."""
    return {
        f"{prefix}/{name}": metric.function(*arrays)
        for name, metric in METRICS.items()
        if metric.kind == kind
    }


def evaluate_panel(
    panel: NDArray[np.int64],
    x_fit: NDArray[np.float32],
    y_fit: NDArray[np.int64],
    x: NDArray[np.float32],
    y: NDArray[np.int64],
    n_classes: int,
    seed: int,
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

    Returns
    -------
    ``knn/...`` and ``random_forest/...`` (classification), ``linear/...`` (all genes from the
    panel, the paper's table 2), ``leiden/...`` (clusters of the panel against the types) and
    ``panel/...`` (redundancy, neighbourhoods); the last two on the cells to judge on alone.
    """
    metrics: dict[str, float] = {}
    confusion: dict[str, NDArray[np.int64]] = {}
    f1: dict[str, NDArray[np.float64]] = {}
    seen = x[:, panel]
    for prefix, make in CLASSIFIERS.items():
        predicted = make(seed).fit(x_fit[:, panel], y_fit).predict(seen)
        metrics |= score(prefix, "classification", y, predicted)
        confusion[prefix] = confusion_matrix(y, predicted, n_classes)
        f1[prefix] = per_class_f1(y, predicted, n_classes)
    metrics |= score("linear", "reconstruction", x, linear_reconstruction(x_fit, x, panel))
    metrics |= score("leiden", "clustering", y, leiden_clusters(seen, seed))
    metrics |= score("panel", "redundancy", seen)
    metrics |= score("panel", "neighbourhood", seen, x)
    return Evaluation(metrics, confusion, f1)
