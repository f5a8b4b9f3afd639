"""What a panel keeps of the cells, and how much its genes repeat each other."""

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
    """|Pearson correlation| of every pair of different genes; 0 for a gene that does not vary."""
    centred = x_panel - x_panel.mean(axis=0, dtype=np.float64)
    centred[:, np.ptp(x_panel, axis=0) == 0] = 0  # their mean may be off by rounding
    norms = np.linalg.norm(centred, axis=0)
    scaled = np.divide(centred, norms, out=np.zeros_like(centred), where=norms > 0)
    correlations = np.minimum(np.abs(scaled.T @ scaled), 1)  # rounding goes beyond 1
    return np.asarray(correlations[np.triu_indices(len(norms), k=1)])


def mean_redundancy(x_panel: Matrix) -> float:
    """Mean absolute correlation between different genes of the panel, in [0, 1].

    ``x_panel`` has shape (n_cells, k). One gene alone repeats nothing: 0.
    """
    pairs = _absolute_correlations(x_panel)
    return float(pairs.mean()) if len(pairs) else 0.0


def max_redundancy(x_panel: Matrix) -> float:
    """Largest absolute correlation between different genes of the panel, in [0, 1].

    ``x_panel`` has shape (n_cells, k). One gene alone repeats nothing: 0.
    """
    return float(_absolute_correlations(x_panel).max(initial=0.0))


def neighbourhood_preservation(
    x_panel: Matrix, x_all: Matrix, n_neighbors: int = N_NEIGHBORS
) -> float:
    """Share of a cell's nearest neighbours by all genes that the panel finds too; mean over cells.

    Parameters
    ----------
    x_panel, x_all
        The same cells by the panel's genes and by all genes, z-scores.
    n_neighbors
        Euclidean neighbours, the cell itself left out; at most all other cells.

    Raises
    ------
    ValueError
        A single cell has no neighbours.
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
    """Clusters of the cells by Leiden's algorithm on the neighbour graph of the panel.

    The graph joins a cell with its ``n_neighbors`` nearest ones (Euclidean), without weights;
    modularity at resolution 1 is optimised until it no longer rises.

    Parameters
    ----------
    x_panel
        Cells by the panel's genes, z-scores, shape (n_cells, k).
    seed
        Of the algorithm's random order.

    Returns
    -------
    Cluster of each cell, shape (n_cells,).
    """
    import igraph

    graph = kneighbors_graph(x_panel, min(n_neighbors, len(x_panel) - 1))
    rows, columns = graph.maximum(graph.T).nonzero()
    upper = rows < columns
    joined = igraph.Graph(len(x_panel), list(zip(rows[upper], columns[upper], strict=True)))
    with _igraph_seed(seed):
        found = joined.community_leiden("modularity", n_iterations=-1)
    return np.asarray(found.membership, dtype=np.int64)


@contextmanager
def _igraph_seed(seed: int) -> Iterator[None]:
    """Let igraph draw from a generator of its own: by default it draws from Python's global."""
    import igraph

    igraph.set_random_number_generator(random.Random(seed))
    try:
        yield
    finally:
        igraph.set_random_number_generator(random)


def nmi(y_true: Labels, clusters: Labels) -> float:
    """Normalised mutual information between types and clusters, in [0, 1]."""
    return float(sk.normalized_mutual_info_score(y_true, clusters))


def ari(y_true: Labels, clusters: Labels) -> float:
    """Adjusted Rand index between types and clusters: 1 for equal partitions, 0 by chance."""
    return float(sk.adjusted_rand_score(y_true, clusters))
