"""Highly variable genes (Scanpy), without labels."""

from __future__ import annotations

from typing import Any, ClassVar

import anndata as ad
import numpy as np
from numpy.typing import NDArray

from mmlab.preprocessing.normalization import Layer
from mmlab.selectors.ranking_selector import RankingSelector


class ScanpyHVG(RankingSelector):
    """Genes with the largest normalised dispersion, as ``scanpy.pp.highly_variable_genes``.

    This is the flavour ``seurat``: mean and dispersion (variance over mean) are computed from
    the normalised counts, that is after the logarithm of the log1p values is undone, and the
    logarithm of the dispersion is standardised within 20 bins of genes of similar mean. The
    score of a gene is this normalised dispersion. A gene for which it is undefined, such as a
    gene that is not expressed, gets the lowest score. Genes of equal score are ordered by index.

    Parameters
    ----------
    n_markers
        Size of the panel.
    seed
        Not used: the method is deterministic.

    References
    ----------
    Satija et al., Nature Biotechnology 2015 (the normalised dispersion); Wolf et al., Genome
    Biology 2018 (Scanpy); Gregory et al. 2024, its use as a baseline.
    """

    layer: ClassVar[Layer] = "log1p"
    supervised: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ("scanpy",)
    summary: ClassVar[str] = (
        "highly variable genes by normalised dispersion, without labels (Scanpy)"
    )
    reference: ClassVar[str] = "Satija et al., Nature Biotechnology 2015"

    def __init__(self, n_markers: int = 50, *, seed: int = 0) -> None:
        self.n_markers = n_markers
        self.seed = seed

    def _rank_genes(self, X: Any, y: NDArray[np.int64] | None) -> tuple[Any, Any]:
        import scanpy as sc

        cells = ad.AnnData(X if hasattr(X, "tocsr") else np.ascontiguousarray(X))
        table = sc.pp.highly_variable_genes(cells, flavor="seurat", inplace=False)
        dispersion = table["dispersions_norm"].to_numpy(np.float64)
        defined = np.isfinite(dispersion)
        scores = np.where(defined, dispersion, dispersion[defined].min(initial=np.inf))
        if not defined.any():
            scores = np.zeros(X.shape[1])
        return np.argsort(-scores, kind="stable"), scores
