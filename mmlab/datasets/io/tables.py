"""Tables of an ``.h5ad`` file, ``obs`` and ``var``: names and single columns."""

from __future__ import annotations

from typing import Any

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

#: Encodings of a column that consists of values and a mask of the missing ones.
_MASKED_ENCODINGS = ("nullable-integer", "nullable-boolean", "nullable-string-array")


def as_names(values: Any) -> pd.Index:
    """Return names as text; a missing name becomes the empty string."""
    index = pd.Index(values)
    texts = index.astype(str).to_numpy(dtype=object, copy=True)
    texts[np.asarray(index.isna(), dtype=bool)] = ""
    names: pd.Index = pd.Index(texts, dtype=object)
    return names


def column_names(table: h5py.Group) -> list[str]:
    """Return the names of the columns of a table in alphabetical order, without its index.

    Of a column ``a/b``, the file has a group ``a`` with a member ``b``.
    """
    index = read_attribute(table, "_index")
    named = {name for name in read_names(table, "column-order") if name in table}
    groups = {name.split("/")[0] for name in named if "/" in name}
    others = {name for name in table if name != index and not name.startswith("__")}
    return sorted(named | (others - groups))


def read_index(table: h5py.Group) -> pd.Index:
    """Read the names of the rows of a table; a table without them is an `InvalidFileError`."""
    name = read_attribute(table, "_index")
    if name not in table:
        problem = f"{table.name} has no names: its index column {name!r} is missing"
        raise InvalidFileError(table.file.filename, [problem])
    return as_names(read_column(table, name))


def find_column(table: h5py.Group, name: str) -> Any:
    """Read a column of a table; None if it does not exist."""
    return read_column(table, name) if name in column_names(table) else None


def read_column(table: h5py.Group, name: str) -> Any:
    """Read a column of ``obs`` or ``var`` as a numpy array or a pandas object."""
    with explain_hdf5_errors(table):
        element = table[name]
    with explain_hdf5_errors(element):
        encoding = read_attribute(element, "encoding-type")
        parts = _column_parts(table, element, encoding)
        if not all(isinstance(part, h5py.Dataset) for part in parts):
            problem = f"{element.name} is not a column of values"
            raise InvalidFileError(table.file.filename, [problem])
        require_memory(element.name, parts)
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


def require_memory(label: str, datasets: list[h5py.Dataset]) -> None:
    """Raise `InvalidFileError` if datasets, described by ``label``, do not fit into free memory."""
    needed, free = sum(map(declared_bytes, datasets)), available_memory()
    if needed > free:
        raise InvalidFileError(
            datasets[0].file.filename,
            [
                f"{label} needs {format_bytes(needed)} of memory, but {format_bytes(free)} are "
                "free; use a machine with more memory"
            ],
        )
