"""mRMR: genes of maximum relevance for the classes and minimum redundancy in the panel."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mmlab.preprocessing.expression import to_dense
from mmlab.preprocessing.normalization import Layer
from mmlab.selectors.ranking_selector import RankingSelector

#: Lower bound of the mean absolute correlation, so that the quotient stays meaningful.
MIN_REDUNDANCY = 1e-3


class Mrmr(RankingSelector):
    """Greedy selection by the quotient of relevance and redundancy, on log1p values.

    The first gene is the one with the largest relevance; each further step adds the gene with
    the largest quotient. The relevance of a gene is the F statistic of the one-way analysis of
    variance over the classes. Its redundancy is the mean absolute Pearson correlation with the
    genes chosen before, or 0.001 if that is larger. This is the F-test correlation quotient
    (FCQ). The score of a gene is its F statistic.

    Parameters
    ----------
    n_markers
        Size of the panel.
    seed
        Not used: the method is deterministic.

    References
    ----------
    Ding and Peng, Journal of Bioinformatics and Computational Biology 2005; Zhao et al.,
    "Maximum relevance and minimum redundancy feature selection methods for a marketing machine
    learning platform", DSAA 2019, FCQ.
    """

    layer: ClassVar[Layer] = "log1p"
    summary: ClassVar[str] = "high F statistic, low correlation with the genes chosen before (mRMR)"
    reference: ClassVar[str] = "Zhao et al., DSAA 2019"

    def __init__(self, n_markers: int = 50, *, seed: int = 0) -> None:
        self.n_markers = n_markers
        self.seed = seed

    def _rank_genes(self, X: Any, y: NDArray[np.int64] | None) -> tuple[Any, Any]:
        cells = np.ascontiguousarray(to_dense(X))
        score = relevance(cells, np.asarray(y))
        return greedy_ranking(cells, score, self.n_markers), score


def relevance(X: NDArray[np.float32], y: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the F statistic of each gene, finite.

    It is 0 for a constant gene. For a gene that varies only between classes, where the statistic
    is infinite, it is larger than for all other genes.
    """
    # Sums of squares of deviations: differences of sums of squares, as f_classif computes them,
    # cancel where a gene hardly varies within the classes, and the statistic may become negative.
    mean = X.mean(axis=0, dtype=np.float64)
    within, between = np.zeros(X.shape[1]), np.zeros(X.shape[1])
    classes = np.unique(y)
    for label in classes:
        cells = X[y == label]
        centre = cells.mean(axis=0, dtype=np.float64)
        within += np.square(cells - centre).sum(axis=0)
        between += len(cells) * np.square(centre - mean)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = between * (len(X) - len(classes)) / (within * (len(classes) - 1))
    largest = statistic[np.isfinite(statistic)].max(initial=0)
    return np.nan_to_num(statistic, nan=0, posinf=2 * largest + 1)


def greedy_ranking(
    X: NDArray[np.float32], relevance: NDArray[np.float64], k: int
) -> NDArray[np.int64]:
    """Return k gene indices in the order of a greedy selection by relevance over redundancy.

    Parameters
    ----------
    X
        log1p values, shape (n_cells, n_genes).
    relevance
        Relevance of each gene, not negative, shape (n_genes,).
    k
        Number of genes. The run time is O(k * n_cells * n_genes).
    """
    z = X - X.mean(axis=0, dtype=np.float64).astype(np.float32)
    norm = np.linalg.norm(z, axis=0)
    z /= np.where(norm > 0, norm, 1)
    correlation = np.zeros(X.shape[1])
    taken = np.zeros(X.shape[1], dtype=bool)
    chosen = [int(np.argmax(relevance))]
    for n_chosen in range(1, k):
        taken[chosen[-1]] = True
        correlation += np.abs(z[:, chosen[-1]] @ z)
        quotient = relevance / np.maximum(correlation / n_chosen, MIN_REDUNDANCY)
        chosen.append(int(np.argmax(np.where(taken, -np.inf, quotient))))
    return np.array(chosen, dtype=np.int64)
