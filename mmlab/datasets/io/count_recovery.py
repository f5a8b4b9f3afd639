"""Advice for files with normalised values only: keep the counts, or recover them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from mmlab.datasets.io.cell_source import CellSource
from mmlab.datasets.io.fractions import equal_total, first_cells
from mmlab.datasets.io.hdf5 import InvalidFileError
from mmlab.datasets.io.value_scan import ValueScan

#: Columns of ``obs`` in which scanpy, Seurat and others store the total counts of the cells.
_TOTALS = ("n_counts", "total_counts", "nCount_RNA", "n_umis", "nUMI", "n_umi")
#: Usual totals of normalised cells.
_TARGETS = (1e4, 1e6)
#: Recovered counts differ by less than this from an integer; so many of them have to.
_ERROR, _SHARE = 0.1, 0.99


def normalization_hint(scans: Iterable[tuple[str, ValueScan]], source: CellSource) -> str:
    """Return where counts usually are, and how these are recovered if that is possible.

    Parameters
    ----------
    scans
        Title of a location (``X``, ``raw`` or ``layer 'name'``), and the scan of its values.
    source
        The cells.
    """
    hint = (
        '; counts are usually in layers["counts"] or raw: before normalising, keep them with '
        '`adata.layers["counts"] = adata.X.copy()`'
    )
    logarithms = [each for each in scans if each[1].fraction_kind == "log-normalised"]
    for title, scan in logarithms:
        for column in _TOTALS:
            target = _find_target(scan, column, source)
            if target is not None:
                code = _recovery_code(title, column, target)
                return (
                    f"{hint}; here, obs['{column}'] has the total counts of the cells, from which "
                    f"this code recovers the counts:\n\n{code}\n\n"
                    "then write adata to a file and use that"
                )
    return hint


def _find_target(scan: ValueScan, column: str, source: CellSource) -> float | None:
    """Return the total T for which log1p(counts * T / total counts) gives the values, or None.

    The total counts of the cells are ``obs[column]``. T is right if nearly all counts that follow
    from it are integers and the smallest is 1.
    """
    if column not in source.obs_columns:
        return None
    try:
        totals = source.read_obs_column(column)
    except InvalidFileError:
        return None
    if len(totals) != scan.matrix.shape[0] or not pd.api.types.is_numeric_dtype(totals):
        return None
    normalized = first_cells(scan.matrix)
    normalized.data = np.expm1(normalized.data)
    n_cells = normalized.shape[0]
    per_value = np.repeat(np.asarray(totals, dtype=float)[:n_cells], np.diff(normalized.indptr))
    for target in (equal_total(normalized), *_TARGETS):
        if target is None or not len(normalized.data):
            continue
        counts = normalized.data * per_value / target
        integers = np.rint(counts)
        if integers.min() == 1 and (np.abs(counts - integers) < _ERROR).mean() >= _SHARE:
            return target
    return None


def _recovery_code(title: str, column: str, target: float) -> str:
    """Return indented lines of Python that put the counts into ``adata.layers["counts"]``."""
    values = "adata.X" if title in ("X", "raw") else f"adata.{title.replace('layer ', 'layers[')}]"
    return (
        "    import scipy.sparse as sp\n"
        + ("    adata = adata.raw.to_adata()\n" if title == "raw" else "")
        + f'    adata.layers["counts"] = (sp.diags(adata.obs["{column}"].to_numpy() / '
        + f"{target:.10g}) @ sp.csr_matrix({values}, dtype=float).expm1()).rint()"
    )
