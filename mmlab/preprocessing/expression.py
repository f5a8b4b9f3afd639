"""Expression of cells in a layer, computed on demand from counts in memory or mapped from disk."""

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

#: Values that are in memory at once while all cells are gone through.
_AT_ONCE = 2**24


@dataclass(frozen=True)
class Expression:
    """A layer of cells, of which only what is asked for is made.

    It is indexed by cells, or by cells and genes, which makes nothing: ``[cells, genes]`` are all
    of these genes of all of these cells. :meth:`toarray` and :meth:`tocsr` make the values, the
    same to the last bit however many are made at once.

    Attributes
    ----------
    counts
        Raw counts of all cells and genes, CSR; in memory or mapped.
    layer
        What the values are.
    normalization
        See :func:`log_normalize`.
    mean, sd
        Of each gene, for z-scores: float32, shape (n_genes,).
    cells, genes
        Indices of those that this is of; None is all of them.
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
        """Cells and genes."""
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
            cells=_narrow(n_cells, self.cells, cells),
            genes=_narrow(n_genes, self.genes, genes),
        )

    def tocsr(self) -> sp.csr_matrix:
        """Values of the layers counts and log1p, CSR float32."""
        values = self.counts if self.cells is None else take_cells(self.counts, self.cells)
        if self.layer != "counts":
            values = log_normalize(values, self.normalization)
        return values if self.genes is None else values[:, self.genes]

    def toarray(self) -> NDArray[np.float32]:
        """Values, dense float32."""
        values, start = np.empty(self.shape, dtype=np.float32), 0
        for block in dense_blocks(self):
            values[start : start + len(block)] = block
            start += len(block)
        return values

    def materialize(self) -> NDArray[np.float32]:
        """Values, dense float32, all at once: :meth:`toarray` takes less memory meanwhile."""
        values: NDArray[np.float32] = self.tocsr().toarray()
        if self.mean is None or self.sd is None:
            return values
        genes = slice(None) if self.genes is None else self.genes
        return standardize(values, self.mean[genes], self.sd[genes])


#: z-scores of cells (n_cells, n_genes), in memory or not.
ZScores = NDArray[np.float32] | Expression


def _narrow(n: int, chosen: NDArray[np.int64] | None, key: Any) -> NDArray[np.int64] | None:
    """Indices that are left of ``chosen`` (None: all n)."""
    if isinstance(key, slice) and key == slice(None):
        return chosen
    if chosen is None and isinstance(key, slice):
        return np.arange(*key.indices(n))
    return np.asarray((np.arange(n) if chosen is None else chosen)[key])


def dense_blocks(
    values: NDArray[np.float32] | sp.csr_matrix | Expression,
) -> Iterator[NDArray[np.float32]]:
    """Consecutive cells of whatever holds them, dense: the same blocks of the same shape."""
    # An expression makes all genes of its cells before it chooses among them.
    width = values.counts.shape[1] if isinstance(values, Expression) else values.shape[1]
    step = max(_AT_ONCE // width, 1)
    for start in range(0, values.shape[0], step):
        part: Any = values[start : start + step]
        if isinstance(part, Expression):
            yield part.materialize()
        else:
            yield part if isinstance(part, np.ndarray) else part.toarray()


def to_memory(X: Expression) -> Any:
    """All values of a layer: z-scores dense, the others CSR."""
    return X.toarray() if X.layer == "zscore" else X.tocsr()


def to_dense(X: Any) -> NDArray[np.float32]:
    """Dense float32 array of dense or sparse cells."""
    return np.asarray(X.toarray() if hasattr(X, "toarray") else X, dtype=np.float32)
