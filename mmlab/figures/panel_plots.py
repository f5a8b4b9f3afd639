"""A panel by cell type (dot plot) and as UMAPs."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
from matplotlib import pyplot
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mmlab import figures
from mmlab.datasets.cells import Cells
from mmlab.figures.embedding import cells_to_embed, umap_coordinates
from mmlab.preprocessing.expression import Expression, ZScores, to_dense

#: Genes that the dot plot shows, at most: more cannot be read.
MOST_DOTS = 60


#: Cells of each type that the dot plot is drawn from, at most.
_CELLS_A_TYPE = 500


def dot_plot(genes: NDArray[np.int64], cells: Cells) -> Figure:
    """Scanpy's dot plot of genes by type; of large types a sample of the cells."""
    import scanpy as sc

    rng = np.random.default_rng(0)
    shown = np.concatenate(
        [
            rng.permutation(np.flatnonzero(cells.y == c))[:_CELLS_A_TYPE]
            for c in range(len(cells.classes))
        ]
    )
    values = Expression(cells.adata.X, "log1p", cells.normalization)[shown, genes].toarray()
    names = [figures.plain(gene) for gene in cells.genes[genes]]
    types = pd.Categorical([figures.plain(cells.classes[c]) for c in cells.y[shown]])
    small = ad.AnnData(values, obs=pd.DataFrame({"type": types}, index=shown.astype(str)))
    small.var_names = names
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plot = sc.pl.dotplot(
            small, names, "type", standard_scale="var", return_fig=True, show=False
        )
        plot.make_figure()
    # Scanpy draws with pyplot, which would keep the figure for ever; it can still be saved.
    pyplot.close(plot.fig)
    figure: Figure = plot.fig
    return figure


def umaps(genes: NDArray[np.int64], cells: Cells, zscore: ZScores) -> Figure:
    """Cells by the panel alone beside cells by all genes."""
    shown = cells_to_embed(len(zscore), 0)
    seen = to_dense(zscore[shown])
    maps = {
        f"{len(genes)} genes of the panel": umap_coordinates(seen[:, genes], 0),
        f"all {zscore.shape[1]} genes": umap_coordinates(seen, 0),
    }
    return figures.cell_maps(maps, cells.y[shown], cells.classes, f"{cells.name}: UMAP")
