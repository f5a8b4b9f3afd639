"""The counts of the datasets in the cache: written once, opened by any number of processes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import anndata as ad
import h5py
import pandas as pd
import scipy.sparse as sp

from mmlab.datasets.cache.cache_paths import FOLDER_VARIABLE, cache_folder, counts_path
from mmlab.datasets.cache.mapped_counts import map_counts, write_counts
from mmlab.datasets.cache.records import CacheRecord, dataset_lock, write_record
from mmlab.datasets.cells import Cells
from mmlab.datasets.description import Description
from mmlab.errors import UserError
from mmlab.system.files import atomic_write, file_hash


def write_dataset(
    description: Description,
    blocks: Iterable[sp.csr_matrix],
    obs: pd.DataFrame,
    var: pd.DataFrame,
    made_from: dict[str, str],
) -> CacheRecord:
    """Write cells to the cache and return their record; the caller has locked the dataset.

    Parameters
    ----------
    description
        Name and metadata; the sizes in the record are those of the written counts.
    blocks
        Checked raw counts of consecutive cells, (n_cells, n_genes).
    obs
        The categorical column ``description.label_key``; one row per cell.
    var
        One row per gene; simulated datasets have a column ``is_marker``.
    made_from
        sha256 of the original files, by name.
    """
    folder = cache_folder() / "counts"
    folder.mkdir(parents=True, exist_ok=True)
    # A file left by a killed process is overwritten.
    unfinished = folder / f".{description.name}.partial"
    try:
        write_counts(unfinished, blocks, obs, var)
        sha256 = file_hash(unfinished)
        counts = map_counts(unfinished)
        cells = _make_cells(description, counts, obs, var)
        metadata = {field.name: getattr(description, field.name) for field in fields(Description)}
        measured = {
            "n_cells": counts.shape[0],
            "n_genes": counts.shape[1],
            "n_classes": len(cells.classes),
            "density": counts.nnz / (counts.shape[0] * counts.shape[1]),
            "sha256": sha256,
            "bytes": unfinished.stat().st_size,
            "fingerprint": cells.fingerprint,
        }
        record = CacheRecord(**metadata | measured, made_from=made_from)
        with unfinished.open("rb") as written:
            os.fsync(written.fileno())
        unfinished.replace(counts_path(sha256))
    finally:
        unfinished.unlink(missing_ok=True)
    write_record(record)
    return record


def open_cells(record: CacheRecord) -> Cells:
    """Return the cells of a dataset, with the counts mapped into memory.

    Raises
    ------
    UserError
        The file of the counts is not on this machine, or has changed since it was written.
    """
    path = counts_path(record.sha256)
    again = f"run mmlab datasets remove {record.name}, then fetch or add it again"
    if not path.is_file():
        raise UserError(
            f"the counts of {record.name} are not in {path.parent} on this machine: {again}, or "
            f"set {FOLDER_VARIABLE} to a cache that is shared with the other machine."
        )
    if not has_intact_counts(record):
        raise UserError(f"{path}, the counts of {record.name}, has changed on disk: {again}.")
    with h5py.File(path) as file:
        obs, var = ad.io.read_elem(file["obs"]), ad.io.read_elem(file["var"])
    return _make_cells(record, map_counts(path), obs, var)


@dataclass(frozen=True)
class CachedCells:
    """A call that opens the cells of a record, see :func:`open_cells`."""

    record: CacheRecord

    def __call__(self) -> Cells:
        """Open the cells."""
        return open_cells(self.record)


def install_counts(record: CacheRecord, blocks: Iterable[bytes]) -> None:
    """Write the file of a dataset's counts to the cache of this machine, unless it is there.

    Parameters
    ----------
    blocks
        The content of the file; read only if it is needed.

    Raises
    ------
    UserError
        The cache folder cannot be written.
    OSError
        The file cannot be written, or is not the one of the record.
    """
    path = counts_path(record.sha256)
    with dataset_lock(record.name, f"waiting for another process to copy {record.name}"):
        if has_intact_counts(record):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as new:
            with new.open("wb") as file:
                file.writelines(blocks)
            if file_hash(new) != record.sha256:
                raise OSError(f"the copy of the counts of {record.name} is damaged")


def has_intact_counts(record: CacheRecord) -> bool:
    """Return whether the counts of a dataset are on this machine and have the recorded sha256."""
    path = counts_path(record.sha256)
    if not path.is_file():
        return False
    state = path.stat()
    same_size = state.st_size == record.bytes
    return same_size and _cached_hash(path, state.st_mtime_ns) == record.sha256


@cache
def _cached_hash(path: Path, modified_ns: int) -> str:
    """Return the sha256 of a file, computed once per process and modification time."""
    return file_hash(path)


def _make_cells(
    description: Description, counts: sp.csr_matrix, obs: pd.DataFrame, var: pd.DataFrame
) -> Cells:
    adata = ad.AnnData(X=counts, obs=obs, var=var)
    metadata = (
        description.label_key,
        description.normalization,
        description.origin,
        description.simulated,
        description.notes,
    )
    if isinstance(description, CacheRecord):
        reopen = CachedCells(description)
        return Cells(description.name, adata, *metadata, description.fingerprint, reopen)
    return Cells(description.name, adata, *metadata)
