"""Memory-mapped counts in an ``.h5ad`` file, for datasets that do not fit into memory."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

#: Arrays of a sparse matrix in an anndata file.
_PARTS = ("data", "indices", "indptr")
#: Bytes that are copied at once.
_COPY_BYTES = 64 * 2**20
#: Cells of mapped counts that are read at once.
_CELLS_PER_READ = 128
#: Alignment of large arrays in the file: mapped values are then aligned in memory.
_PAGE = 4096


def write_counts(
    path: Path, blocks: Iterable[sp.csr_matrix], obs: pd.DataFrame, var: pd.DataFrame
) -> None:
    """Write cells as an ``.h5ad`` file that :func:`map_counts` maps.

    anndata can read the file, too. The arrays of the counts are contiguous and not compressed. One
    block is in memory at a time; for a short time, the counts are on disk twice.

    Parameters
    ----------
    path
        File to write.
    blocks
        Raw counts of consecutive cells (n_cells, n_genes), without stored zeros.
    obs, var
        One row per cell, and one row per gene.
    """
    with (
        tempfile.TemporaryFile(dir=path.parent) as values,
        tempfile.TemporaryFile(dir=path.parent) as genes,
    ):
        lengths = [np.zeros(1, dtype=np.int64)]
        for block in blocks:
            lengths.append(np.diff(block.indptr).astype(np.int64))
            values.write(np.ascontiguousarray(block.data, dtype=np.float32).tobytes())
            genes.write(np.ascontiguousarray(block.indices, dtype=np.int32).tobytes())
        starts = np.cumsum(np.concatenate(lengths))
        # scipy requires the same type for indices and indptr.
        index_type = np.int32 if max(starts[-1], len(var)) <= np.iinfo(np.int32).max else np.int64
        with h5py.File(path, "w", alignment_threshold=_PAGE, alignment_interval=_PAGE) as file:
            file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
            ad.io.write_elem(file, "obs", obs)
            ad.io.write_elem(file, "var", var)
            matrix = file.create_group("X")
            matrix.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
            matrix.attrs["shape"] = np.array([len(obs), len(var)], dtype=np.int64)
            matrix["indptr"] = starts.astype(index_type)
            for name, source, target_type in (
                ("data", values, np.float32),
                ("indices", genes, index_type),
            ):
                stored = np.float32 if name == "data" else np.int32
                _copy(source, stored, matrix.create_dataset(name, (starts[-1],), dtype=target_type))


def _copy(source: IO[bytes], dtype: Any, target: h5py.Dataset) -> None:
    source.seek(0)
    start = 0
    while part := source.read(_COPY_BYTES):
        numbers = np.frombuffer(part, dtype=dtype)
        target[start : start + len(numbers)] = numbers
        start += len(numbers)


def map_counts(path: Path) -> sp.csr_matrix:
    """Map the counts of a file of :func:`write_counts` into memory, read-only.

    They are read from disk on access. All processes of a machine share one copy in its page cache,
    which the system frees if memory is short.
    """
    with h5py.File(path) as file:
        matrix = file["X"]
        arrays = [(matrix[name].dtype, matrix[name].size) for name in _PARTS]
        offsets = [matrix[name].id.get_offset() for name in _PARTS]
        n_cells, n_genes = (int(size) for size in matrix.attrs["shape"])
    with path.open("rb") as stream:
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    data, indices, indptr = (
        np.frombuffer(mapped, dtype, size, offset)
        for (dtype, size), offset in zip(arrays, offsets, strict=True)
    )
    return sp.csr_matrix((data, indices, indptr), shape=(n_cells, n_genes), copy=False)


def take_cells(counts: sp.csr_matrix, cells: NDArray[np.int64]) -> sp.csr_matrix:
    """Return the counts of the given cells in memory, (n_cells, n_genes).

    Mapped counts are read in blocks of a few cells: the system maps up to 2 MiB around each cell,
    which counts as memory of this process. It is freed before the next block is read.
    """
    mapping = mapped_file(counts)
    if mapping is None:
        return counts[cells]
    parts = []
    for start in range(0, len(cells), _CELLS_PER_READ):
        parts.append(counts[cells[start : start + _CELLS_PER_READ]])
        if hasattr(mmap, "MADV_DONTNEED"):
            mapping.madvise(mmap.MADV_DONTNEED)
    return parts[0] if len(parts) == 1 else sp.vstack(parts, format="csr")


def mapped_file(counts: sp.csr_matrix) -> mmap.mmap | None:
    """Return the mapped file of counts of :func:`map_counts`; None for other counts."""
    base: Any = counts.data
    while isinstance(base, np.ndarray):
        base = base.base
    owner = base.obj if isinstance(base, memoryview) else None
    return owner if isinstance(owner, mmap.mmap) else None
