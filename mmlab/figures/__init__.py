"""Plotting functions. They take data frames and return matplotlib figures; nothing is displayed."""

from __future__ import annotations

from mmlab.figures.confusion import confusion_matrices, confusion_matrix
from mmlab.figures.decoder_plots import principal_components, variances
from mmlab.figures.line_plots import curves
from mmlab.figures.scatter_plots import cell_maps
from mmlab.figures.search_plots import parameter_importances, parameter_scores, search_history

__all__ = [
    "cell_maps",
    "confusion_matrices",
    "confusion_matrix",
    "curves",
    "parameter_importances",
    "parameter_scores",
    "principal_components",
    "search_history",
    "variances",
]
