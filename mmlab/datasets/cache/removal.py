"""Removal of datasets from the cache: on request, or because their counts are damaged."""

from __future__ import annotations

import logging
from pathlib import Path

from mmlab.datasets.cache.cache_paths import (
    cache_folder,
    counts_path,
    downloads_folder,
    record_path,
)
from mmlab.datasets.cache.cached_counts import has_intact_counts
from mmlab.datasets.cache.records import CacheRecord, dataset_lock, find_record, list_records
from mmlab.errors import UserError

_log = logging.getLogger(__name__)


def remove_dataset(name: str) -> int:
    """Delete a dataset and the downloads that no other dataset needs; return the freed bytes.

    Raises
    ------
    UserError
        The dataset is not in the cache.
    """
    with dataset_lock(name, f"another process is using {name}: waiting for it"):
        found = list_records()
        if name not in found:
            present = ", ".join(found) or "none"
            raise UserError(
                f"dataset {name!r} is not in the cache {cache_folder()}; datasets there: {present}."
            )
        record = found.pop(name)
        record_path(name).unlink()
        freed = 0
        if record.sha256 not in {other.sha256 for other in found.values()}:
            freed += _delete(counts_path(record.sha256))
        needed = {file for other in found.values() for file in other.made_from}
        for file in record.made_from.keys() - needed:
            freed += _delete(downloads_folder() / file)
    return freed


def discard_damaged(record: CacheRecord) -> bool:
    """Delete a dataset from the cache if its counts are missing or damaged; return whether it was.

    Its downloads remain, so that it is converted again from them.

    Raises
    ------
    UserError
        The cache folder cannot be written.
    """
    if has_intact_counts(record):
        return False
    name, path = record.name, counts_path(record.sha256)
    with dataset_lock(name, f"another process is using {name}: waiting for it"):
        # Another process may have replaced the dataset in the meantime.
        if find_record(name) == record and not has_intact_counts(record):
            _log.warning("the counts of %s, %s, are damaged: fetching them again", name, path)
            record_path(name).unlink()
            path.unlink(missing_ok=True)
    return True


def _delete(path: Path) -> int:
    """Delete a file if it exists; return its size."""
    if not path.is_file():
        return 0
    size = path.stat().st_size
    path.unlink()
    return size
