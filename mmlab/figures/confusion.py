"""Heat maps of confusion matrices."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from mmlab.figures.style import DPI, escape_mathtext


def confusion_matrix(counts: NDArray[np.int64], classes: list[str], title: str) -> Figure:
    """Draw a confusion matrix as a heat map, each row normalised to the cells of the true type.

    Parameters
    ----------
    counts
        Number of cells by true (row) and predicted (column) type, shape (n_classes, n_classes).
    classes
        Names of the types, for rows and columns.
    title
        Title of the figure.
    """
    return confusion_matrices({"": counts}, classes, title)


def confusion_matrices(
    matrices: dict[str, NDArray[np.int64]], classes: list[str], title: str
) -> Figure:
    """Draw confusion matrices as heat maps, three per row (figure 2 D of the paper).

    Parameters
    ----------
    matrices
        Number of cells by true (row) and predicted (column) type, by the title of the heat map.
    classes
        Names of the types, for rows and columns.
    title
        Title of the figure.
    """
    n = len(classes)
    size = min(4.5 + 0.28 * n, 16)
    n_columns = min(len(matrices), 3)
    n_rows = -(-len(matrices) // n_columns)
    figure = Figure(figsize=(size * n_columns + 0.8, size * n_rows), dpi=DPI, layout="constrained")
    grid = figure.subplots(n_rows, n_columns, squeeze=False, sharey=True)
    for axes in grid.flat[len(matrices) :]:
        axes.set_axis_off()
    for axes, (name, counts) in zip(grid.flat, matrices.items(), strict=False):
        image = _draw_confusion(axes, counts, [escape_mathtext(text) for text in classes])
        axes.set_title(name, fontsize=10)
    for axes in grid[:, 0]:
        axes.set_ylabel("true cell type")
    figure.suptitle(title, fontsize=11)
    bar = figure.colorbar(image, ax=grid, shrink=0.8)
    bar.set_label("fraction of the cells of the true type")
    return figure


def _draw_confusion(axes: Axes, counts: NDArray[np.int64], labels: list[str]) -> AxesImage:
    """Draw one heat map; write the counts into it if there are at most 15 types."""
    n = len(labels)
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    font = 9 if n <= 15 else 6
    axes.set_xticks(range(n), labels, rotation=90, fontsize=font)
    axes.set_yticks(range(n), labels, fontsize=font)
    axes.set_xlabel("predicted cell type")
    if n <= 15:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                color = "white" if fractions[row, column] > 0.5 else "black"
                axes.text(
                    column, row, str(count), ha="center", va="center", color=color, fontsize=8
                )
    return image
