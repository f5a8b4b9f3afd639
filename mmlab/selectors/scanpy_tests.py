"""Differential expression tests of Scanpy, each class against the rest."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.errors import PerformanceWarning

from mmlab.selectors.class_rankings import merge_rankings
from mmlab.selectors.ranking_selector import RankingSelector


def to_anndata(X: Any, y: NDArray[np.int64]) -> tuple[ad.AnnData, list[str]]:
    """Return the cells as AnnData, and the classes that can be tested.

    The classes are in ``obs["y"]``, a categorical whose categories are ordered by class index. A
    class with a single cell has no variance and cannot be tested.
    """
    classes, sizes = np.unique(y, return_counts=True)
    groups = pd.Categorical(y.astype(str), categories=classes.astype(str))
    cells = ad.AnnData(
        X=X,
        obs=pd.DataFrame({"y": groups}, index=[str(i) for i in range(len(y))]),
        var=pd.DataFrame(index=[str(i) for i in range(X.shape[1])]),
    )
    return cells, [str(c) for c in classes[sizes > 1]]


class ScanpyTest(RankingSelector):
    """Differential expression of each class against the rest, on z-scores.

    The test is that of ``scanpy.tl.rank_genes_groups``: Welch's t-test (``t-test``), the same
    with the number of other cells set to that of the class (``t-test_overestim_var``), or
    Wilcoxon's rank-sum test (``wilcoxon``) with or without correction for ties.

    For each class the genes are ranked by the test statistic, which is positive for genes with
    higher expression in the class. The panel is the best gene of every class, then the second
    best of every class, and so on; within a rank, genes with a smaller p-value come first, then
    those with a larger statistic. The score of a gene is its largest statistic over the classes.

    Parameters
    ----------
    n_markers
        Size of the panel.
    seed
        Not used: the method is deterministic.

    References
    ----------
    Wolf et al., Genome Biology 2018 (Scanpy); Gregory et al. 2024, its use as a baseline.
    """

    # Scanpy imports that part of statsmodels in its tests.
    libraries: ClassVar[tuple[str, ...]] = ("scanpy", "statsmodels.stats.multitest")
    reference: ClassVar[str] = "Wolf et al., Genome Biology 2018"
    test: ClassVar[dict[str, Any]]

    def __init__(self, n_markers: int = 50, *, seed: int = 0) -> None:
        self.n_markers = n_markers
        self.seed = seed

    def _rank_genes(self, X: Any, y: NDArray[np.int64] | None) -> tuple[Any, Any]:
        import scanpy as sc

        cells, tested = to_anndata(X, np.asarray(y))
        # Scanpy also computes fold changes, which are not used: for z-scores they are logarithms
        # of negative numbers. Its tables of many classes cause performance warnings of pandas.
        with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", PerformanceWarning)
            sc.tl.rank_genes_groups(cells, "y", groups=tested, use_raw=False, **self.test)
        found = cells.uns["rank_genes_groups"]
        names = list(found["names"].dtype.names)
        ranked = np.column_stack([found["names"][c].astype(np.int64) for c in names])
        statistic = np.column_stack([found["scores"][c] for c in names]).astype(np.float64)
        p_value = np.column_stack([found["pvals"][c] for c in names])
        # Within a rank: smallest p-value first. Equal p-values, such as 0 by underflow, are ordered
        # by statistic.
        position = np.lexsort((-statistic, p_value), axis=1)
        strength = -np.argsort(position, axis=1).astype(np.float64)
        scores = np.full(X.shape[1], -np.inf)
        np.maximum.at(scores, ranked, np.nan_to_num(statistic))
        return merge_rankings(ranked, strength, self.n_markers), scores


class ScanpyTTest(ScanpyTest):
    """Welch's t-test; see :class:`ScanpyTest`."""

    summary: ClassVar[str] = "Welch's t-test of each cell type against the rest (Scanpy)"
    test: ClassVar[dict[str, Any]] = {"method": "t-test"}


class ScanpyTTestOverestimVar(ScanpyTest):
    """Welch's t-test with the number of other cells set to that of the class."""

    summary: ClassVar[str] = "t-test with overestimated variance of the rest (Scanpy)"
    test: ClassVar[dict[str, Any]] = {"method": "t-test_overestim_var"}


class ScanpyWilcoxon(ScanpyTest):
    """Wilcoxon's rank-sum test without correction for ties; see :class:`ScanpyTest`."""

    summary: ClassVar[str] = "Wilcoxon rank-sum test of each cell type against the rest (Scanpy)"
    test: ClassVar[dict[str, Any]] = {"method": "wilcoxon", "tie_correct": False}


class ScanpyWilcoxonTieCorrect(ScanpyTest):
    """Wilcoxon's rank-sum test with its variance corrected for ties; see :class:`ScanpyTest`."""

    summary: ClassVar[str] = "Wilcoxon rank-sum test with tie correction (Scanpy)"
    test: ClassVar[dict[str, Any]] = {"method": "wilcoxon", "tie_correct": True}
