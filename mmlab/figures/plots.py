"""Figures as functions of plain data; nothing is shown, and no global state is touched."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

_DPI = 120
_LINES = ("-", "--", ":", "-.")
_MARKERS = "osD^vP*X"
#: Numbers whose ends have at least this ratio are spaced by their logarithms.
_LOG_FROM = 10


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
    return confusion_matrices({"": counts}, classes, title)


def confusion_matrices(
    matrices: dict[str, NDArray[np.int64]], classes: list[str], title: str
) -> Figure:
    """Heat maps of confusion matrices side by side, three in a row (figure 2 D of the paper).

    Parameters
    ----------
    matrices
        Cells by true (row) and predicted (column) class, under the titles of the maps.
    classes
        Names of rows and columns.
    title
        Above the figure.
    """
    n = len(classes)
    size = min(4.5 + 0.28 * n, 16)
    n_columns = min(len(matrices), 3)
    n_rows = -(-len(matrices) // n_columns)
    figure = Figure(figsize=(size * n_columns + 0.8, size * n_rows), dpi=_DPI, layout="constrained")
    grid = figure.subplots(n_rows, n_columns, squeeze=False, sharey=True)
    for axes in grid.flat[len(matrices) :]:
        axes.set_axis_off()
    for axes, (name, counts) in zip(grid.flat, matrices.items(), strict=False):
        image = _draw_confusion(axes, counts, [plain(text) for text in classes])
        axes.set_title(name, fontsize=10)
    for axes in grid[:, 0]:
        axes.set_ylabel("true type")
    figure.suptitle(title, fontsize=11)
    bar = figure.colorbar(image, ax=grid, shrink=0.8)
    bar.set_label("share of the true type's cells")
    return figure


def _draw_confusion(axes: Axes, counts: NDArray[np.int64], labels: list[str]) -> AxesImage:
    n = len(labels)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    font = 9 if n <= 15 else 6
    axes.set_xticks(range(n), labels, rotation=90, fontsize=font)
    axes.set_yticks(range(n), labels, fontsize=font)
    axes.set_xlabel("predicted type")
    if n <= 15:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                color = "white" if shares[row, column] > 0.5 else "black"
                axes.text(
                    column, row, str(count), ha="center", va="center", color=color, fontsize=8
                )
    return image


def curves(
    panels: dict[str, pd.DataFrame],
    ticks: Sequence[float | int | str],
    xlabel: str,
    ylabels: dict[str, str],
    title: str,
) -> Figure:
    """Lines with bands side by side, the same colour a method in each.

    Parameters
    ----------
    panels
        Under their titles, tables with the columns method, x, mean and std; a missing or NaN std
        has no band.
    ticks
        Places on the axis: numbers, spaced by their ratios where these are large, or texts.
    xlabel
        Of all panels.
    ylabels
        Of each panel; where all have the same, they have the same scale.
    title
        Above the figure.
    """
    figure = Figure(figsize=(5.2 * len(panels) + 2.4, 4.6), dpi=_DPI, layout="constrained")
    numbers = [t for t in ticks if isinstance(t, int | float) and not isinstance(t, bool)]
    numeric = len(numbers) == len(ticks)
    methods = list(dict.fromkeys(m for table in panels.values() for m in table["method"]))
    same = len(set(ylabels.values())) == 1
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=same)
    for axes, (name, table) in zip(grid.flat, panels.items(), strict=True):
        for index, method in enumerate(methods):
            own = table[table["method"] == method]
            x = own["x"] if numeric else own["x"].map(list(ticks).index)
            style = {"color": f"C{index % 10}", "linestyle": _LINES[index // 10 % len(_LINES)]}
            axes.plot(x, own["mean"], marker=_MARKERS[index % len(_MARKERS)], label=method, **style)
            spread = own["std"].fillna(0)
            low, high = own["mean"] - spread, own["mean"] + spread
            axes.fill_between(x, low, high, color=style["color"], alpha=0.12, linewidth=0)
        if not numeric:
            axes.set_xticks(range(len(ticks)), [plain(str(tick)) for tick in ticks])
        elif min(numbers) > 0 and max(numbers) / min(numbers) >= _LOG_FROM:
            axes.set_xscale("log")
            axes.set_xticks(numbers, [f"{tick:g}" for tick in numbers])
            axes.minorticks_off()
        axes.set_title(plain(name), fontsize=10)
        axes.set_xlabel(plain(xlabel))
        axes.set_ylabel(ylabels[name])
        axes.grid(alpha=0.3)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=8)
    figure.suptitle(plain(title), fontsize=11)
    return figure


def cell_maps(
    maps: dict[str, NDArray[np.float32]],
    y: NDArray[np.int64],
    classes: list[str],
    title: str,
    *,
    shared: bool = False,
) -> Figure:
    """Cells in two dimensions, coloured by type; maps side by side, three in a row.

    Parameters
    ----------
    maps
        Coordinates (n_cells, 2) under the titles of the maps.
    y
        Class index of each cell.
    classes
        Names by class index.
    title
        Above the figure.
    shared
        Whether the maps have the same axes.
    """
    n_columns = min(len(maps), 3)
    n_rows = -(-len(maps) // n_columns)
    figure = Figure(figsize=(4.2 * n_columns + 2.2, 4.2 * n_rows), dpi=_DPI, layout="constrained")
    grid = figure.subplots(n_rows, n_columns, squeeze=False, sharex=shared, sharey=shared)
    colors = colormaps["tab20" if len(classes) > 10 else "tab10"]
    for axes in grid.flat[len(maps) :]:
        axes.set_axis_off()
    for axes, (name, places) in zip(grid.flat, maps.items(), strict=False):
        for index, label in enumerate(classes):
            own = places[y == index]
            color, marker = colors(index % colors.N), _MARKERS[index // colors.N % len(_MARKERS)]
            axes.scatter(
                *own.T,
                s=4,
                color=color,
                marker=marker,
                label=plain(label),
                linewidths=0,
                # Thousands of points would make a vector file megabytes.
                rasterized=True,
            )
        axes.set(xticks=[], yticks=[])
        axes.set_title(name, fontsize=10)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside right center",
        fontsize=8,
        markerscale=3,
        ncols=-(-len(classes) // 25),
    )
    figure.suptitle(plain(title), fontsize=11)
    return figure


def variances(table: pd.DataFrame, title: str) -> Figure:
    """Histograms of the variances of all genes, original and reconstructed (figure 3 C).

    Parameters
    ----------
    table
        Columns original and reconstructed, a row a gene.
    title
        Above the figure.
    """
    figure = Figure(figsize=(6.4, 4.2), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    names = ["original", "reconstructed"]
    bins = np.linspace(0, float(np.quantile(table[names], 0.995)), 60).tolist()
    for name in names:
        axes.hist(table[name], bins=bins, alpha=0.6, label=name)
    axes.set_xlabel("variance of a gene over the cells, z-scores")
    axes.set_ylabel("genes")
    axes.legend()
    axes.set_title(plain(title), fontsize=11)
    return figure


def principal_components(table: pd.DataFrame, classes: list[str], title: str) -> Figure:
    """Cells and their reconstructions in the plane of the cells' first principal components.

    Parameters
    ----------
    table
        Columns cell_type, pc1, pc2, reconstructed_pc1, reconstructed_pc2.
    classes
        Names of the types, in the order of their colours.
    title
        Above the figure.
    """
    y = table["cell_type"].map(classes.index).to_numpy()
    maps = {
        "original": table[["pc1", "pc2"]].to_numpy(),
        "reconstructed": table[["reconstructed_pc1", "reconstructed_pc2"]].to_numpy(),
    }
    return cell_maps(maps, y, classes, f"{title}: principal components", shared=True)


def plain(text: str) -> str:
    """Text as it is: a dollar sign in a type's name does not start mathematics."""
    return text.replace("$", r"\$")
