"""Read an AnnData ``.zarr`` store; its matrices are read block by block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mmlab.datasets.io.cell_source import CellSource, CountLocation
from mmlab.datasets.io.hdf5 import InvalidFileError, format_bytes
from mmlab.datasets.io.matrix import Matrix
from mmlab.datasets.io.tables import as_names
from mmlab.errors import UserError
from mmlab.system.memory import available_memory

if TYPE_CHECKING:
    import zarr

#: Files of the metadata of a store, in the formats 3 and 2.
_METADATA = ("zarr.json", ".zgroup", ".zmetadata")


def is_zarr(path: Path) -> bool:
    """Return whether a folder is a zarr store."""
    return any((path / name).is_file() for name in _METADATA)


def from_zarr(path: str) -> CellSource:
    """Return the cells of an AnnData ``.zarr`` store.

    Raises
    ------
    InvalidFileError
        It is not the store of an AnnData, or cannot be read.
    """
    import zarr

    with _explain_errors(path):
        root = zarr.open_group(path, mode="r")
        obs, var, layers, raw = (root.get(name) for name in ("obs", "var", "layers", "raw"))
        if not isinstance(obs, zarr.Group) or not isinstance(var, zarr.Group):
            raise InvalidFileError(path, [_describe_content(root)])
        gene_names = _read_index(path, var)
        of_var = (lambda: gene_names), partial(_find_column, path, var)
        raw_X = _matrix(path, raw.get("X")) if isinstance(raw, zarr.Group) else None
        raw_var = raw.get("var") if isinstance(raw, zarr.Group) else None
        return CellSource(
            cell_names=_read_index(path, obs),
            gene_names=gene_names,
            layers={
                name: CountLocation(f"layer {name!r}", _matrix(path, member), *of_var)
                for name, member in (layers.members() if isinstance(layers, zarr.Group) else ())
            },
            X=CountLocation("X", _matrix(path, root.get("X")), *of_var),
            raw=(
                CountLocation(
                    "raw",
                    raw_X,
                    lambda: _read_index(path, raw_var),
                    partial(_find_column, path, raw_var),
                )
                if isinstance(raw_var, zarr.Group)
                else None
            ),
            obs_columns=_column_names(obs),
            var_columns=_column_names(var),
            read_obs_column=lambda name: pd.Series(_read_column(path, obs, name)),
            read_var_column=lambda name: pd.Series(_read_column(path, var, name)),
        )


class _Part:
    """An array of a store, with the interface of an HDF5 dataset and errors for users."""

    def __init__(self, path: str, array: zarr.Array[Any], *, in_sparse: bool = False) -> None:
        self._path, self._array = path, array
        self.dtype, self.shape, self.ndim = array.dtype, array.shape, array.ndim
        self.chunks = array.chunks
        self._is_complete = not in_sparse

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, key: slice) -> np.ndarray[Any, Any]:
        with _explain_errors(self._path, self._array.name):
            self._require_chunks()
            return np.asarray(self._array[key])

    def _require_chunks(self) -> None:
        """Raise if a chunk of a sparse matrix is missing, which zarr would read as zeros.

        Dense matrices may lack chunks of zeros. Sparse ones store no zeros.
        """
        if self._is_complete:
            return
        there, needed = self._array.nchunks_initialized, self._array.nchunks
        if there < needed:
            problem = f"{self._array.name} lacks {needed - there} of {needed} chunks; copy it again"
            raise InvalidFileError(self._path, [problem])
        self._is_complete = True


@contextmanager
def _explain_errors(path: str, name: str = "") -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # zarr, its codecs and anndata's readers raise many types
        detail = " ".join(str(error).split()) or type(error).__name__
        problem = f"{name or 'the zarr store'} cannot be read: {detail}; copy it again"
        raise InvalidFileError(path, [problem]) from error


def _describe_content(root: zarr.Group) -> str:
    """Say what a store contains instead of an AnnData, and which of its groups is one."""
    for folder in ("tables", "table", "mod"):
        members: Any = root.get(folder)
        names = sorted(members.keys()) if hasattr(members, "keys") else []
        if names:
            name = "rna" if "rna" in names else names[0]
            return f"it is not an AnnData, but contains one: pass the path {folder}/{name} in it"
    content = ", ".join(sorted(root.keys())) or "nothing"
    return f"it is a zarr store, but not of an AnnData: it lacks obs or var and contains {content}"


def _matrix(path: str, element: Any) -> Matrix | None:
    """Return a stored matrix; None if it is missing or cannot be one."""
    import zarr

    encoding = "" if element is None else str(element.attrs.get("encoding-type", ""))
    if isinstance(element, zarr.Array):
        if encoding == "null" or element.ndim != 2:
            return None
        return Matrix("dense", (element.shape[0], element.shape[1]), _Part(path, element))
    kind = encoding.removesuffix("_matrix")
    if element is None or kind not in ("csr", "csc"):
        return None
    n_cells, n_genes = (int(n) for n in element.attrs["shape"])
    # All indices of a chunk, or all of its pointers, may be 0, but not its values.
    data, indices, indptr = (
        _Part(path, element[name], in_sparse=name == "data")
        for name in ("data", "indices", "indptr")
    )
    return Matrix("csr" if kind == "csr" else "csc", (n_cells, n_genes), data, indices, indptr)


def _column_names(table: zarr.Group) -> list[str]:
    return sorted(str(name) for name in table.attrs.get("column-order", []))  # type: ignore[union-attr]


def _read_index(path: str, table: zarr.Group) -> pd.Index:
    with _explain_errors(path, table.name):
        return as_names(_read_column(path, table, str(table.attrs["_index"])))


def _find_column(path: str, table: zarr.Group, name: str) -> Any:
    """Read a column of a table; None if it does not exist."""
    return _read_column(path, table, name) if name in _column_names(table) else None


def _read_column(path: str, table: zarr.Group, name: str) -> Any:
    """Read a column of ``obs`` or ``var`` as a numpy array or a pandas object."""
    import zarr
    from anndata.io import read_elem

    with _explain_errors(path, f"{table.name}/{name}"):
        element = table[name]
        arrays = [element] if isinstance(element, zarr.Array) else list(element.array_values())
        needed, free = sum(array.nbytes for array in arrays), available_memory()
        if needed > free:
            raise InvalidFileError(
                path,
                [
                    f"{element.name} needs {format_bytes(needed)} of memory, but "
                    f"{format_bytes(free)} are free; use a machine with more memory"
                ],
            )
        return read_elem(element)
