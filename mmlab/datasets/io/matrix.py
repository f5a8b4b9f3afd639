"""Matrix of cells x genes, in a file or in memory, that is read block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mmlab.datasets.io.hdf5 import read_part
from mmlab.errors import UserError

#: Approximate number of stored values per block; with their indices that is 50 MB.
BLOCK_VALUES = 2**22

#: A block may grow by this factor, to contain whole chunks of a file.
_MAX_BLOCK_GROWTH = 16

Kind = Literal["csr", "csc", "dense"]


class InvalidMatrixError(UserError):
    """A matrix that cannot be read; the message gives the reason, without the location."""


def corrupt_matrix(detail: str) -> InvalidMatrixError:
    """Return the error for a sparse matrix whose parts are invalid."""
    return InvalidMatrixError(f"is corrupt: {detail}; load the counts again from their source")


@dataclass(frozen=True)
class Matrix:
    """Cells x genes, stored as CSR, CSC or dense; values are loaded on demand.

    Attributes
    ----------
    kind
        Storage format.
    shape
        (n_cells, n_genes).
    values
        Array or HDF5 dataset: the stored values of a sparse matrix, shape (n_stored,), or the
        dense matrix.
    indices, indptr
        Those of a sparse matrix, as in scipy. In a file they may be invalid; they are checked when
        they are read.
    rounded
        Whether values are rounded to integers when they are read, halves to even ones.
    """

    kind: Kind
    shape: tuple[int, int]
    values: Any
    indices: Any = None
    indptr: Any = None
    rounded: bool = False

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored values."""
        dtype: np.dtype[Any] = self.values.dtype
        return dtype

    @property
    def loaded_bytes(self) -> int:
        """Memory of the loaded float32 matrix in bytes; for CSR and CSC an upper bound.

        A dense matrix counts as dense.
        """
        if self.kind == "dense":
            return 4 * self.shape[0] * self.shape[1]
        n_stored = len(self.values)
        size = n_stored * (4 + _index_type(self.shape, n_stored).itemsize) + 8 * len(self.indptr)
        # During conversion to CSR, both matrices are in memory.
        return 2 * size if self.kind == "csc" else size

    def stored_blocks(self, n_values: int = BLOCK_VALUES) -> Iterator[tuple[int, Any]]:
        """Yield blocks of complete cells (complete genes for CSC); values as stored, or rounded.

        Yields
        ------
        The index of the first cell (gene), and a CSR (CSC) matrix or a dense array.

        Raises
        ------
        InvalidMatrixError
            Indices point outside the matrix, or ``indptr`` is invalid.
        """
        if self.kind == "dense":
            yield from self._dense_blocks(n_values)
            return
        pointers = self._pointers()
        n_major = len(pointers) - 1
        n_minor = self.shape[1] if self.kind == "csr" else self.shape[0]
        container = sp.csr_matrix if self.kind == "csr" else sp.csc_matrix
        first = 0
        while first < n_major:
            fits = np.searchsorted(pointers, pointers[first] + n_values, side="right") - 1
            last = min(max(int(fits), first + 1), n_major)
            start, stop = int(pointers[first]), int(pointers[last])
            indices = read_part(self.indices, start, stop)
            _check_indices(indices, n_minor, start)
            size = (last - first, n_minor) if self.kind == "csr" else (n_minor, last - first)
            parts = (
                self._read_values(start, stop),
                indices.astype(_index_type(size, stop - start), copy=False),
                (pointers[first : last + 1] - start).astype(_index_type(size, stop - start)),
            )
            yield first, container(parts, shape=size)
            first = last

    def blocks(self, n_values: int = BLOCK_VALUES) -> Iterator[sp.csr_matrix]:
        """Yield blocks of consecutive cells as CSR float32 without stored zeros.

        A CSC matrix is loaded and converted first.

        Parameters
        ----------
        n_values
            Approximate number of stored values per block; a block has at least one cell.
        """
        source = self
        if self.kind == "csc":
            loaded = self.load()
            source = Matrix("csr", loaded.shape, loaded.data, loaded.indices, loaded.indptr)
        for _, block in source.stored_blocks(n_values):
            # The block may share memory with the user's matrix, so it is copied.
            yield _canonical(sp.csr_matrix(block, dtype=np.float32, copy=True))

    def load(self) -> sp.csr_matrix:
        """Return the whole matrix as CSR float32 without stored zeros.

        CSR is in memory once; CSC and dense are in memory twice for a short time.
        """
        if self.kind == "dense":
            return sp.csr_matrix(sp.vstack(list(self.blocks()), format="csr", dtype=np.float32))
        n_stored = len(self.values)
        data = np.empty(n_stored, dtype=np.float32)
        indices = np.empty(n_stored, dtype=_index_type(self.shape, n_stored))
        start = 0
        for _, block in self.stored_blocks():
            data[start : start + block.nnz] = block.data
            indices[start : start + block.nnz] = block.indices
            start += block.nnz
        container = sp.csr_matrix if self.kind == "csr" else sp.csc_matrix
        pointers = self._pointers().astype(indices.dtype)
        loaded = container((data, indices, pointers), shape=self.shape)
        return _canonical(loaded)

    def _read_values(self, start: int, stop: int) -> NDArray[Any]:
        values = _native(read_part(self.values, start, stop))
        return np.rint(values) if self.rounded else values

    def _dense_blocks(self, n_values: int) -> Iterator[tuple[int, Any]]:
        step = max(1, n_values // max(self.shape[1], 1))
        chunks = getattr(self.values, "chunks", None)
        if chunks and chunks[0] <= _MAX_BLOCK_GROWTH * step:
            # HDF5 always decompresses a whole chunk: each chunk should be in one block only.
            step = max(chunks[0], step // chunks[0] * chunks[0])
        for first in range(0, self.shape[0], step):
            yield first, self._read_values(first, first + step)

    def _pointers(self) -> NDArray[np.int64]:
        """Read and check ``indptr``."""
        pointers = read_part(self.indptr, 0, len(self.indptr))
        n_stored = len(self.values)
        if pointers[0] != 0 or pointers[-1] != n_stored:
            raise corrupt_matrix(
                f"its indptr goes from {pointers[0]} to {pointers[-1]}, but must go "
                f"from 0 to {n_stored}, the number of stored values"
            )
        decreases = np.flatnonzero(pointers[1:] < pointers[:-1])
        if len(decreases):
            raise corrupt_matrix(
                f"its indptr decreases {len(decreases)} times, first at position {decreases[0] + 1}"
            )
        return pointers.astype(np.int64)


def _check_indices(indices: NDArray[Any], n_minor: int, start: int) -> None:
    outside = np.flatnonzero((indices < 0) | (indices >= n_minor))
    if len(outside):
        raise corrupt_matrix(
            f"{len(outside)} of its indices point outside the matrix, first "
            f"{indices[outside[0]]} at position {start + outside[0]}; the largest valid index is "
            f"{n_minor - 1}"
        )


def _index_type(shape: tuple[int, int], n_stored: int) -> np.dtype[Any]:
    """Return the index type that scipy uses: int32 if it is large enough, else int64."""
    return np.dtype(np.int32 if max(*shape, n_stored) < 2**31 else np.int64)


def _native(values: NDArray[Any]) -> NDArray[Any]:
    """Convert values to native byte order, and other floats to float32 or float64."""
    size = values.dtype.itemsize
    if values.dtype.kind == "f" and size not in (4, 8):
        return values.astype(np.float32 if size < 4 else np.float64)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _canonical(matrix: Any) -> sp.csr_matrix:
    """Return a CSR matrix with sorted indices, without duplicates and stored zeros."""
    counts = sp.csr_matrix(matrix)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    return counts
