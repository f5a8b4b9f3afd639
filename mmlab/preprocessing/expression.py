"""Expression layers computed on demand from raw counts, in memory or memory-mapped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mmlab.datasets.cache.mapped_counts import take_cells
from mmlab.datasets.cells import Normalization
from mmlab.preprocessing.normalization import Layer, log_normalize, standardize

#: Maximum number of values in a dense block.
_MAX_BLOCK_VALUES = 2**24


@dataclass(frozen=True)
class Expression:
    """A lazy expression layer: values are computed from the counts when they are needed.

    Indexing by cells, or by cells and genes, only selects and computes nothing. ``[cells, genes]``
    selects the given genes of the given cells (like ``np.ix_``). :meth:`toarray` and
    :meth:`tocsr` compute the values, bitwise identical for any selection and block size.

    Attributes
    ----------
    counts
        Raw counts of all cells and genes, CSR; in memory or memory-mapped.
    layer
        Layer of the values: ``counts``, ``log1p`` or ``zscore``.
    normalization
        See :func:`log_normalize`.
    mean, sd
        Statistics of each gene for z-scores, float32 of shape (n_genes,).
    cells, genes
        Indices of the selected cells and genes; None selects all.
    """

    counts: sp.csr_matrix
    layer: Layer
    normalization: Normalization
    mean: NDArray[np.float32] | None = None
    sd: NDArray[np.float32] | None = None
    cells: NDArray[np.int64] | None = None
    genes: NDArray[np.int64] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Number of selected cells and genes."""
        n_cells, n_genes = self.counts.shape
        return (
            n_cells if self.cells is None else len(self.cells),
            n_genes if self.genes is None else len(self.genes),
        )

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Expression:
        cells, genes = key if isinstance(key, tuple) else (key, slice(None))
        n_cells, n_genes = self.counts.shape
        return replace(
            self,
            cells=_select(n_cells, self.cells, cells),
            genes=_select(n_genes, self.genes, genes),
        )

    def tocsr(self) -> sp.csr_matrix:
        """Return the values of the layer ``counts`` or ``log1p`` as CSR float32."""
        values = self.counts if self.cells is None else take_cells(self.counts, self.cells)
        if self.layer != "counts":
            values = log_normalize(values, self.normalization)
        return values if self.genes is None else values[:, self.genes]

    def toarray(self) -> NDArray[np.float32]:
        """Return the values as a dense float32 array, computed block by block."""
        values, start = np.empty(self.shape, dtype=np.float32), 0
        for block in dense_blocks(self):
            values[start : start + len(block)] = block
            start += len(block)
        return values

    def materialize(self) -> NDArray[np.float32]:
        """Return the values as a dense float32 array, computed in one block.

        :meth:`toarray` has a lower peak memory.
        """
        values: NDArray[np.float32] = self.tocsr().toarray()
        if self.mean is None or self.sd is None:
            return values
        genes = slice(None) if self.genes is None else self.genes
        return standardize(values, self.mean[genes], self.sd[genes])


#: z-scores of shape (n_cells, n_genes): a dense array, or computed on demand.
ZScores = NDArray[np.float32] | Expression


def _select(n: int, selected: NDArray[np.int64] | None, key: Any) -> NDArray[np.int64] | None:
    """Return the indices that ``key`` selects of ``selected`` (None: all of n)."""
    if isinstance(key, slice) and key == slice(None):
        return selected
    if selected is None and isinstance(key, slice):
        return np.arange(*key.indices(n))
    return np.asarray((np.arange(n) if selected is None else selected)[key])


def dense_blocks(
    values: NDArray[np.float32] | sp.csr_matrix | Expression,
) -> Iterator[NDArray[np.float32]]:
    """Yield dense float32 blocks of consecutive cells; their sizes depend only on the shape."""
    # Expression computes all genes of a cell before it selects some of them.
    width = values.counts.shape[1] if isinstance(values, Expression) else values.shape[1]
    step = max(_MAX_BLOCK_VALUES // width, 1)
    for start in range(0, values.shape[0], step):
        part: Any = values[start : start + step]
        if isinstance(part, Expression):
            yield part.materialize()
        else:
            yield part if isinstance(part, np.ndarray) else part.toarray()


def to_memory(X: Expression) -> Any:
    """Return all values of a layer: z-scores as a dense array, other layers as CSR."""
    return X.toarray() if X.layer == "zscore" else X.tocsr()


def to_dense(X: Any) -> NDArray[np.float32]:
    """Return dense or sparse expression as a dense float32 array."""
    return np.asarray(X.toarray() if hasattr(X, "toarray") else X, dtype=np.float32)
