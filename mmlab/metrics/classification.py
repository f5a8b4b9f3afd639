"""Classification metrics: how well cell types are predicted from the panel genes.

All functions take the true and the predicted class indices, each of shape (n_cells,). Tables and
equations are those of the paper (Gregory et al. 2024).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sk

Labels = NDArray[np.int64]


def accuracy(y_true: Labels, y_pred: Labels) -> float:
    """Return the fraction of correctly classified cells ("accuracy" in tables 1 and 3)."""
    return float(sk.accuracy_score(y_true, y_pred))


def weighted_f1(y_true: Labels, y_pred: Labels) -> float:
    """Return the mean F1 weighted by class size ("F1" in tables 1 and 3)."""
    return float(sk.f1_score(y_true, y_pred, average="weighted", zero_division=0))


def balanced_accuracy(y_true: Labels, y_pred: Labels) -> float:
    """Return the mean recall over the classes that occur in ``y_true``."""
    present = np.unique(y_true)
    recall = sk.recall_score(y_true, y_pred, labels=present, average="macro", zero_division=0)
    return float(recall)


def mean_misclassification(y_true: Labels, y_pred: Labels) -> float:
    """Return the average misclassification rate as defined in the paper (equation 5).

    It is one minus the mean precision over the classes of ``y_true``; a class that is never
    predicted has precision 0. The published tables report accuracy instead.
    """
    present = np.unique(y_true)
    precision = sk.precision_score(y_true, y_pred, labels=present, average="macro", zero_division=0)
    return float(1 - precision)


def mean_f1(y_true: Labels, y_pred: Labels) -> float:
    """Return the average F1 as defined in the paper (equation 6).

    It is the unweighted mean over the classes of ``y_true``. The published tables report the
    weighted F1 instead.
    """
    present = np.unique(y_true)
    return float(sk.f1_score(y_true, y_pred, labels=present, average="macro", zero_division=0))


def per_class_f1(y_true: Labels, y_pred: Labels, n_classes: int) -> NDArray[np.float64]:
    """Return the F1 of each class, shape (n_classes,); NaN for classes not in ``y_true``."""
    labels = np.arange(n_classes)
    f1 = sk.f1_score(y_true, y_pred, labels=labels, average=None, zero_division=0)
    return np.where(np.isin(labels, y_true), np.asarray(f1, dtype=np.float64), np.nan)


def confusion_matrix(y_true: Labels, y_pred: Labels, n_classes: int) -> NDArray[np.int64]:
    """Return the number of cells per true class (row) and predicted class (column)."""
    matrix = sk.confusion_matrix(y_true, y_pred, labels=np.arange(n_classes))
    return np.asarray(matrix, dtype=np.int64)
