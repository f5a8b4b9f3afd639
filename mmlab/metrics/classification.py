"""How well a classifier tells the types apart from the panel alone.

All take the true and the predicted class indices, each of shape (n_cells,).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sk

Labels = NDArray[np.int64]


def accuracy(y_true: Labels, y_pred: Labels) -> float:
    """Share of cells with the right class: the column "accuracy" of the paper's tables 1, 3."""
    return float(sk.accuracy_score(y_true, y_pred))


def weighted_f1(y_true: Labels, y_pred: Labels) -> float:
    """F1 of each class, weighted by its number of cells: "F1" of the paper's tables 1 and 3."""
    return float(sk.f1_score(y_true, y_pred, average="weighted", zero_division=0))


def balanced_accuracy(y_true: Labels, y_pred: Labels) -> float:
    """Mean recall over the classes that occur in ``y_true``."""
    present = np.unique(y_true)
    recall = sk.recall_score(y_true, y_pred, labels=present, average="macro", zero_division=0)
    return float(recall)


def mean_misclassification(y_true: Labels, y_pred: Labels) -> float:
    """Average misclassification rate as the paper's text defines it (equation 5).

    One minus the mean precision over the classes of ``y_true``; a class that is never
    predicted has precision 0. The published tables report accuracy instead.
    """
    present = np.unique(y_true)
    precision = sk.precision_score(y_true, y_pred, labels=present, average="macro", zero_division=0)
    return float(1 - precision)


def mean_f1(y_true: Labels, y_pred: Labels) -> float:
    """Average F1 as the paper's text defines it (equation 6): unweighted mean over classes.

    The published tables report the weighted F1 instead.
    """
    present = np.unique(y_true)
    return float(sk.f1_score(y_true, y_pred, labels=present, average="macro", zero_division=0))


def per_class_f1(y_true: Labels, y_pred: Labels, n_classes: int) -> NDArray[np.float64]:
    """F1 of each class, shape (n_classes,); NaN for a class that does not occur in ``y_true``."""
    labels = np.arange(n_classes)
    f1 = sk.f1_score(y_true, y_pred, labels=labels, average=None, zero_division=0)
    return np.where(np.isin(labels, y_true), np.asarray(f1, dtype=np.float64), np.nan)


def confusion_matrix(y_true: Labels, y_pred: Labels, n_classes: int) -> NDArray[np.int64]:
    """Number of cells by true class (row) and predicted class (column)."""
    matrix = sk.confusion_matrix(y_true, y_pred, labels=np.arange(n_classes))
    return np.asarray(matrix, dtype=np.int64)
