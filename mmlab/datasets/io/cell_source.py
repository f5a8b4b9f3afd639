"""Where the cells come from, a file or an AnnData: its matrices, names and labels, as it has them.

Nothing is loaded that is not asked for: of a file the names, a label column and the matrix with the
counts are read, never ``obsm``, ``obsp`` or ``uns``.
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
    RefusedFileError,
    declared_bytes,
    explain_hdf5_errors,
    format_bytes,
    read_attribute,
    read_values,
)
from mmlab.system.memory import free_memory

#: Layers that are looked at for counts, in this order, before ``X`` and ``raw``.
COUNT_LAYERS = ("counts", "raw_counts", "count")
#: Encodings of a column of values with a mask of the missing ones.
_MASKED = ("nullable-integer", "nullable-boolean", "nullable-string-array")


@dataclass(frozen=True)
class CountLocation:
    """A place where counts may be.

    Attributes
    ----------
    title
        For people: ``X``, ``raw`` or ``layer 'counts'``.
    element
        What :func:`mmlab.datasets.io.open_matrix.open_matrix` takes; None if the place is empty.
    genes
        Gives the names of its genes; those of ``raw`` are its own.
    """

    title: str
    element: Any
    genes: Callable[[], pd.Index]


@dataclass(frozen=True)
class CellSource:
    """Cells as a user gives them.

    Attributes
    ----------
    cells, genes
        Names, as text; a missing one is empty.
    layers, X, raw
        The places where counts may be.
    columns, var_columns
        Names of the columns of ``obs`` and ``var``.
    column
        Reads a column of ``obs``.
    """

    cells: pd.Index
    genes: pd.Index
    layers: dict[str, CountLocation]
    X: CountLocation
    raw: CountLocation | None
    columns: list[str]
    var_columns: list[str]
    column: Callable[[str], pd.Series]

    def named(self, layer: str) -> CountLocation | None:
        """The place that a user calls ``layer``; ``X`` and ``raw`` are names too."""
        others = {"X": self.X, "raw": self.raw}
        return self.layers.get(layer) or others.get(layer)

    def usual(self) -> list[CountLocation]:
        """The places that are looked at if none is named, in this order."""
        by_name = {name.lower(): place for name, place in self.layers.items()}
        usual = [by_name[name] for name in COUNT_LAYERS if name in by_name]
        usual += [self.X] if self.X.element is not None else []
        usual += [self.raw] if self.raw is not None else []
        return usual or [self.X]

    def names(self) -> list[str]:
        """Everything that a user may name as a layer."""
        return [*sorted(self.layers), "X", *(["raw"] if self.raw is not None else [])]


def from_anndata(adata: ad.AnnData) -> CellSource:
    """The cells of an AnnData in memory; it is not changed."""
    raw = adata.raw

    def genes() -> pd.Index:
        return as_names(adata.var_names)

    return CellSource(
        cells=as_names(adata.obs_names),
        genes=genes(),
        layers={
            str(name): CountLocation(f"layer {name!r}", matrix, genes)
            for name, matrix in adata.layers.items()
        },
        X=CountLocation("X", adata.X, genes),
        raw=None if raw is None else CountLocation("raw", raw.X, lambda: as_names(raw.var_names)),
        columns=[str(name) for name in adata.obs.columns],
        var_columns=[str(name) for name in adata.var.columns],
        column=lambda name: adata.obs[name],
    )


def from_file(file: h5py.File) -> CellSource:
    """The cells of a file of :func:`mmlab.datasets.io.h5ad.open_h5ad`, which stays open.

    Raises
    ------
    RefusedFileError
        The names of the cells or genes cannot be read.
    """
    with explain_hdf5_errors(file):
        obs, var, layers, raw = (file.get(name) for name in ("obs", "var", "layers", "raw"))
        if isinstance(obs, h5py.Dataset):
            return from_anndata(_read_old(file))
        for name, frame in (("obs", obs), ("var", var)):
            if not isinstance(frame, h5py.Group):
                raise RefusedFileError(file.filename, [f"/{name} is no table"])
        genes = _index(var)
        has_raw = isinstance(raw, h5py.Group) and isinstance(raw.get("var"), h5py.Group)
        return CellSource(
            cells=_index(obs),
            genes=genes,
            layers={
                name: CountLocation(f"layer {name!r}", layers[name], lambda: genes)
                for name in (layers if isinstance(layers, h5py.Group) else ())
            },
            X=CountLocation("X", _matrix(file), lambda: genes),
            raw=CountLocation("raw", _matrix(raw), lambda: _index(raw["var"])) if has_raw else None,
            columns=_columns(obs),
            var_columns=_columns(var),
            column=lambda name: pd.Series(_read_column(obs, name)),
        )


def as_names(values: Any) -> pd.Index:
    """Names as text; a missing one is empty."""
    index = pd.Index(values)
    texts = index.astype(str).to_numpy(dtype=object, copy=True)
    texts[np.asarray(index.isna(), dtype=bool)] = ""
    names: pd.Index = pd.Index(texts, dtype=object)
    return names


def _matrix(group: h5py.Group) -> Any:
    element = group.get("X")
    is_null = element is not None and read_attribute(element, "encoding-type") == "null"
    return None if is_null else element


def _columns(frame: h5py.Group) -> list[str]:
    index = read_attribute(frame, "_index")
    return sorted(name for name in frame if name != index and not name.startswith("__"))


def _index(frame: h5py.Group) -> pd.Index:
    name = read_attribute(frame, "_index")
    if name not in frame:
        raise RefusedFileError(
            frame.file.filename, [f"{frame.name} has no names: its index {name!r} is missing"]
        )
    return as_names(_read_column(frame, name))


def _read_column(frame: h5py.Group, name: str) -> Any:
    """A column of ``obs`` or ``var`` as numpy or pandas have it."""
    with explain_hdf5_errors(frame):
        element = frame[name]
        encoding = read_attribute(element, "encoding-type")
        parts = _parts(frame, element, encoding)
        if not all(isinstance(part, h5py.Dataset) for part in parts):
            raise RefusedFileError(frame.file.filename, [f"{element.name} is no column of values"])
        _require_memory(element.name, parts)
        values: list[Any] = [read_values(part) for part in parts]
        if len(values) == 1:
            return values[0]
        if encoding in _MASKED:
            return pd.Series(values[0], dtype=object).mask(values[1].astype(bool))
        return pd.Categorical.from_codes(values[0], values[1])


def _parts(frame: h5py.Group, element: Any, encoding: str) -> list[Any]:
    """What a column consists of: one dataset of values, or two."""
    if isinstance(element, h5py.Group):
        if encoding == "categorical":
            return [element["codes"], element["categories"]]
        return [element["values"], element["mask"]] if encoding in _MASKED else [element]
    if "categories" in element.attrs:  # anndata 0.7
        reference = element.attrs.get_id("categories")
        if h5py.check_ref_dtype(reference.dtype) is h5py.Reference:
            return [element, frame[element.attrs["categories"]]]
    return [element]


def _read_old(file: h5py.File) -> ad.AnnData:
    """A file that anndata wrote before 0.7 (2020), in which types lie in ``uns``: all of it."""
    datasets: list[h5py.Dataset] = []
    file.visititems(lambda _, item: datasets.append(item) if hasattr(item, "shape") else None)
    _require_memory("the whole file, of a format before anndata 0.7,", datasets)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            adata: ad.AnnData = ad.read_h5ad(file.filename)
        except Exception as error:  # whatever h5py and the readers of anndata raise
            detail = " ".join(str(error).split())
            problem = f"it has the format of anndata before 0.7 and cannot be read: {detail}"
            raise RefusedFileError(file.filename, [problem]) from error
    return adata


def _require_memory(what: str, datasets: list[h5py.Dataset]) -> None:
    needed, free = sum(map(declared_bytes, datasets)), free_memory()
    if needed > free:
        raise RefusedFileError(
            datasets[0].file.filename,
            [f"{what} needs {format_bytes(needed)} of memory, but {format_bytes(free)} are free"],
        )
