"""Where the cache lies on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

#: Names another folder for the cache.
FOLDER_VARIABLE = "MMLAB_CACHE"


def cache_folder() -> Path:
    """Where datasets are kept on this machine."""
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named).absolute() if named else user_cache_path("mmlab")


def downloads_folder() -> Path:
    """Where downloaded files are kept."""
    return cache_folder() / "downloads"


def record_path(name: str) -> Path:
    """Where the record of a dataset is kept."""
    return cache_folder() / "datasets" / f"{name}.json"


def counts_path(sha256: str) -> Path:
    """Where the counts with this hash are kept."""
    return cache_folder() / "counts" / f"{sha256}.h5ad"
