"""Marker genes by Scanpy's differential expression tests, each type against the rest."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.errors import PerformanceWarning

from mmlab.selectors.class_rankings import merge_rankings
from mmlab.selectors.direct import DirectSelector


def one_against_rest(X: Any, y: NDArray[np.int64]) -> tuple[ad.AnnData, list[str]]:
    """Cells as Scanpy and its kin take them, and the classes that can be tested.

    A class of a single cell has no variance to test with. The classes are in ``obs["y"]``,
    categories in the order of their index.
    """
    classes, sizes = np.unique(y, return_counts=True)
    groups = pd.Categorical(y.astype(str), categories=classes.astype(str))
    cells = ad.AnnData(
        X=X,
        obs=pd.DataFrame({"y": groups}, index=[str(i) for i in range(len(y))]),
        var=pd.DataFrame(index=[str(i) for i in range(X.shape[1])]),
    )
    return cells, [str(c) for c in classes[sizes > 1]]


class ScanpyTest(DirectSelector):
    """A test of each class against the rest, as ``scanpy.tl.rank_genes_groups``.

    Genes are ranked by the signed statistic (higher in the class), and the panel takes the
    best gene of every class, then the second best, ...
    (:func:`mmlab.selectors.class_rankings.merge_rankings`, ties by p-value, then by statistic, then by
    class). The score of a gene is its largest statistic over the classes.

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

    reference: ClassVar[str] = "Wolf et al., Genome Biology 2018"
    test: ClassVar[dict[str, Any]]

    def __init__(self, n_markers: int = 50, *, seed: int = 0) -> None:
        self.n_markers = n_markers
        self.seed = seed

    def _select(self, X: Any, y: NDArray[np.int64] | None) -> tuple[Any, Any]:
        import scanpy as sc

        cells, tested = one_against_rest(X, np.asarray(y))
        # Fold changes of z-scores are logarithms of negative numbers, which nothing here reads; and
        # scanpy's table of many types makes pandas complain.
        with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", PerformanceWarning)
            sc.tl.rank_genes_groups(cells, "y", groups=tested, use_raw=False, **self.test)
        found = cells.uns["rank_genes_groups"]
        names = list(found["names"].dtype.names)
        ranked = np.column_stack([found["names"][c].astype(np.int64) for c in names])
        statistic = np.column_stack([found["scores"][c] for c in names]).astype(np.float64)
        p_value = np.column_stack([found["pvals"][c] for c in names])
        # Within a row: smallest p-value first; equal p-values (0 by underflow) by statistic.
        position = np.lexsort((-statistic, p_value), axis=1)
        strength = -np.argsort(position, axis=1).astype(np.float64)
        scores = np.full(X.shape[1], -np.inf)
        np.maximum.at(scores, ranked, np.nan_to_num(statistic))
        return merge_rankings(ranked, strength, self.n_markers), scores


class ScanpyTTest(ScanpyTest):
    """Welch's t-test; see :class:`ScanpyTest`."""

    summary: ClassVar[str] = "Welch t-test of each type against the rest (Scanpy)"
    test: ClassVar[dict[str, Any]] = {"method": "t-test"}


class ScanpyTTestOverestimVar(ScanpyTest):
    """Welch's t-test with the rest counted as if it had the class's size."""

    summary: ClassVar[str] = "t-test that overestimates the variance of the rest (Scanpy)"
    test: ClassVar[dict[str, Any]] = {"method": "t-test_overestim_var"}


class ScanpyWilcoxon(ScanpyTest):
    """Wilcoxon's rank-sum test without a correction for ties."""

    summary: ClassVar[str] = "Wilcoxon rank-sum test of each type against the rest (Scanpy)"
    test: ClassVar[dict[str, Any]] = {"method": "wilcoxon", "tie_correct": False}


class ScanpyWilcoxonTieCorrect(ScanpyTest):
    """Wilcoxon's rank-sum test, its variance corrected for ties."""

    summary: ClassVar[str] = "Wilcoxon rank-sum test corrected for ties (Scanpy)"
    test: ClassVar[dict[str, Any]] = {"method": "wilcoxon", "tie_correct": True}
