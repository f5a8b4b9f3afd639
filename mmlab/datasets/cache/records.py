"""The datasets that are kept on this machine: each is there whole, or not at all.

The folder is ``$MMLAB_CACHE``, or the system's place for caches. It holds ``counts/SHA256.h5ad``
(:mod:`mmlab.datasets.cache.mapped_counts`), ``datasets/NAME.json`` that names one, ``downloads`` and
``locks``. A dataset is there once its JSON is, which is written last.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache, partial
from pathlib import Path

import anndata as ad
import h5py
import pandas as pd
import scipy.sparse as sp
from filelock import FileLock, Timeout
from pydantic import ConfigDict, TypeAdapter, ValidationError

from mmlab.datasets.cache.cache_paths import (
    FOLDER_VARIABLE,
    cache_folder,
    counts_path,
    downloads_folder,
    record_path,
)
from mmlab.datasets.cache.mapped_counts import map_counts, write_counts
from mmlab.datasets.cells import Cells
from mmlab.datasets.description import Description
from mmlab.errors import UserError
from mmlab.system.files import atomic_write, file_hash


@dataclass(frozen=True, kw_only=True)
class CacheRecord(Description):
    """What the store knows of a dataset.

    Attributes
    ----------
    density
        Share of the counts above 0.
    sha256, bytes
        Of the file with the counts.
    fingerprint
        Of the cells.
    made_from
        sha256 of the files that it was made from, by name.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    density: float
    sha256: str
    bytes: int
    fingerprint: str
    made_from: dict[str, str]


_RECORD = TypeAdapter(CacheRecord)


def records() -> dict[str, CacheRecord]:
    """The datasets that are there, by name."""
    paths = sorted((cache_folder() / "datasets").glob("*.json"))
    return {path.stem: _read_record(path) for path in paths}


def find_record(name: str) -> CacheRecord | None:
    """The dataset of a name, if it is there."""
    path = record_path(name)
    return _read_record(path) if path.is_file() else None


@contextmanager
def dataset_lock(name: str, say: str) -> Iterator[None]:
    """Hold a dataset's place: another process that wants it waits, and says ``say``."""
    place = cache_folder() / "locks" / f"{name}.lock"
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        print(say, file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def write_dataset(
    about: Description,
    blocks: Iterable[sp.csr_matrix],
    obs: pd.DataFrame,
    var: pd.DataFrame,
    made_from: dict[str, str],
) -> CacheRecord:
    """Keep cells under a name; whoever calls holds its lock.

    Parameters
    ----------
    about
        What they are; its sizes are counted anew.
    blocks
        Checked raw counts of consecutive cells, (n_cells, n_genes).
    obs
        The column ``about.label_key``, categorical; a row a cell.
    var
        A row a gene; of simulated cells with ``is_marker``.
    made_from
        sha256 of files, by name.
    """
    folder = cache_folder() / "counts"
    folder.mkdir(parents=True, exist_ok=True)
    # Left by a process that was killed, it is overwritten.
    unfinished = folder / f".{about.name}.partial"
    try:
        write_counts(unfinished, blocks, obs, var)
        sha256 = file_hash(unfinished)
        counts = map_counts(unfinished)
        cells = _cells(about, counts, obs, var)
        told = {field.name: getattr(about, field.name) for field in fields(Description)}
        measured = {
            "n_cells": counts.shape[0],
            "n_genes": counts.shape[1],
            "n_classes": len(cells.classes),
            "density": counts.nnz / (counts.shape[0] * counts.shape[1]),
            "sha256": sha256,
            "bytes": unfinished.stat().st_size,
            "fingerprint": cells.fingerprint,
        }
        record = CacheRecord(**told | measured, made_from=made_from)
        with unfinished.open("rb") as written:
            os.fsync(written.fileno())
        unfinished.replace(counts_path(sha256))
    finally:
        unfinished.unlink(missing_ok=True)
    path = record_path(about.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as new:
        new.write_bytes(_RECORD.dump_json(record, indent=1) + b"\n")
    return record


def open_cells(record: CacheRecord) -> Cells:
    """Cells of a dataset, their counts mapped into memory.

    Raises
    ------
    UserError
        Its file is not on this machine, or has changed since it was written.
    """
    path = counts_path(record.sha256)
    again = f"bring it back with: mmlab datasets remove {record.name}, then fetch or add it again"
    if not path.is_file():
        raise UserError(
            f"the counts of {record.name} are not in {path.parent} on this machine: {again}, or "
            f"share the cache of the other machine and name it in {FOLDER_VARIABLE}."
        )
    state = path.stat()
    if _verified(path, state.st_size, state.st_mtime_ns) != record.sha256:
        raise UserError(f"{path}, the counts of {record.name}, has changed on disk: {again}.")
    with h5py.File(path) as file:
        obs, var = ad.io.read_elem(file["obs"]), ad.io.read_elem(file["var"])
    return _cells(record, map_counts(path), obs, var)


def remove_dataset(name: str) -> int:
    """Free what a dataset takes, with the downloads that no other one needs; gives the bytes.

    Raises
    ------
    UserError
        It is not there.
    """
    with dataset_lock(name, f"another process is at work on {name}: waiting for it"):
        found = records()
        if name not in found:
            there = ", ".join(found) or "none"
            raise UserError(f"{name} is not in {cache_folder()}; these are: {there}.")
        record = found.pop(name)
        record_path(name).unlink()
        freed = 0
        if record.sha256 not in {other.sha256 for other in found.values()}:
            freed += _unlink(counts_path(record.sha256))
        needed = {file for other in found.values() for file in other.made_from}
        for file in record.made_from.keys() - needed:
            freed += _unlink(downloads_folder() / file)
    return freed


def _cells(
    about: Description, counts: sp.csr_matrix, obs: pd.DataFrame, var: pd.DataFrame
) -> Cells:
    adata = ad.AnnData(X=counts, obs=obs, var=var)
    told = about.label_key, about.normalization, about.origin, about.simulated, about.notes
    if isinstance(about, CacheRecord):
        return Cells(about.name, adata, *told, about.fingerprint, partial(open_cells, about))
    return Cells(about.name, adata, *told)


def _read_record(path: Path) -> CacheRecord:
    try:
        return _RECORD.validate_json(path.read_bytes())
    except ValidationError as error:
        raise UserError(
            f"{path} is not a record that this version of mmlab reads: remove it, and fetch or add "
            "the dataset again."
        ) from error


@cache
def _verified(path: Path, size: int, changed: int) -> str:
    """sha256 of a file, once a process for each state of the file."""
    return file_hash(path)


def _unlink(path: Path) -> int:
    if not path.is_file():
        return 0
    size = path.stat().st_size
    path.unlink()
    return size
