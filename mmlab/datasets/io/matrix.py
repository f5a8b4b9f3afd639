"""A matrix of cells x genes where it lies, in a file or in memory, read a block at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mmlab.datasets.io.hdf5 import read_part
from mmlab.errors import UserError

#: Values that a block holds, about; with their indices that is 50 MB.
BLOCK_VALUES = 2**22

#: A block may become so many times as large to hold whole chunks of a file.
_MOST_BLOCKS = 16

Kind = Literal["csr", "csc", "dense"]


class BrokenMatrixError(UserError):
    """What is stored is no matrix that can be read; the message says why, but not where."""


@dataclass(frozen=True)
class Matrix:
    """Cells x genes as CSR, CSC or dense; nothing is loaded until it is asked for.

    Attributes
    ----------
    kind
        How it is stored.
    shape
        (n_cells, n_genes).
    values
        Array or HDF5 dataset: the stored values of a sparse matrix, shape (n_stored,), or the
        dense matrix.
    indices, indptr
        Of a sparse matrix, as scipy has them; in a file they may be wrong, and are checked as they
        are read.
    """

    kind: Kind
    shape: tuple[int, int]
    values: Any
    indices: Any = None
    indptr: Any = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored values."""
        dtype: np.dtype[Any] = self.values.dtype
        return dtype

    @property
    def loaded_bytes(self) -> int:
        """Memory that it takes as float32: at most for CSR and CSC, as dense for a dense one."""
        if self.kind == "dense":
            return 4 * self.shape[0] * self.shape[1]
        n_stored = len(self.values)
        size = n_stored * (4 + _index_type(self.shape, n_stored).itemsize) + 8 * len(self.indptr)
        # A CSC matrix has to lie beside the CSR matrix that it becomes.
        return 2 * size if self.kind == "csc" else size

    def lines(self, n_values: int = BLOCK_VALUES) -> Iterator[tuple[int, Any]]:
        """Blocks of whole cells (of whole genes, for CSC) with their values as they are stored.

        Yields
        ------
        The index of the first cell (gene), and a CSR (CSC) matrix or a dense array.

        Raises
        ------
        BrokenMatrixError
            Indices point outside the matrix, or ``indptr`` is none.
        """
        if self.kind == "dense":
            yield from self._dense_lines(n_values)
            return
        pointers = self._pointers()
        n_lines = len(pointers) - 1
        n_across = self.shape[1] if self.kind == "csr" else self.shape[0]
        container = sp.csr_matrix if self.kind == "csr" else sp.csc_matrix
        first = 0
        while first < n_lines:
            fits = np.searchsorted(pointers, pointers[first] + n_values, side="right") - 1
            last = min(max(int(fits), first + 1), n_lines)
            start, stop = int(pointers[first]), int(pointers[last])
            indices = read_part(self.indices, start, stop)
            _require_inside(indices, n_across, start)
            size = (last - first, n_across) if self.kind == "csr" else (n_across, last - first)
            parts = (
                _native(read_part(self.values, start, stop)),
                indices.astype(_index_type(size, stop - start), copy=False),
                (pointers[first : last + 1] - start).astype(_index_type(size, stop - start)),
            )
            yield first, container(parts, shape=size)
            first = last

    def blocks(self, n_values: int = BLOCK_VALUES) -> Iterator[sp.csr_matrix]:
        """Blocks of whole cells, in order, as CSR float32 without stored zeros.

        A CSC matrix has to be loaded for it, and a copy made.

        Parameters
        ----------
        n_values
            Stored values of a block, about; a block has at least one cell.
        """
        source = self
        if self.kind == "csc":
            loaded = self.load()
            source = Matrix("csr", loaded.shape, loaded.data, loaded.indices, loaded.indptr)
        for _, block in source.lines(n_values):
            # A copy: what lies in memory may be the user's.
            yield _canonical(sp.csr_matrix(block, dtype=np.float32, copy=True))

    def load(self) -> sp.csr_matrix:
        """All of it as CSR float32, without stored zeros.

        What is stored as CSR lies in memory once; CSC and dense twice, for a moment.
        """
        if self.kind == "dense":
            return sp.csr_matrix(sp.vstack(list(self.blocks()), format="csr", dtype=np.float32))
        n_stored = len(self.values)
        data = np.empty(n_stored, dtype=np.float32)
        indices = np.empty(n_stored, dtype=_index_type(self.shape, n_stored))
        start = 0
        for _, block in self.lines():
            data[start : start + block.nnz] = block.data
            indices[start : start + block.nnz] = block.indices
            start += block.nnz
        container = sp.csr_matrix if self.kind == "csr" else sp.csc_matrix
        pointers = self._pointers().astype(indices.dtype)
        loaded = container((data, indices, pointers), shape=self.shape)
        return _canonical(loaded)

    def _dense_lines(self, n_values: int) -> Iterator[tuple[int, Any]]:
        step = max(1, n_values // max(self.shape[1], 1))
        chunks = getattr(self.values, "chunks", None)
        if chunks and chunks[0] <= _MOST_BLOCKS * step:
            # A chunk is unpacked as a whole: better once than in every block that touches it.
            step = max(chunks[0], step // chunks[0] * chunks[0])
        for first in range(0, self.shape[0], step):
            yield first, _native(read_part(self.values, first, first + step))

    def _pointers(self) -> NDArray[np.int64]:
        """``indptr``, checked."""
        pointers = read_part(self.indptr, 0, len(self.indptr))
        n_stored = len(self.values)
        if pointers[0] != 0 or pointers[-1] != n_stored:
            raise BrokenMatrixError(
                f"is broken: its indptr goes from {pointers[0]} to {pointers[-1]}, but must go "
                f"from 0 to {n_stored}, the number of its values"
            )
        falls = np.flatnonzero(pointers[1:] < pointers[:-1])
        if len(falls):
            raise BrokenMatrixError(
                f"is broken: its indptr falls {len(falls)} times, first at position {falls[0] + 1}"
            )
        return pointers.astype(np.int64)


def _require_inside(indices: NDArray[Any], n_across: int, start: int) -> None:
    outside = np.flatnonzero((indices < 0) | (indices >= n_across))
    if len(outside):
        raise BrokenMatrixError(
            f"is broken: {len(outside)} of its indices point outside the matrix, first "
            f"{indices[outside[0]]} at position {start + outside[0]}, where {n_across - 1} is "
            "the largest"
        )


def _index_type(shape: tuple[int, int], n_stored: int) -> np.dtype[Any]:
    """The type that scipy itself takes: 32 bits as long as they are enough."""
    return np.dtype(np.int32 if max(*shape, n_stored) < 2**31 else np.int64)


def _native(values: NDArray[Any]) -> NDArray[Any]:
    """Values of a type that every routine takes: floats of 4 or 8 bytes, in our byte order."""
    size = values.dtype.itemsize
    if values.dtype.kind == "f" and size not in (4, 8):
        return values.astype(np.float32 if size < 4 else np.float64)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _canonical(matrix: Any) -> sp.csr_matrix:
    counts = sp.csr_matrix(matrix)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    return counts
