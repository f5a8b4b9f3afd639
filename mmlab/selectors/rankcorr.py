"""RankCorr: sparse separation of each class from the rest on the ranks of the genes."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from mmlab.preprocessing.expression import to_dense
from mmlab.selectors.direct import DirectSelector

#: Bound on the squared 1-norm that the published benchmark used for every panel size.
PUBLISHED_SPARSITY = 20.0

#: Genes that are ranked at a time: ranks are double precision and need not all exist at once.
_GENES_AT_ONCE = 512


class RankCorr(DirectSelector):
    """The genes that separate some class from the rest by their ranks.

    For every class, RankCorr maximises ``<v, w>`` over ``||w||_2 <= 1``,
    ``||w||_1 <= sqrt(s)``, where ``v`` sums the standardised ranks of the cells, with a minus
    outside the class. The genes with a weight are its support, whatever their sign. Here ``s``
    is the largest for which the supports of all classes together have at most ``n_markers``
    genes; the best of the other genes fill the panel. The score of a gene is the largest
    ``|v| / max |v|`` over the classes, in [0, 1].

    Parameters
    ----------
    n_markers
        Size of the panel.
    faithful
        As the published benchmark: s = 20 for any number of markers, and the first ones of the
        union in the order of a Python set of gene indices, which is not one of relevance.
    seed
        Not used: the method is deterministic.

    References
    ----------
    Vargo and Gilbert, "A rank-based marker selection method for high throughput scRNA-seq
    data", BMC Bioinformatics 2020, methods; Gregory et al. 2024, its
    use as a baseline.
    """

    summary: ClassVar[str] = "sparse separation of each type by gene ranks (RankCorr)"
    reference: ClassVar[str] = "Vargo and Gilbert, BMC Bioinformatics 2020"

    def __init__(self, n_markers: int = 50, *, faithful: bool = False, seed: int = 0) -> None:
        self.n_markers = n_markers
        self.faithful = faithful
        self.seed = seed

    def _select(self, X: Any, y: NDArray[np.int64] | None) -> tuple[Any, Any]:
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
    """Sum over the cells of the standardised ranks of each gene, negated outside the class.

    Parameters
    ----------
    X
        Cells, shape (n_cells, n_genes); only the order of a gene's values matters.
    y
        Class of each cell.

    Returns
    -------
    ``v``, shape (n_classes, n_genes), a row for each class that occurs, ascending.
    """
    signs = np.where(y == np.unique(y)[:, None], 1.0, -1.0)
    v = np.empty((len(signs), X.shape[1]))
    for start in range(0, X.shape[1], _GENES_AT_ONCE):
        part = slice(start, start + _GENES_AT_ONCE)
        ranks = rankdata(X[:, part], axis=0)
        ranks -= ranks.mean(axis=0)
        spread = ranks.std(axis=0)
        v[:, part] = signs @ (ranks / np.where(spread > 0, spread, 1e-7))
    return v


def support(v: NDArray[np.float64], s: float) -> NDArray[np.bool_]:
    """Genes with a weight in the solution of the problem of one class.

    The solution is ``v`` soft-thresholded: the threshold is lowered from one value of ``|v|``
    to the next until the 1-norm exceeds ``sqrt(s)`` times the 2-norm.

    Parameters
    ----------
    v
        Shape (n_genes,).
    s
        Bound on the squared 1-norm, at least 1.

    Returns
    -------
    Mask, shape (n_genes,).
    """
    size = np.abs(v)
    # Thresholds as distances below the largest value: differences of large sums lose digits.
    below = np.sort(size.max() - size)
    n_above = np.arange(len(below))
    sums = np.cumsum(below) - below
    squares = np.cumsum(below**2) - below**2
    norm_1 = n_above * below - sums
    norm_2 = np.sqrt(np.maximum(n_above * below**2 - 2 * below * sums + squares, 0))
    # The first threshold is the largest value that differs from the maximum: nothing is above 0.
    exceeds = (below > 0) & (norm_1 > np.sqrt(s) * norm_2 * (1 + 1e-12))
    if not exceeds.any():
        mask: NDArray[np.bool_] = size > 0
        return mask
    return np.asarray(size.max() - size < below[np.argmax(exceeds)])


def union_of_supports(v: NDArray[np.float64], s: float) -> NDArray[np.bool_]:
    """Genes in the support of any class; ``v`` has shape (n_classes, n_genes)."""
    union: NDArray[np.bool_] = np.any([support(row, s) for row in v], axis=0)
    return union


def largest_sparsity(v: NDArray[np.float64], k: int) -> float:
    """Largest s in [1, n_genes] with at most k genes in the union; 1 where there is none.

    The supports grow with s, so bisection finds it, to a relative precision of 1e-6.
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
    """The union in the order in which the published code lists it.

    The order of a set of integers depends on the order in which they were put in: class by
    class, by ascending gene index.
    """
    union: set[int] = set()
    for row in v:
        union |= {int(gene) for gene in np.flatnonzero(support(row, s))}
    return list(union)
