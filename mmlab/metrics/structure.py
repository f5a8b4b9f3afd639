"""Structure metrics: redundancy, neighbourhood preservation, agreement of clusters and types."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sk
from sklearn.neighbors import NearestNeighbors, kneighbors_graph

Matrix = NDArray[np.float32]
Labels = NDArray[np.int64]

N_NEIGHBORS = 15


def _absolute_correlations(x_panel: Matrix) -> NDArray[np.float64]:
    """Return the absolute Pearson correlation of each pair of genes; 0 for a constant gene."""
    centred = x_panel - x_panel.mean(axis=0, dtype=np.float64)
    centred[:, np.ptp(x_panel, axis=0) == 0] = 0  # the mean of a constant gene may be inexact
    norms = np.linalg.norm(centred, axis=0)
    scaled = np.divide(centred, norms, out=np.zeros_like(centred), where=norms > 0)
    correlations = np.minimum(np.abs(scaled.T @ scaled), 1)  # rounding may exceed 1
    return np.asarray(correlations[np.triu_indices(len(norms), k=1)])


def mean_redundancy(x_panel: Matrix) -> float:
    """Return the mean absolute correlation between different genes of the panel, in [0, 1].

    ``x_panel`` has shape (n_cells, k). A panel of a single gene has redundancy 0.
    """
    pairs = _absolute_correlations(x_panel)
    return float(pairs.mean()) if len(pairs) else 0.0


def max_redundancy(x_panel: Matrix) -> float:
    """Return the largest absolute correlation between different genes of the panel, in [0, 1].

    ``x_panel`` has shape (n_cells, k). A panel of a single gene has redundancy 0.
    """
    return float(_absolute_correlations(x_panel).max(initial=0.0))


def neighbourhood_preservation(
    x_panel: Matrix, x_all: Matrix, n_neighbors: int = N_NEIGHBORS
) -> float:
    """Return the fraction of nearest neighbours by all genes that are neighbours by the panel too.

    The fraction is averaged over the cells, in [0, 1].

    Parameters
    ----------
    x_panel, x_all
        z-scores of the same cells: panel genes (n_cells, k) and all genes (n_cells, n_genes).
    n_neighbors
        Number of neighbours by Euclidean distance, without the cell itself; capped at the
        number of other cells.

    Raises
    ------
    ValueError
        There are fewer than two cells.
    """
    n_cells = len(x_all)
    if n_cells < 2:
        raise ValueError(f"neighbourhoods need at least two cells, got {n_cells}")
    k = min(n_neighbors, n_cells - 1)
    by_panel, by_all = (
        NearestNeighbors(n_neighbors=k).fit(x).kneighbors(return_distance=False)
        for x in (x_panel, x_all)
    )
    shared = [len(np.intersect1d(a, b)) for a, b in zip(by_panel, by_all, strict=True)]
    return float(np.mean(shared) / k)


def leiden_clusters(x_panel: Matrix, seed: int, n_neighbors: int = N_NEIGHBORS) -> Labels:
    """Cluster the cells with the Leiden algorithm on the k-nearest-neighbour graph of the panel.

    The graph connects each cell with its ``n_neighbors`` nearest cells (Euclidean distance,
    unweighted edges). Modularity at resolution 1 is optimised until it no longer increases.

    Parameters
    ----------
    x_panel
        z-scores of the panel genes, shape (n_cells, k).
    seed
        Seed of the random generator of igraph.

    Returns
    -------
    Cluster index of each cell, shape (n_cells,).
    """
    import igraph

    graph = kneighbors_graph(x_panel, min(n_neighbors, len(x_panel) - 1))
    rows, columns = graph.maximum(graph.T).nonzero()
    upper = rows < columns
    undirected = igraph.Graph(len(x_panel), list(zip(rows[upper], columns[upper], strict=True)))
    with _igraph_seed(seed):
        clustering = undirected.community_leiden("modularity", n_iterations=-1)
    return np.asarray(clustering.membership, dtype=np.int64)


@contextmanager
def _igraph_seed(seed: int) -> Iterator[None]:
    """Make igraph use its own generator within the block, instead of Python's global generator."""
    import igraph

    igraph.set_random_number_generator(random.Random(seed))
    try:
        yield
    finally:
        igraph.set_random_number_generator(random)


def nmi(y_true: Labels, clusters: Labels) -> float:
    """Return the normalised mutual information between types and clusters, in [0, 1]."""
    return float(sk.normalized_mutual_info_score(y_true, clusters))


def ari(y_true: Labels, clusters: Labels) -> float:
    """Return the adjusted Rand index between types and clusters, in [-0.5, 1].

    It is 1 for identical partitions and 0 on average for random ones.
    """
    return float(sk.adjusted_rand_score(y_true, clusters))
