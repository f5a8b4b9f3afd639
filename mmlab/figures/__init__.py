"""Plotting functions. They take data frames and return matplotlib figures; nothing is displayed."""

from __future__ import annotations

from mmlab.figures.plots import (
    cell_maps,
    confusion_matrices,
    confusion_matrix,
    curves,
    plain,
    principal_components,
    variances,
)

__all__ = [
    "cell_maps",
    "confusion_matrices",
    "confusion_matrix",
    "curves",
    "plain",
    "principal_components",
    "variances",
]
