"""Is this AnnData fit for marker selection? Every problem at once, in the user's words."""

from __future__ import annotations

import difflib
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

from mmlab.errors import UserError
from mmlab.split import MIN_CELLS_PER_CLASS

#: log1p of counts stays below this; counts of a whole dataset hardly do.
_LARGEST_LOG_VALUE = 30


def find_problems(adata: ad.AnnData, label_key: str, layer: str | None = None) -> list[str]:
    """Everything that keeps ``adata`` from being used, a sentence each; empty if all is well."""
    if adata.n_obs == 0 or adata.n_vars == 0:
        return [f"there are {adata.n_obs} cells and {adata.n_vars} genes; both must be above 0"]
    if layer is not None and layer not in adata.layers:
        existing = ", ".join(sorted(adata.layers)) or "none"
        return [f"layer {layer!r} does not exist; the existing layers are: {existing}"]
    matrix = adata.X if layer is None else adata.layers[layer]
    place = "X" if layer is None else f"layer {layer!r}"
    return [
        *_matrix_problems(matrix, place),
        *_gene_problems(adata.var_names),
        *_label_problems(adata.obs, label_key),
    ]


def require_usable(adata: ad.AnnData, label_key: str, layer: str | None, where: str) -> ad.AnnData:
    """Return an AnnData with the counts in ``X``, or raise one error with all problems."""
    problems = find_problems(adata, label_key, layer)
    if problems:
        raise UserError(f"{where}: " + "; ".join(problems) + ".")
    if layer is None:
        return adata
    return ad.AnnData(X=adata.layers[layer], obs=adata.obs, var=adata.var[[]])


def _matrix_problems(matrix: Any, place: str) -> list[str]:
    if matrix is None:
        return [f"{place} is empty; raw counts are needed there"]
    if hasattr(matrix, "check_format"):  # compressed sparse
        try:
            matrix.check_format(full_check=True)
        except ValueError as error:
            return [f"{place} is a broken sparse matrix: {error}"]
    values = np.ravel(matrix.data if hasattr(matrix, "nnz") else matrix)
    if values.dtype.kind not in "biuf":
        return [f"{place} holds values of type {values.dtype}; raw counts are needed"]
    n_nan = int(np.isnan(values).sum()) if values.dtype.kind == "f" else 0
    if n_nan:
        return [f"{place} holds {n_nan} NaN values; raw counts are needed"]
    if not np.isfinite(values).all():
        return [f"{place} holds {int(np.isinf(values).sum())} infinite values"]
    n_negative = int((values < 0).sum())
    if n_negative:
        return [
            f"{place} holds {n_negative} negative values (smallest {values.min():.3g}): it "
            "looks scaled; raw counts are needed, name their layer with --layer"
        ]
    n_broken = int((values != np.rint(values)).sum())
    if n_broken:
        largest = float(values.max())
        looks = "log-normalised" if largest < _LARGEST_LOG_VALUE else "normalised"
        return [
            f"{place} holds {n_broken} values that are not integers: it looks {looks} (maximum "
            f"{largest:.1f}); raw counts are needed, name their layer with --layer"
        ]
    return []


def _gene_problems(names: pd.Index) -> list[str]:
    repeated = names[names.duplicated()].unique()
    if len(repeated):
        return [f"{len(repeated)} gene names occur more than once, first {repeated[0]!r}"]
    return []


def _label_problems(obs: pd.DataFrame, label_key: str) -> list[str]:
    if label_key not in obs:
        columns = [str(c) for c in obs.columns]
        near = difflib.get_close_matches(label_key, columns, n=1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        existing = ", ".join(columns) or "none"
        return [f"obs has no column {label_key!r}{hint} (columns: {existing})"]
    labels = obs[label_key]
    n_missing = int(labels.isna().sum())
    if n_missing:
        return [f"obs[{label_key!r}] has no label for {n_missing} of {len(labels)} cells"]
    if labels.dtype.kind == "f":
        return [
            f"obs[{label_key!r}] holds floating-point numbers, not classes; convert it to text "
            "if these are cluster numbers"
        ]
    sizes = labels.astype(str).value_counts()
    if len(sizes) < 2:
        return [f"obs[{label_key!r}] has the single class {sizes.index[0]!r}; two are needed"]
    small = sizes[sizes < MIN_CELLS_PER_CLASS]
    if len(small):
        listed = ", ".join(f"{name!r} has {count}" for name, count in small.items())
        return [
            f"every class of obs[{label_key!r}] needs at least {MIN_CELLS_PER_CLASS} cells to be "
            f"split into train, validation and test: {listed}"
        ]
    return []
