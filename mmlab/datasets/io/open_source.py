"""Open the cells of a user's file, whatever its format."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmlab.datasets.io.cell_source import CellSource, from_file
from mmlab.datasets.io.h5ad import open_h5ad
from mmlab.datasets.io.zarr_store import from_zarr, is_zarr


@contextmanager
def open_source(path: str) -> Iterator[CellSource]:
    """Open an ``.h5ad`` file or an AnnData ``.zarr`` store; only names are read.

    Raises
    ------
    InvalidFileError
        It cannot be read, or has another format: the message says how it is converted.
    """
    if is_zarr(Path(path)):
        yield from_zarr(path)
        return
    with open_h5ad(path) as file:
        yield from_file(file)
