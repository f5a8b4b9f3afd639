"""Uniform access to the matrices, names and labels of an ``.h5ad`` file or an AnnData.

Data are read on demand. Of a file, only the names, one label column and the matrix with the counts
are read, never ``obsm``, ``obsp`` or ``uns``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd

from mmlab.datasets.io.hdf5 import (
    InvalidFileError,
    declared_bytes,
    explain_hdf5_errors,
    format_bytes,
    read_attribute,
    read_names,
    read_values,
)
from mmlab.system.memory import available_memory

#: Layers that are searched for counts, in this order, before ``X`` and ``raw``.
COUNT_LAYERS = ("counts", "raw_counts", "count")
#: Encodings of a column that consists of values and a mask of the missing ones.
_MASKED_ENCODINGS = ("nullable-integer", "nullable-boolean", "nullable-string-array")


@dataclass(frozen=True)
class CountLocation:
    """A location that may contain counts: ``X``, ``raw`` or a layer.

    Attributes
    ----------
    title
        Name for messages: ``X``, ``raw`` or ``layer 'counts'``.
    element
        Argument of :func:`mmlab.datasets.io.open_matrix.open_matrix`; None if the location is
        empty.
    read_gene_names
        Returns the names of its genes; ``raw`` has genes of its own.
    """

    title: str
    element: Any
    read_gene_names: Callable[[], pd.Index]


@dataclass(frozen=True)
class CellSource:
    """Cells as the user provides them.

    Attributes
    ----------
    cell_names, gene_names
        Names, as text; a missing name is the empty string.
    layers, X, raw
        The locations that may contain counts.
    obs_columns, var_columns
        Names of the columns of ``obs`` and ``var``.
    read_obs_column, read_var_column
        Read a column of ``obs``, of ``var``.
    """

    cell_names: pd.Index
    gene_names: pd.Index
    layers: dict[str, CountLocation]
    X: CountLocation
    raw: CountLocation | None
    obs_columns: list[str]
    var_columns: list[str]
    read_obs_column: Callable[[str], pd.Series]
    read_var_column: Callable[[str], pd.Series]

    def find_location(self, layer: str) -> CountLocation | None:
        """Return the location with the name ``layer``; ``X`` and ``raw`` are valid names, too."""
        others = {"X": self.X, "raw": self.raw}
        return self.layers.get(layer) or others.get(layer)

    def default_locations(self) -> list[CountLocation]:
        """Return the locations that are searched if no layer is requested, in this order."""
        by_name = {name.lower(): location for name, location in self.layers.items()}
        locations = [by_name[name] for name in COUNT_LAYERS if name in by_name]
        locations += [self.X] if self.X.element is not None else []
        locations += [self.raw] if self.raw is not None else []
        return locations or [self.X]

    def location_names(self) -> list[str]:
        """Return all valid values of ``layer``."""
        return [*sorted(self.layers), "X", *(["raw"] if self.raw is not None else [])]


def from_anndata(adata: ad.AnnData) -> CellSource:
    """Return the cells of an AnnData in memory; the AnnData is not modified."""
    raw, gene_names = adata.raw, as_names(adata.var_names)
    return CellSource(
        cell_names=as_names(adata.obs_names),
        gene_names=gene_names,
        layers={
            str(name): CountLocation(f"layer {name!r}", matrix, lambda: gene_names)
            for name, matrix in adata.layers.items()
        },
        X=CountLocation("X", adata.X, lambda: gene_names),
        raw=None if raw is None else CountLocation("raw", raw.X, lambda: as_names(raw.var_names)),
        obs_columns=[str(name) for name in adata.obs.columns],
        var_columns=[str(name) for name in adata.var.columns],
        read_obs_column=lambda name: adata.obs[name],
        read_var_column=lambda name: adata.var[name],
    )


def from_file(file: h5py.File) -> CellSource:
    """Return the cells of a file opened by :func:`mmlab.datasets.io.h5ad.open_h5ad`.

    The file must stay open while the result is in use.

    Raises
    ------
    InvalidFileError
        The names of the cells or genes cannot be read.
    """
    with explain_hdf5_errors(file):
        obs, var, layers, raw = (file.get(name) for name in ("obs", "var", "layers", "raw"))
        if isinstance(obs, h5py.Dataset):
            return from_anndata(_read_legacy_file(file))
        for name, table in (("obs", obs), ("var", var)):
            if not isinstance(table, h5py.Group):
                problem = f"/{name} is not a table; write the file again with write_h5ad"
                raise InvalidFileError(file.filename, [problem])
        gene_names = _read_index(var)
        has_raw = isinstance(raw, h5py.Group) and isinstance(raw.get("var"), h5py.Group)
        return CellSource(
            cell_names=_read_index(obs),
            gene_names=gene_names,
            layers={
                name: CountLocation(f"layer {name!r}", layers[name], lambda: gene_names)
                for name in (layers if isinstance(layers, h5py.Group) else ())
            },
            X=CountLocation("X", _x_element(file), lambda: gene_names),
            raw=(
                CountLocation("raw", _x_element(raw), lambda: _read_index(raw["var"]))
                if has_raw
                else None
            ),
            obs_columns=_column_names(obs),
            var_columns=_column_names(var),
            read_obs_column=lambda name: pd.Series(_read_column(obs, name)),
            read_var_column=lambda name: pd.Series(_read_column(var, name)),
        )


def as_names(values: Any) -> pd.Index:
    """Return names as text; a missing name becomes the empty string."""
    index = pd.Index(values)
    texts = index.astype(str).to_numpy(dtype=object, copy=True)
    texts[np.asarray(index.isna(), dtype=bool)] = ""
    names: pd.Index = pd.Index(texts, dtype=object)
    return names


def _x_element(group: h5py.Group) -> Any:
    """Return the element ``X`` of a group; None if it is missing or encoded as null."""
    element = group.get("X")
    is_null = element is not None and read_attribute(element, "encoding-type") == "null"
    return None if is_null else element


def _column_names(table: h5py.Group) -> list[str]:
    """Return the names of columns; of ``a/b``, the file has a group ``a`` with a member ``b``."""
    index = read_attribute(table, "_index")
    named = {name for name in read_names(table, "column-order") if name in table}
    groups = {name.split("/")[0] for name in named if "/" in name}
    others = {name for name in table if name != index and not name.startswith("__")}
    return sorted(named | (others - groups))


def _read_index(table: h5py.Group) -> pd.Index:
    name = read_attribute(table, "_index")
    if name not in table:
        problem = f"{table.name} has no names: its index column {name!r} is missing"
        raise InvalidFileError(table.file.filename, [problem])
    return as_names(_read_column(table, name))


def _read_column(table: h5py.Group, name: str) -> Any:
    """Read a column of ``obs`` or ``var`` as a numpy array or a pandas object."""
    with explain_hdf5_errors(table):
        element = table[name]
        encoding = read_attribute(element, "encoding-type")
        parts = _column_parts(table, element, encoding)
        if not all(isinstance(part, h5py.Dataset) for part in parts):
            problem = f"{element.name} is not a column of values"
            raise InvalidFileError(table.file.filename, [problem])
        _require_memory(element.name, parts)
        values: list[Any] = [read_values(part) for part in parts]
        if len(values) == 1:
            return values[0]
        if encoding in _MASKED_ENCODINGS:
            return pd.Series(values[0], dtype=object).mask(values[1].astype(bool))
        return pd.Categorical.from_codes(values[0], values[1])


def _column_parts(table: h5py.Group, element: Any, encoding: str) -> list[Any]:
    """Return the HDF5 datasets of a column: values; codes and categories; or values and mask."""
    if isinstance(element, h5py.Group):
        if encoding == "categorical":
            return [element["codes"], element["categories"]]
        return [element["values"], element["mask"]] if encoding in _MASKED_ENCODINGS else [element]
    if "categories" in element.attrs:  # anndata 0.7
        reference = element.attrs.get_id("categories")
        if h5py.check_ref_dtype(reference.dtype) is h5py.Reference:
            return [element, table[element.attrs["categories"]]]
    return [element]


def _read_legacy_file(file: h5py.File) -> ad.AnnData:
    """Read all of a file written by anndata before 0.7 (2020), which kept categories in ``uns``."""
    datasets: list[h5py.Dataset] = []
    file.visititems(lambda _, item: datasets.append(item) if hasattr(item, "shape") else None)
    _require_memory("the whole file, in a format of anndata before 0.7,", datasets)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            adata: ad.AnnData = ad.read_h5ad(file.filename)
        except Exception as error:  # h5py and anndata's readers raise many types
            detail = " ".join(str(error).split())
            problem = f"it has the format of anndata before 0.7 and cannot be read: {detail}"
            raise InvalidFileError(file.filename, [problem]) from error
    return adata


def _require_memory(label: str, datasets: list[h5py.Dataset]) -> None:
    needed, free = sum(map(declared_bytes, datasets)), available_memory()
    if needed > free:
        raise InvalidFileError(
            datasets[0].file.filename,
            [
                f"{label} needs {format_bytes(needed)} of memory, but {format_bytes(free)} are "
                "free; use a machine with more memory"
            ],
        )
