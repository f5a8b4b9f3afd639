"""An ``.h5ad`` file whose counts are mapped into memory: as many cells as the disk holds."""

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

#: Parts of a compressed matrix in the format of anndata.
_PARTS = ("data", "indices", "indptr")
#: Bytes that are copied at once.
_AT_ONCE = 64 * 2**20
#: Cells that are read at once.
_CELLS_AT_ONCE = 128
#: Large arrays begin at a page: mapped numbers are then where a processor wants them.
_PAGE = 4096


def write_counts(
    path: Path, blocks: Iterable[sp.csr_matrix], obs: pd.DataFrame, var: pd.DataFrame
) -> None:
    """Write cells as an ``.h5ad`` file that :func:`map_counts` maps.

    Any reader of AnnData reads it too. The arrays of the counts lie in one piece each, without
    compression; memory holds a block at a time, the disk for a moment twice the counts.

    Parameters
    ----------
    path
        File to write.
    blocks
        Raw counts of consecutive cells (n_cells, n_genes), without stored zeros.
    obs, var
        A row a cell, and a row a gene.
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
        # scipy wants both of one type.
        kind = np.int32 if max(starts[-1], len(var)) <= np.iinfo(np.int32).max else np.int64
        with h5py.File(path, "w", alignment_threshold=_PAGE, alignment_interval=_PAGE) as file:
            file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
            ad.io.write_elem(file, "obs", obs)
            ad.io.write_elem(file, "var", var)
            matrix = file.create_group("X")
            matrix.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
            matrix.attrs["shape"] = np.array([len(obs), len(var)], dtype=np.int64)
            matrix["indptr"] = starts.astype(kind)
            for name, source, here in (("data", values, np.float32), ("indices", genes, kind)):
                stored = np.float32 if name == "data" else np.int32
                _copy(source, stored, matrix.create_dataset(name, (starts[-1],), dtype=here))


def _copy(source: IO[bytes], kind: Any, target: h5py.Dataset) -> None:
    source.seek(0)
    start = 0
    while part := source.read(_AT_ONCE):
        numbers = np.frombuffer(part, dtype=kind)
        target[start : start + len(numbers)] = numbers
        start += len(numbers)


def map_counts(path: Path) -> sp.csr_matrix:
    """The counts of a file of :func:`write_counts`, read-only, read from disk as they are used.

    All processes of a machine that map a file share one copy in its memory, which the system
    takes back when it is short.
    """
    with h5py.File(path) as file:
        matrix = file["X"]
        places = [(matrix[name].dtype, matrix[name].size) for name in _PARTS]
        offsets = [matrix[name].id.get_offset() for name in _PARTS]
        n_cells, n_genes = (int(size) for size in matrix.attrs["shape"])
    with path.open("rb") as stream:
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    data, indices, indptr = (
        np.frombuffer(mapped, dtype, size, offset)
        for (dtype, size), offset in zip(places, offsets, strict=True)
    )
    return sp.csr_matrix((data, indices, indptr), shape=(n_cells, n_genes), copy=False)


def take_cells(counts: sp.csr_matrix, cells: NDArray[np.int64]) -> sp.csr_matrix:
    """Counts of some cells, (n_cells, n_genes), in memory.

    Of mapped counts a few cells are read at a time: the system maps up to 2 MiB around each, which
    counts as this process's memory, and is let go of before the next are read.
    """
    mapping = mapping_of(counts)
    if mapping is None:
        return counts[cells]
    parts = []
    for start in range(0, len(cells), _CELLS_AT_ONCE):
        parts.append(counts[cells[start : start + _CELLS_AT_ONCE]])
        if hasattr(mmap, "MADV_DONTNEED"):
            mapping.madvise(mmap.MADV_DONTNEED)
    return parts[0] if len(parts) == 1 else sp.vstack(parts, format="csr")


def mapping_of(counts: sp.csr_matrix) -> mmap.mmap | None:
    """The mapped file that counts of :func:`map_counts` lie in; None for others."""
    base: Any = counts.data
    while isinstance(base, np.ndarray):
        base = base.base
    owner = base.obj if isinstance(base, memoryview) else None
    return owner if isinstance(owner, mmap.mmap) else None
