"""The layers that selectors read, by a named recipe: train_only or paper."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anndata as ad
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mmlab.datasets.cells import Cells, Normalization
from mmlab.preprocessing.expression import Expression, ZScores, dense_blocks
from mmlab.preprocessing.normalization import Layer, log_normalize, standardize
from mmlab.preprocessing.splits import Split, replicate_split
from mmlab.spec.protocol import Recipe
from mmlab.spec.trial import TrialSpec

#: Bytes of the z-scores of all cells above which they are not kept in memory: a training takes
#: about four times as much.
LARGEST_DENSE = 2**30


def z_score(log_values: sp.csr_matrix, fit_on: NDArray[np.int64] | slice) -> NDArray[np.float32]:
    """Per-gene z-score clipped at +-10, dense float32, statistics from the cells ``fit_on``."""
    return standardize(log_values.toarray(), *gene_statistics(log_values, fit_on))


def gene_statistics(
    log_values: sp.csr_matrix | Expression, fit_on: NDArray[np.int64] | slice
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of each gene over the cells ``fit_on``.

    Sample standard deviation (ddof 1); that of a gene without variance is 1.
    """
    values = log_values[fit_on]
    n_cells, n_genes = values.shape
    mean, squares = np.zeros(n_genes), np.zeros(n_genes)
    for block in dense_blocks(values):
        mean += block.sum(axis=0, dtype=np.float64)
    mean /= n_cells
    for block in dense_blocks(values):
        squares += np.square(block - mean).sum(axis=0)
    sd = np.sqrt(squares / (n_cells - 1))
    sd[sd == 0] = 1.0
    return mean.astype(np.float32), sd.astype(np.float32)


def prepare_layers(
    adata: ad.AnnData,
    normalization: Normalization,
    recipe: Recipe,
    train: NDArray[np.int64],
) -> dict[Layer, Any]:
    """Layers ``counts``, ``log1p`` (both CSR) and ``zscore`` (dense) of all cells, by name.

    Of many cells (:data:`LARGEST_DENSE`) each layer is an :class:`Expression`.

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
    fit_on = train if recipe == "train_only" else slice(None)
    if is_large(counts.shape):
        log1p = Expression(counts, "log1p", normalization)
        mean, sd = gene_statistics(log1p, fit_on)
        return {
            "counts": replace(log1p, layer="counts"),
            "log1p": log1p,
            "zscore": replace(log1p, layer="zscore", mean=mean, sd=sd),
        }
    log_values = log_normalize(counts, normalization)
    return {"counts": counts, "log1p": log_values, "zscore": z_score(log_values, fit_on)}


def is_large(shape: tuple[int, int]) -> bool:
    """Whether the z-scores of so many cells and genes are too many to be kept in memory."""
    return shape[0] * shape[1] * np.dtype(np.float32).itemsize > LARGEST_DENSE


def first_replicate_zscore(spec: TrialSpec, cells: Cells) -> ZScores:
    """z-scores of all cells by the recipe and split of a trial's first replicate."""
    layers = replicate_layers(spec, cells, replicate_split(spec, cells, spec.first_replicate))
    found: ZScores = layers["zscore"]
    return found


def replicate_layers(spec: TrialSpec, cells: Cells, split: Split) -> dict[Layer, Any]:
    """Layers of all cells by the recipe of a trial, with the statistics of one split."""
    return prepare_layers(cells.adata, cells.normalization, spec.recipe, split.train)
