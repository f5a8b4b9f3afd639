"""Expression layers for the selectors, by recipe: ``train_only`` or ``paper``."""

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

#: Maximum size in bytes of the dense z-scores of all cells; larger layers are computed on demand.
#: Training a model takes about four times this memory.
MAX_DENSE_BYTES = 2**30


def z_score(log_values: sp.csr_matrix, fit_on: NDArray[np.int64] | slice) -> NDArray[np.float32]:
    """Return dense float32 z-scores, clipped to [-10, 10].

    The mean and standard deviation of each gene are computed over the cells ``fit_on``.
    """
    return standardize(log_values.toarray(), *gene_statistics(log_values, fit_on))


def gene_statistics(
    log_values: sp.csr_matrix | Expression, fit_on: NDArray[np.int64] | slice
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and standard deviation of each gene over the cells ``fit_on``, float32.

    The sample standard deviation (ddof 1) is used; for a gene without variance it is set to 1.
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
    """Return the layers ``counts``, ``log1p`` (both CSR) and ``zscore`` (dense) of all cells.

    If the z-scores would exceed :data:`MAX_DENSE_BYTES`, each layer is an :class:`Expression`.

    Parameters
    ----------
    adata
        Raw counts as CSR in ``X``; not changed.
    normalization
        See :func:`log_normalize`.
    recipe
        ``train_only`` computes the gene statistics over the cells ``train``; ``paper`` computes
        them over all cells, test cells included, as in the published tables.
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
    """Return whether z-scores of this shape exceed :data:`MAX_DENSE_BYTES`."""
    return shape[0] * shape[1] * np.dtype(np.float32).itemsize > MAX_DENSE_BYTES


def first_replicate_zscore(spec: TrialSpec, cells: Cells) -> ZScores:
    """Return the z-scores of all cells for the first replicate of a trial."""
    layers = replicate_layers(spec, cells, replicate_split(spec, cells, spec.first_replicate))
    zscore: ZScores = layers["zscore"]
    return zscore


def replicate_layers(spec: TrialSpec, cells: Cells, split: Split) -> dict[Layer, Any]:
    """Return the layers of all cells for one split, by the recipe of a trial."""
    return prepare_layers(cells.adata, cells.normalization, spec.recipe, split.train)
