"""Paths of the dataset cache."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

#: Environment variable that sets the cache folder.
FOLDER_VARIABLE = "MMLAB_CACHE"


def cache_folder() -> Path:
    """Return the folder of the dataset cache."""
    configured = os.environ.get(FOLDER_VARIABLE)
    return Path(configured).absolute() if configured else user_cache_path("mmlab")


def downloads_folder() -> Path:
    """Return the folder of downloaded files."""
    return cache_folder() / "downloads"


def record_path(name: str) -> Path:
    """Return the path of the record of a dataset."""
    return cache_folder() / "datasets" / f"{name}.json"


def counts_path(sha256: str) -> Path:
    """Return the path of the counts with this sha256."""
    return cache_folder() / "counts" / f"{sha256}.h5ad"
