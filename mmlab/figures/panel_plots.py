"""Plots of a panel: expression by cell type as a dot plot, and UMAPs of the cells."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
from matplotlib import pyplot
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from mmlab.datasets.cells import Cells
from mmlab.figures.embedding import sample_cells, umap_coordinates
from mmlab.figures.scatter_plots import cell_maps
from mmlab.figures.style import figure_labels
from mmlab.preprocessing.expression import Expression, ZScores, to_dense

#: Maximum number of genes in a dot plot: more are not legible.
MAX_DOT_PLOT_GENES = 60
#: Number of principal components of all genes that are embedded, as in scanpy.
N_COMPONENTS = 50
#: Number of genes from which they are the rows of the dot plot, not the columns.
_GENES_AS_ROWS = 20
#: Maximum number of cells of each type that the dot plot is computed from.
_CELLS_PER_TYPE = 500


def dot_plot(genes: NDArray[np.int64], cells: Cells) -> Figure:
    """Draw scanpy's dot plot of genes by cell type.

    Each gene is scaled to 0 to 1 over the types. Types of more than 500 cells are sampled.
    """
    import scanpy as sc

    rng = np.random.default_rng(0)
    indices = np.concatenate(
        [
            rng.permutation(np.flatnonzero(cells.y == c))[:_CELLS_PER_TYPE]
            for c in range(len(cells.classes))
        ]
    )
    values = Expression(cells.adata.X, "log1p", cells.normalization)[indices, genes].toarray()
    names = figure_labels(cells.genes[genes])
    labels = figure_labels(cells.classes)
    types = pd.Categorical([labels[c] for c in cells.y[indices]])
    small = ad.AnnData(values, obs=pd.DataFrame({"type": types}, index=indices.astype(str)))
    small.var_names = names
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plot = sc.pl.dotplot(
            small,
            names,
            "type",
            standard_scale="var",
            swap_axes=len(genes) >= _GENES_AS_ROWS,
            return_fig=True,
            show=False,
        )
        plot.make_figure()
    # Scanpy draws with pyplot, which keeps a figure until it is closed. It can still be saved.
    pyplot.close(plot.fig)
    figure: Figure = plot.fig
    return figure


def plot_umaps(genes: NDArray[np.int64], cells: Cells, zscore: ZScores) -> Figure:
    """Draw UMAPs of the cells from the panel's genes and from all genes, side by side.

    Of all genes the principal components are embedded: distances over thousands of genes are
    mostly noise.
    """
    indices = sample_cells(len(zscore), 0)
    values = to_dense(zscore[indices])
    n_components = min(N_COMPONENTS, *values.shape)
    components = PCA(n_components, random_state=0).fit_transform(values)
    maps = {
        f"{len(genes)} genes of the panel": umap_coordinates(values[:, genes], 0),
        f"all {zscore.shape[1]} genes": umap_coordinates(components, 0),
    }
    return cell_maps(maps, cells.y[indices], cells.classes, f"{cells.name}: UMAP")
