"""Figures as functions of plain data; nothing is shown, and no global state is touched."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

_DPI = 120


def confusion_matrix(counts: NDArray[np.int64], classes: list[str], title: str) -> Figure:
    """Heat map of a confusion matrix, rows normalised to the cells of the true class.

    Parameters
    ----------
    counts
        Cells by true (row) and predicted (column) class.
    classes
        Names of rows and columns.
    title
        Above the figure.
    """
    n = len(classes)
    size = min(4.5 + 0.28 * n, 16)
    figure = Figure(figsize=(size + 0.8, size), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    labels = [_plain(name) for name in classes]
    font = 9 if n <= 15 else 6
    axes.set_xticks(range(n), labels, rotation=90, fontsize=font)
    axes.set_yticks(range(n), labels, fontsize=font)
    axes.set_xlabel("predicted type")
    axes.set_ylabel("true type")
    axes.set_title(title, fontsize=11)
    if n <= 15:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                color = "white" if shares[row, column] > 0.5 else "black"
                axes.text(
                    column, row, str(count), ha="center", va="center", color=color, fontsize=8
                )
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    bar.set_label("share of the true type's cells")
    return figure


def _plain(text: str) -> str:
    """Text as it is: a dollar sign in a type's name does not start mathematics."""
    return text.replace("$", r"\$")
