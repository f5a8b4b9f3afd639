"""Marker genes by Scanpy's differential expression tests, each type against the rest."""

from __future__ import annotations

from typing import Any, ClassVar

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmlab.selectors.base import DirectSelector


def fill_budget(ranked: NDArray[np.int64], strength: NDArray[np.float64], k: int) -> list[int]:
    """Take genes from several ranked lists, row by row, until k distinct ones are found.

    Row r holds the r-th best gene of every class. A row is taken whole while it fits;
    the first row that does not fit is taken class by class, strongest first.

    Parameters
    ----------
    ranked
        Gene indices, shape (n_rows, n_classes), best row first.
    strength
        Shape of ``ranked``; within a row, a larger value goes first.
    k
        Number of genes, at most the number of distinct genes in ``ranked``.

    Returns
    -------
    k distinct gene indices, best first.
    """
    panel: dict[int, None] = {}
    for row, weight in zip(ranked, strength, strict=True):
        for gene in row[np.argsort(-weight, kind="stable")]:
            panel.setdefault(int(gene))
            if len(panel) == k:
                return list(panel)
    raise ValueError(f"the lists hold {len(panel)} distinct genes, fewer than {k}")


class ScanpyTTest(DirectSelector):
    """Welch's t-test of each class against the rest, as ``scanpy.tl.rank_genes_groups``.

    Genes are ranked by the signed statistic (higher in the class), and the panel takes the
    best gene of every class, then the second best, ... (:func:`fill_budget`, ties by p-value,
    then by statistic, then by class). The score of a gene is its largest statistic over the
    classes.

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

    summary: ClassVar[str] = "Welch t-test of each type against the rest (Scanpy)"
    reference: ClassVar[str] = "Wolf et al., Genome Biology 2018"
    method: ClassVar[str] = "t-test"

    def __init__(self, n_markers: int = 50, *, seed: int = 0) -> None:
        self.n_markers = n_markers
        self.seed = seed

    def _select(self, X: Any, y: NDArray[np.int64] | None) -> tuple[Any, Any]:
        import scanpy as sc

        n_genes = X.shape[1]
        codes = np.asarray(y)
        classes, sizes = np.unique(codes, return_counts=True)
        groups = pd.Categorical(codes.astype(str), categories=classes.astype(str))
        # A single cell has no variance to test with.
        tested = [str(c) for c in classes[sizes > 1]]
        cells = ad.AnnData(
            X=X,
            obs=pd.DataFrame({"y": groups}, index=[str(i) for i in range(len(groups))]),
            var=pd.DataFrame(index=[str(i) for i in range(n_genes)]),
        )
        # Fold changes of z-scores are logarithms of negative numbers; nothing here reads them.
        with np.errstate(invalid="ignore", divide="ignore"):
            sc.tl.rank_genes_groups(cells, "y", groups=tested, method=self.method, use_raw=False)
        found = cells.uns["rank_genes_groups"]
        names = list(found["names"].dtype.names)
        ranked = np.column_stack([found["names"][c].astype(np.int64) for c in names])
        statistic = np.column_stack([found["scores"][c] for c in names]).astype(np.float64)
        p_value = np.column_stack([found["pvals"][c] for c in names])
        # Within a row: smallest p-value first; equal p-values (0 by underflow) by statistic.
        position = np.lexsort((-statistic, p_value), axis=1)
        strength = -np.argsort(position, axis=1).astype(np.float64)
        scores = np.full(n_genes, -np.inf)
        np.maximum.at(scores, ranked, np.nan_to_num(statistic))
        return fill_budget(ranked, strength, self.n_markers), scores
