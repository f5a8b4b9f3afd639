"""Tell columns of cell types from columns of measurements."""

from __future__ import annotations

import pandas as pd

from mmlab.datasets.io.cell_source import CellSource
from mmlab.datasets.io.hdf5 import InvalidFileError

#: A column with more different numbers has no numbers of clusters.
_MAX_CLUSTERS = 200
#: Columns that a sentence lists.
_LISTED = 5


def measurement_problem(
    column: pd.Series, label_key: str, where: str, source: CellSource
) -> str | None:
    """Return that a column has measurements, with the columns that may have types; else None."""
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        return None
    n_numbers = column.nunique()
    if n_numbers <= _MAX_CLUSTERS:
        return None
    names = [n for n in source.obs_columns if n != label_key and _has_types(source, n)]
    listed = ", ".join(names[:_LISTED]) or "none"
    return (
        f"{where} has {n_numbers} different numbers (such as {column.dropna().iloc[0]}): it looks "
        f"like a measurement, not like cell types; columns that look like types: {listed}"
    )


def _has_types(source: CellSource, name: str) -> bool:
    """Return whether a column has texts, most of them in several cells."""
    try:
        column = source.read_obs_column(name)
    except InvalidFileError:
        return False
    if pd.api.types.is_numeric_dtype(column):
        return False
    return 1 < column.nunique() <= len(column) // 2
