"""Uniform access to the matrices, names and labels of an ``.h5ad`` file or an AnnData.

Data are read on demand. Of a file, only the names, one label column and the matrix with the counts
are read, never ``obsm``, ``obsp`` or ``uns``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import anndata as ad
import h5py
import pandas as pd

from mmlab.datasets.io.hdf5 import InvalidFileError, explain_hdf5_errors, read_attribute
from mmlab.datasets.io.tables import (
    as_names,
    column_names,
    find_column,
    read_column,
    read_index,
    require_memory,
)

#: Layers that are searched for counts, in this order, before ``X`` and ``raw``.
COUNT_LAYERS = ("counts", "raw_counts", "count")


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
    read_gene_column
        Returns a column of the table of its genes, one value per gene; None if there is none.
    """

    title: str
    element: Any
    read_gene_names: Callable[[], pd.Index]
    read_gene_column: Callable[[str], Any] = lambda name: None


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
    of_var = (lambda: gene_names), adata.var.get
    return CellSource(
        cell_names=as_names(adata.obs_names),
        gene_names=gene_names,
        layers={
            str(name): CountLocation(f"layer {name!r}", matrix, *of_var)
            for name, matrix in adata.layers.items()
        },
        X=CountLocation("X", adata.X, *of_var),
        raw=(
            None
            if raw is None
            else CountLocation("raw", raw.X, lambda: as_names(raw.var_names), raw.var.get)
        ),
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
        gene_names = read_index(var)
        of_var = (lambda: gene_names), partial(find_column, var)
        has_raw = isinstance(raw, h5py.Group) and isinstance(raw.get("var"), h5py.Group)
        return CellSource(
            cell_names=read_index(obs),
            gene_names=gene_names,
            layers={
                name: CountLocation(f"layer {name!r}", layers[name], *of_var)
                for name in (layers if isinstance(layers, h5py.Group) else ())
            },
            X=CountLocation("X", _x_element(file), *of_var),
            raw=(
                CountLocation(
                    "raw",
                    _x_element(raw),
                    lambda: read_index(raw["var"]),
                    partial(find_column, raw["var"]),
                )
                if has_raw
                else None
            ),
            obs_columns=column_names(obs),
            var_columns=column_names(var),
            read_obs_column=lambda name: pd.Series(read_column(obs, name)),
            read_var_column=lambda name: pd.Series(read_column(var, name)),
        )


def _x_element(group: h5py.Group) -> Any:
    """Return the element ``X`` of a group; None if it is missing or encoded as null."""
    element = group.get("X")
    is_null = element is not None and read_attribute(element, "encoding-type") == "null"
    return None if is_null else element


def _read_legacy_file(file: h5py.File) -> ad.AnnData:
    """Read all of a file written by anndata before 0.7 (2020), which kept categories in ``uns``."""
    datasets: list[h5py.Dataset] = []
    file.visititems(lambda _, item: datasets.append(item) if hasattr(item, "shape") else None)
    require_memory("the whole file, in a format of anndata before 0.7,", datasets)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            adata: ad.AnnData = ad.read_h5ad(file.filename)
        except Exception as error:  # h5py and anndata's readers raise many types
            detail = " ".join(str(error).split())
            problem = f"it has the format of anndata before 0.7 and cannot be read: {detail}"
            raise InvalidFileError(file.filename, [problem]) from error
    return adata
