"""UMAPs of cells by the genes of a panel alone (figure 3 A and B of the paper)."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

#: Cells that are embedded, at most: more do not show more.
MOST_CELLS = 3000


def umap_coordinates(x: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Two coordinates a cell, by UMAP with the settings of its package.

    Parameters
    ----------
    x
        Cells (n_cells, n_genes), z-scores of the genes of a panel.
    seed
        The same seed gives the same coordinates.

    Returns
    -------
    Shape (n_cells, 2).

    References
    ----------
    McInnes, Healy & Melville, arXiv:1802.03426 (2018).
    """
    with warnings.catch_warnings():
        # It says that a seed keeps it to one thread, and that it has no Tensorflow.
        warnings.simplefilter("ignore")
        import umap

        neighbours = min(15, len(x) - 1)
        found = umap.UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1).fit_transform(x)
    return np.asarray(found, dtype=np.float32)


def cells_to_embed(n_cells: int, seed: int) -> NDArray[np.int64]:
    """Indices of all cells or, of more than :data:`MOST_CELLS`, of so many random ones."""
    if n_cells <= MOST_CELLS:
        return np.arange(n_cells)
    return np.sort(np.random.default_rng(seed).choice(n_cells, MOST_CELLS, replace=False))
