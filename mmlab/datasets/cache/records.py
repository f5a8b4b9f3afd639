"""Records of the datasets in the cache; a dataset is stored completely or not at all.

The cache folder is ``$MMLAB_CACHE``, or the cache folder of the operating system. It contains
``counts/SHA256.h5ad`` (:mod:`mmlab.datasets.cache.mapped_counts`), the records
``datasets/NAME.json``, each with the sha256 of its counts, ``downloads`` and ``locks``. The record
is written last: a dataset exists if its record does.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ConfigDict, TypeAdapter, ValidationError

from mmlab.datasets.cache.cache_paths import (
    FOLDER_VARIABLE,
    cache_folder,
    record_path,
)
from mmlab.datasets.description import Description
from mmlab.errors import UserError
from mmlab.spec.names import check_name, is_name
from mmlab.system.files import atomic_write, require_folder, set_aside


@dataclass(frozen=True, kw_only=True)
class CacheRecord(Description):
    """Metadata of a dataset in the cache.

    Attributes
    ----------
    density
        Share of counts above 0.
    sha256, bytes
        Checksum and size of the file with the counts.
    fingerprint
        Fingerprint of the cells.
    made_from
        sha256 of the files that it was converted from, by name.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    density: float
    sha256: str
    bytes: int
    fingerprint: str
    made_from: dict[str, str]


_RECORD = TypeAdapter(CacheRecord)


def list_records() -> dict[str, CacheRecord]:
    """Return the records of all datasets in the cache, by name."""
    paths = sorted((cache_folder() / "datasets").glob("*.json"))
    records = {path.stem: _read_record(path) for path in paths}
    return {name: record for name, record in records.items() if record is not None}


def find_record(name: str) -> CacheRecord | None:
    """Return the record of a dataset; None if it is not in the cache."""
    path = record_path(name)
    return _read_record(path) if is_name(name) and path.is_file() else None


@contextmanager
def dataset_lock(name: str, message: str) -> Iterator[None]:
    """Lock a dataset; if another process has the lock, print ``message`` and wait for it.

    Raises
    ------
    UserError
        The name is not valid, or the cache folder cannot be written.
    """
    check_name(name, "dataset")
    require_folder(cache_folder(), FOLDER_VARIABLE)
    path = cache_folder() / "locks" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        print(message, file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def write_record(record: CacheRecord) -> None:
    """Write the record of a dataset whose counts are in the cache."""
    path = record_path(record.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as new:
        new.write_bytes(_RECORD.dump_json(record, indent=1) + b"\n")


def _read_record(path: Path) -> CacheRecord | None:
    """Read a record; None for a damaged one, which is set aside so that it is written again."""
    text = path.read_bytes()
    try:
        json.loads(text)
    except ValueError:
        set_aside(path, "record of a dataset")
        return None
    try:
        return _RECORD.validate_json(text)
    except ValidationError as error:
        raise UserError(
            f"{path} is not a record that this version of mmlab can read: delete it, and fetch or "
            "add the dataset again."
        ) from error
