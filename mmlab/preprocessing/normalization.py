"""From raw counts to the layers that the selectors read, by a named recipe.

Layers of many cells are not made at once: :class:`Expression` makes what is asked for, from counts
that can be mapped into memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import anndata as ad
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.preprocessing import normalize

from mmlab.datasets.cache.mapped_counts import take_cells
from mmlab.datasets.cells import Normalization
from mmlab.spec.trial import Recipe

TARGET_SUM = 1e4
MAX_Z_SCORE = 10.0
#: Bytes of the z-scores of all cells above which they are not kept in memory: a training takes
#: about four times as much.
LARGEST_DENSE = 2**30
#: Values that are in memory at once while all cells are gone through.
_AT_ONCE = 2**24

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


def z_score(log_values: sp.csr_matrix, fit_on: NDArray[np.int64] | slice) -> NDArray[np.float32]:
    """Per-gene z-score clipped at +-10, dense float32, statistics from the cells ``fit_on``."""
    return standardize(log_values.toarray(), *gene_statistics(log_values, fit_on))


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
        made, start = np.empty(self.shape, dtype=np.float32), 0
        for block in dense_blocks(self):
            made[start : start + len(block)] = block
            start += len(block)
        return made

    def made(self) -> NDArray[np.float32]:
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
            yield part.made()
        else:
            yield part if isinstance(part, np.ndarray) else part.toarray()


def prepare(
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
