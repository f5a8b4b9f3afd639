"""UMAP embedding of cells from the genes of a panel (figure 3 A and B of the paper)."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

#: Maximum number of cells to embed: more cells do not make a map clearer.
MAX_EMBEDDED_CELLS = 3000


def umap_coordinates(x: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Return two UMAP coordinates per cell, with the default parameters of umap-learn.

    ``n_neighbors`` is at most the number of other cells.

    Parameters
    ----------
    x
        z-scores of the genes of a panel, shape (n_cells, n_markers).
    seed
        Random state; the same seed gives the same coordinates.

    Returns
    -------
    float32, shape (n_cells, 2).

    References
    ----------
    McInnes, Healy & Melville, arXiv:1802.03426 (2018).
    """
    with warnings.catch_warnings():
        # umap warns that a seed restricts it to one thread and that Tensorflow is not installed.
        warnings.simplefilter("ignore")
        import umap

        n_neighbors = min(15, len(x) - 1)
        reducer = umap.UMAP(n_neighbors=n_neighbors, random_state=seed, n_jobs=1)
        coordinates = reducer.fit_transform(x)
    return np.asarray(coordinates, dtype=np.float32)


def sample_cells(n_cells: int, seed: int) -> NDArray[np.int64]:
    """Return the indices of the cells to embed, ascending.

    All cells, or a random sample of :data:`MAX_EMBEDDED_CELLS` if there are more.
    """
    if n_cells <= MAX_EMBEDDED_CELLS:
        return np.arange(n_cells)
    return np.sort(np.random.default_rng(seed).choice(n_cells, MAX_EMBEDDED_CELLS, replace=False))
