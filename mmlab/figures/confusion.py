"""Heat maps of confusion matrices."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from mmlab.figures.style import DPI, MAX_AXES, MAX_TITLE, figure_labels, figure_text

#: Width in inches at which text is still legible on a page.
_MAX_WIDTH = 15
#: Maximum number of types whose counts are written into the heat map.
_MAX_COUNTED = 15
#: Length of labels in characters that the margins hold, and inches of each further character.
_SHORT, _CHARACTER = 20, 0.08


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
    """Draw confusion matrices as heat maps (figure 2 D of the paper).

    Up to three are side by side; those of many types are one per row.

    Parameters
    ----------
    matrices
        Number of cells by true (row) and predicted (column) type, by the title of the heat map.
    classes
        Names of the types, for rows and columns.
    title
        Title of the figure.
    """
    n, labels = len(classes), figure_labels(classes)
    size = 1.8 + 0.42 * n if n <= _MAX_COUNTED else 3 + 0.2 * n
    size += _CHARACTER * max(max(map(len, labels)) - _SHORT, 0)
    n_columns = max(1, min(len(matrices), 3, int(_MAX_WIDTH / size)))
    n_rows = -(-len(matrices) // n_columns)
    figure = Figure(figsize=(size * n_columns + 0.8, size * n_rows), dpi=DPI, layout="constrained")
    grid = figure.subplots(n_rows, n_columns, squeeze=False, sharey=True)
    for axes in grid.flat[len(matrices) :]:
        axes.set_axis_off()
    for axes, (name, counts) in zip(grid.flat, matrices.items(), strict=False):
        image = _draw_confusion(axes, counts, labels)
        axes.set_title(figure_text(name, MAX_AXES), fontsize=10)
    for axes in grid[:, 0]:
        axes.set_ylabel("true cell type")
    figure.suptitle(figure_text(title, MAX_TITLE), fontsize=11)
    bar = figure.colorbar(image, ax=grid, shrink=0.8 / n_rows, anchor=(0, 1))
    bar.set_label("fraction of the cells of the true type")
    return figure


def _draw_confusion(axes: Axes, counts: NDArray[np.int64], labels: list[str]) -> AxesImage:
    """Draw one heat map; write the counts into it if the types are few."""
    n = len(labels)
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    font = 9 if n <= _MAX_COUNTED else 8
    axes.set_xticks(range(n), labels, rotation=90, fontsize=font)
    axes.set_yticks(range(n), labels, fontsize=font)
    axes.set_xlabel("predicted cell type")
    if n <= _MAX_COUNTED:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                color = "white" if fractions[row, column] > 0.5 else "black"
                axes.text(
                    column, row, str(count), ha="center", va="center", color=color, fontsize=8
                )
    return image
