"""Scatter plots of cells in two dimensions, coloured by type."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mmlab.figures.style import DPI, MARKERS, MAX_AXES, MAX_TITLE, figure_labels, figure_text


def cell_maps(
    maps: dict[str, NDArray[np.float32]],
    y: NDArray[np.int64],
    classes: list[str],
    title: str,
    *,
    shared: bool = False,
) -> Figure:
    """Draw cells in two dimensions, coloured by type; three maps per row.

    Parameters
    ----------
    maps
        Coordinates, shape (n_cells, 2), by the title of the map.
    y
        Class index of each cell, shape (n_cells,).
    classes
        Names of the types by class index.
    title
        Title of the figure.
    shared
        Whether the maps share their axes.
    """
    n_columns = min(len(maps), 3)
    n_rows = -(-len(maps) // n_columns)
    figure = Figure(figsize=(4.2 * n_columns + 2.2, 4.2 * n_rows), dpi=DPI, layout="constrained")
    grid = figure.subplots(n_rows, n_columns, squeeze=False, sharex=shared, sharey=shared)
    colors = colormaps["tab20" if len(classes) > 10 else "tab10"]
    for axes in grid.flat[len(maps) :]:
        axes.set_axis_off()
    for axes, (name, coordinates) in zip(grid.flat, maps.items(), strict=False):
        for index, label in enumerate(figure_labels(classes)):
            part = coordinates[y == index]
            color, marker = colors(index % colors.N), MARKERS[index // colors.N % len(MARKERS)]
            axes.scatter(
                *part.T,
                s=4,
                color=color,
                marker=marker,
                label=label,
                linewidths=0,
                # As vectors, thousands of points would take megabytes.
                rasterized=True,
            )
        axes.set(xticks=[], yticks=[])
        axes.set_title(figure_text(name, MAX_AXES), fontsize=10)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside right center",
        fontsize=8,
        markerscale=3,
        ncols=-(-len(classes) // 25),
    )
    figure.suptitle(figure_text(title, MAX_TITLE), fontsize=11)
    return figure
