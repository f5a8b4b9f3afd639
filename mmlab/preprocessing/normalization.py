"""Normalisation of raw counts: log1p values and z-scores."""

from __future__ import annotations

from typing import Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.preprocessing import normalize

from mmlab.datasets.cells import Normalization

TARGET_SUM = 1e4
MAX_Z_SCORE = 10.0

#: What happens to the counts before they are turned into z-scores.
NORMALIZATIONS: dict[Normalization, str] = {
    "total": "counts scaled to 10,000 per cell, then log1p",
    "none": "log1p of the counts, not scaled to a common total",
    "l2": "log1p of the counts, not scaled; then each cell divided by its Euclidean norm",
}

Layer = Literal["zscore", "log1p", "counts"]


def log_normalize(counts: sp.csr_matrix, normalization: Normalization) -> sp.csr_matrix:
    """Return the natural log1p of counts as float32 CSR of the same shape.

    ``total`` scales each cell to 1e4 counts before the logarithm (as ``sc.pp.normalize_total``).
    ``none`` does not scale. ``l2`` does not scale the counts, but divides each cell by its
    Euclidean norm after the logarithm, as in the published CITE-seq matrix.
    """
    if normalization == "total":
        counts = normalize(counts, norm="l1") * TARGET_SUM
    values = sp.csr_matrix(counts, dtype=np.float32).log1p()
    return normalize(values, norm="l2") if normalization == "l2" else values


def standardize(
    values: NDArray[np.float32], mean: NDArray[np.float32], sd: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Replace ``values`` (n_cells, n_genes) in place by z-scores clipped to [-10, 10]."""
    values -= mean
    values /= sd
    return np.clip(values, -MAX_Z_SCORE, MAX_Z_SCORE, out=values)
