"""From raw counts to the layers that the selectors read, by a named recipe."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.preprocessing import normalize

from mmlab.config import Recipe
from mmlab.datasets.base import Normalization

TARGET_SUM = 1e4
MAX_Z_SCORE = 10.0


def log_normalize(counts: sp.csr_matrix, normalization: Normalization) -> sp.csr_matrix:
    """Natural log1p of counts, float32 CSR of the same shape.

    ``total`` scales every cell to 1e4 counts before the log; ``none`` takes the counts as they
    are; ``l2`` takes the counts as they are and divides every cell by its Euclidean norm after
    the log (how the published CITE-seq matrix was made).
    """
    if normalization == "total":
        counts = normalize(counts, norm="l1") * TARGET_SUM
    values = sp.csr_matrix(counts, dtype=np.float32).log1p()
    return normalize(values, norm="l2") if normalization == "l2" else values


def z_score(log_values: sp.csr_matrix, fit_on: NDArray[np.int64] | slice) -> NDArray[np.float32]:
    """Per-gene z-score clipped at +-10, dense float32, statistics from the cells ``fit_on``.

    Sample standard deviation (ddof 1); a gene without variance there is divided by 1.
    """
    mean, sd = gene_statistics(log_values, fit_on)
    return standardize(log_values.toarray(), mean, sd)


def standardize(
    values: NDArray[np.float32], mean: NDArray[np.float32], sd: NDArray[np.float32]
) -> NDArray[np.float32]:
    """z-scores clipped at +-10, in place of ``values`` (n_cells, n_genes)."""
    values -= mean
    values /= sd
    return np.clip(values, -MAX_Z_SCORE, MAX_Z_SCORE, out=values)


def gene_statistics(
    log_values: sp.csr_matrix, fit_on: NDArray[np.int64] | slice
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of each gene over the cells ``fit_on``; see :func:`z_score`."""
    dense = log_values[fit_on].toarray()
    mean = dense.mean(axis=0, dtype=np.float64)
    sd = dense.std(axis=0, ddof=1, dtype=np.float64)
    sd[sd == 0] = 1.0
    return mean.astype(np.float32), sd.astype(np.float32)


def prepare(
    adata: ad.AnnData,
    normalization: Normalization,
    recipe: Recipe,
    train: NDArray[np.int64],
) -> ad.AnnData:
    """Layers ``counts``, ``log1p`` (both CSR) and ``zscore`` (dense) of all cells.

    Parameters
    ----------
    adata
        Raw counts as CSR in ``X``; not changed.
    normalization
        See :func:`log_normalize`.
    recipe
        ``train_only`` takes every statistic over genes from the cells ``train``; ``paper``
        takes it from all cells, test cells included, as the published tables did.
    train
        Indices of the training cells.
    """
    counts: Any = adata.X
    log_values = log_normalize(counts, normalization)
    fit_on = train if recipe == "train_only" else slice(None)
    layers = {"counts": counts, "log1p": log_values, "zscore": z_score(log_values, fit_on)}
    return ad.AnnData(obs=adata.obs, var=adata.var, layers=layers)
