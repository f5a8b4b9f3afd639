"""From raw counts to the layers that the selectors read, by a named recipe.

Layers of many cells are not made at once: :class:`Expression` makes what is asked for, from counts
that can be mapped into memory.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.preprocessing import normalize

from mmlab.datasets.cells import Normalization

TARGET_SUM = 1e4
MAX_Z_SCORE = 10.0

Layer = Literal["zscore", "log1p", "counts"]


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


def standardize(
    values: NDArray[np.float32], mean: NDArray[np.float32], sd: NDArray[np.float32]
) -> NDArray[np.float32]:
    """z-scores clipped at +-10, in place of ``values`` (n_cells, n_genes)."""
    values -= mean
    values /= sd
    return np.clip(values, -MAX_Z_SCORE, MAX_Z_SCORE, out=values)
