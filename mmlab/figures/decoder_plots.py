"""Plots of cells and of their reconstruction by a method's decoder (figure 3 C of the paper)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mmlab.figures.scatter_plots import cell_maps
from mmlab.figures.style import DPI, MAX_TITLE, figure_text


def variances(table: pd.DataFrame, title: str) -> Figure:
    """Draw histograms of the variances of all genes, original and reconstructed (figure 3 C).

    Parameters
    ----------
    table
        Columns original and reconstructed, one row per gene.
    title
        Title of the figure.
    """
    figure = Figure(figsize=(6.4, 4.2), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    names = ["original", "reconstructed"]
    bins = np.linspace(0, float(np.quantile(table[names], 0.995)), 60).tolist()
    for name in names:
        axes.hist(table[name], bins=bins, alpha=0.6, label=name)
    axes.set_xlabel("variance of a gene over cells (z-scores)")
    axes.set_ylabel("number of genes")
    axes.legend()
    axes.set_title(figure_text(title, MAX_TITLE), fontsize=11)
    return figure


def principal_components(table: pd.DataFrame, classes: list[str], title: str) -> Figure:
    """Draw original and reconstructed cells on the first two principal components (figure 3 C).

    The components are those of the original cells.

    Parameters
    ----------
    table
        Columns cell_type, pc1, pc2, reconstructed_pc1, reconstructed_pc2; one row per cell.
    classes
        Names of the types, which sets the order of the colours.
    title
        Title of the figure.
    """
    y = table["cell_type"].map(classes.index).to_numpy()
    maps = {
        "original": table[["pc1", "pc2"]].to_numpy(),
        "reconstructed": table[["reconstructed_pc1", "reconstructed_pc2"]].to_numpy(),
    }
    return cell_maps(maps, y, classes, f"{title}: principal components", shared=True)
