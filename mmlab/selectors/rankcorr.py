"""RankCorr: sparse separation of each class from the rest by the ranks of gene expression."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from mmlab.preprocessing.expression import to_dense
from mmlab.selectors.ranking_selector import RankingSelector

#: Bound s on the squared 1-norm in the published benchmark, for every panel size.
PUBLISHED_SPARSITY = 20.0

#: Genes per chunk: ranks are float64, and those of all genes would need much memory.
_GENES_PER_CHUNK = 512


class RankCorr(RankingSelector):
    """Genes whose ranks separate a class from the rest.

    The expression of each gene is replaced by its standardised rank among the cells. For every
    class, v is the sum of the ranks over the cells, with a minus sign outside the class, and
    RankCorr maximises ``<v, w>`` subject to ``||w||_2 <= 1`` and ``||w||_1 <= sqrt(s)``. The
    genes with a nonzero weight, of either sign, are the support of the class.

    The sparsity s is the largest for which the supports of all classes together have at most
    ``n_markers`` genes. The genes with the highest scores fill the rest of the panel. The score
    of a gene is the largest ``|v| / max |v|`` over the classes, in [0, 1].

    Parameters
    ----------
    n_markers
        Size of the panel.
    faithful
        Follow the published benchmark: s = 20 for any number of markers, and the panel is the
        first genes of the union of the supports in the order of a Python set of gene indices,
        which is unrelated to their relevance.
    seed
        Not used: the method is deterministic.

    References
    ----------
    Vargo and Gilbert, "A rank-based marker selection method for high throughput scRNA-seq
    data", BMC Bioinformatics 2020, methods; Gregory et al. 2024, its use as a baseline.
    """

    summary: ClassVar[str] = "sparse separation of each cell type by gene ranks (RankCorr)"
    reference: ClassVar[str] = "Vargo and Gilbert, BMC Bioinformatics 2020"

    def __init__(self, n_markers: int = 50, *, faithful: bool = False, seed: int = 0) -> None:
        self.n_markers = n_markers
        self.faithful = faithful
        self.seed = seed

    def _rank_genes(self, X: Any, y: NDArray[np.int64] | None) -> tuple[Any, Any]:
        v = rank_correlations(to_dense(X), np.asarray(y))
        strength = np.abs(v)
        scores = np.max(strength / np.maximum(strength.max(axis=1, keepdims=True), 1e-300), axis=0)
        by_score = np.argsort(-scores, kind="stable")
        if self.faithful:
            first = published_order(v, PUBLISHED_SPARSITY)
            return list(dict.fromkeys([*first, *by_score.tolist()])), scores
        chosen = union_of_supports(v, largest_sparsity(v, self.n_markers))
        return np.concatenate([by_score[chosen[by_score]], by_score[~chosen[by_score]]]), scores


def rank_correlations(X: NDArray[np.float32], y: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the sum over the cells of each gene's standardised rank, negated outside the class.

    Parameters
    ----------
    X
        Cells, shape (n_cells, n_genes). Only the order of the values of a gene matters.
    y
        Class index of each cell.

    Returns
    -------
    ``v``, shape (n_classes, n_genes), one row per class in ``y``, ascending.
    """
    signs = np.where(y == np.unique(y)[:, None], 1.0, -1.0)
    v = np.empty((len(signs), X.shape[1]))
    for start in range(0, X.shape[1], _GENES_PER_CHUNK):
        part = slice(start, start + _GENES_PER_CHUNK)
        ranks = rankdata(X[:, part], axis=0)
        ranks -= ranks.mean(axis=0)
        spread = ranks.std(axis=0)
        v[:, part] = signs @ (ranks / np.where(spread > 0, spread, 1e-7))
    return v


def support(v: NDArray[np.float64], s: float) -> NDArray[np.bool_]:
    """Return which genes have a nonzero weight in the solution for one class.

    The solution is ``v`` soft-thresholded. The threshold is lowered from one value of ``|v|`` to
    the next until the 1-norm exceeds ``sqrt(s)`` times the 2-norm.

    Parameters
    ----------
    v
        The row of the class, shape (n_genes,).
    s
        Bound on the squared 1-norm, at least 1.

    Returns
    -------
    Mask, shape (n_genes,).
    """
    size = np.abs(v)
    # Thresholds are distances below the largest value, as differences of large sums lose digits.
    below = np.sort(size.max() - size)
    n_above = np.arange(len(below))
    sums = np.cumsum(below) - below
    squares = np.cumsum(below**2) - below**2
    norm_1 = n_above * below - sums
    norm_2 = np.sqrt(np.maximum(n_above * below**2 - 2 * below * sums + squares, 0))
    # The maximum itself is no threshold: no gene would be above it.
    exceeds = (below > 0) & (norm_1 > np.sqrt(s) * norm_2 * (1 + 1e-12))
    if not exceeds.any():
        mask: NDArray[np.bool_] = size > 0
        return mask
    return np.asarray(size.max() - size < below[np.argmax(exceeds)])


def union_of_supports(v: NDArray[np.float64], s: float) -> NDArray[np.bool_]:
    """Return which genes are in the support of any class; ``v`` has shape (n_classes, n_genes)."""
    union: NDArray[np.bool_] = np.any([support(row, s) for row in v], axis=0)
    return union


def largest_sparsity(v: NDArray[np.float64], k: int) -> float:
    """Return the largest s in [1, n_genes] with at most k genes in the union, or 1 without any.

    The supports grow with s. It is found by bisection to a relative precision of 1e-6.
    """
    low, high = 1.0, float(v.shape[1])
    if np.count_nonzero(union_of_supports(v, high)) <= k:
        return high
    while high - low > 1e-6 * low:
        middle = (low + high) / 2
        if np.count_nonzero(union_of_supports(v, middle)) <= k:
            low = middle
        else:
            high = middle
    return low


def published_order(v: NDArray[np.float64], s: float) -> list[int]:
    """Return the union of the supports in the order of the published code.

    It is the iteration order of a Python set, which depends on the order of insertion: class by
    class, by ascending gene index.
    """
    union: set[int] = set()
    for row in v:
        union |= {int(gene) for gene in np.flatnonzero(support(row, s))}
    return list(union)
