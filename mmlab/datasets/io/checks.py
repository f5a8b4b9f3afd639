"""Check whether cells can be used for marker selection; all problems are reported at once."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import anndata as ad
import numpy as np
import pandas as pd

from mmlab.datasets.io.cell_source import CellSource, from_anndata
from mmlab.datasets.io.count_search import InspectedLocation, find_counts, quote_names
from mmlab.datasets.io.hdf5 import InvalidFileError
from mmlab.errors import UserError
from mmlab.spec.protocol import MIN_CELLS_PER_CLASS


@dataclass(frozen=True)
class Inspection:
    """Result of an inspection of everything that a trial reads from the cells.

    Attributes
    ----------
    problems
        Reasons why the cells cannot be used, one sentence each.
    counts
        The location of the counts; None if there is none.
    rejected
        Locations that were inspected before it and contain no counts.
    cell_names, gene_names
        Names of the cells, and of the genes of the location.
    labels
        One class name per cell, "" where it is missing; None if there are no classes.
    """

    problems: list[str]
    counts: InspectedLocation | None
    rejected: list[InspectedLocation]
    cell_names: pd.Index
    gene_names: pd.Index
    labels: pd.Series | None


def find_problems(adata: ad.AnnData, label_key: str, layer: str | None = None) -> list[str]:
    """Return all reasons why ``adata`` cannot be used, one sentence each; empty if it can."""
    return _inspect_anndata(adata, label_key, layer).problems


def require_usable(
    adata: ad.AnnData, label_key: str, layer: str | None, where: str, *, round_counts: bool = False
) -> ad.AnnData:
    """Return an AnnData with the counts in ``X``, or raise one error with all problems.

    The message of the error begins with ``where``.
    """
    inspection = _inspect_anndata(adata, label_key, layer, round_counts)
    counts = inspection.counts
    if inspection.problems or counts is None or counts.matrix is None:
        raise UserError(f"{where}: " + "; ".join(inspection.problems) + ".")
    if counts.location.title == "X" and not counts.matrix.rounded:
        return adata
    var = pd.DataFrame(index=inspection.gene_names)
    X = counts.matrix.load() if counts.matrix.rounded else counts.location.element
    return ad.AnnData(X=X, obs=adata.obs, var=var)


def _inspect_anndata(
    adata: ad.AnnData, label_key: str, layer: str | None, round_counts: bool = False
) -> Inspection:
    if adata.isbacked:
        problem = (
            f"it is backed by {adata.filename} and not in memory: call its to_memory(), or pass "
            "the file to the command line with --data"
        )
        return Inspection([problem], None, [], adata.obs_names, adata.var_names, None)
    return inspect_cells(from_anndata(adata), label_key, layer, round_counts=round_counts)


def inspect_cells(
    source: CellSource,
    label_key: str,
    layer: str | None,
    *,
    in_memory: bool = False,
    round_counts: bool = False,
) -> Inspection:
    """Inspect everything that a trial reads: counts (block by block), names and labels.

    Parameters
    ----------
    source
        The cells.
    label_key
        The ``obs`` column with the classes.
    layer, in_memory, round_counts
        As in :func:`mmlab.datasets.io.count_search.find_counts`.
    """
    cell_names, gene_names = source.cell_names, source.gene_names
    n_cells, n_genes = len(cell_names), len(gene_names)
    if 0 in (n_cells, n_genes):
        problem = f"there are {n_cells} cells and {n_genes} genes; at least one of each is needed"
        return Inspection([problem], None, [], cell_names, gene_names, None)
    result = find_counts(source, layer, in_memory=in_memory, round_counts=round_counts)
    if result.found is not None:
        gene_names = result.found.location.read_gene_names()
    label_problems, labels = _check_labels(source, label_key)
    problems = [
        *result.problems,
        *_gene_problems(gene_names),
        *_cell_problems(cell_names, result.found),
        *label_problems,
    ]
    return Inspection(problems, result.found, result.rejected, cell_names, gene_names, labels)


def _gene_problems(names: pd.Index) -> list[str]:
    problems = []
    is_empty = names.str.strip() == ""
    empty = np.flatnonzero(is_empty)
    if len(empty):
        problems.append(
            f"{len(empty)} genes have an empty name, first at position {empty[0]}: name them in "
            "adata.var_names or remove them"
        )
    not_empty = names[~is_empty]
    repeated = not_empty[not_empty.duplicated()].unique()
    if len(repeated):
        problems.append(
            f"{len(repeated)} gene names occur more than once, first {quote_names(repeated)}: "
            "call adata.var_names_make_unique()"
        )
    return problems


def _cell_problems(names: pd.Index, counts: InspectedLocation | None) -> list[str]:
    problems = []
    repeated = names[names.duplicated()].unique()
    if len(repeated):
        problems.append(
            f"{len(repeated)} cell names occur more than once, first {quote_names(repeated)}: "
            "remove the cells that were read twice; if they are different cells, call "
            "adata.obs_names_make_unique()"
        )
    if counts is not None and counts.scan is not None:
        empty = np.flatnonzero(counts.scan.cell_totals == 0)
        if len(empty):
            problems.append(
                f"{len(empty)} of {len(names)} cells have no counts in {counts.location.title}, "
                f"first {quote_names(names[empty])}: remove them with "
                "scanpy.pp.filter_cells(adata, min_counts=1)"
            )
    return problems


def _check_labels(source: CellSource, label_key: str) -> tuple[list[str], pd.Series | None]:
    """Return the problems of the label column, and the class of each cell."""
    where = f"obs[{label_key!r}]"
    if label_key not in source.obs_columns:
        near = difflib.get_close_matches(label_key, source.obs_columns, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        existing = ", ".join(source.obs_columns) or "none"
        problem = f"label_key {label_key!r} is not a column of obs (columns: {existing}){hint}"
        return [problem], None
    if (n_columns := source.obs_columns.count(label_key)) > 1:
        problem = f"obs has {n_columns} columns with the name {label_key!r}: keep one of them"
        return [problem], None
    try:
        column = source.read_obs_column(label_key)
    except InvalidFileError as error:
        return error.problems, None
    n_cells = len(source.cell_names)
    if len(column) != n_cells:
        problem = f"{where} has {len(column)} labels for {n_cells} cells; one per cell is needed"
        return [problem], None
    if _has_floats(column):
        problem = (
            f"{where} contains floating-point numbers (such as {column.dropna().iloc[0]}), not "
            "classes; if these are cluster numbers, convert them to text"
        )
        return [problem], None
    labels = column.astype(object).where(column.notna(), "").astype(str)
    missing = (labels.str.strip() == "").to_numpy()
    problems = []
    if missing.any():
        problems.append(
            f"{where} has no label for {missing.sum()} of {len(labels)} cells, first "
            f"{quote_names(source.cell_names[missing])}: label these cells or remove them"
        )
    sizes = labels[~missing].value_counts()
    if len(sizes) < 2:
        found = f"only the class {quote_names(sizes.index)}" if len(sizes) else "no class"
        problems.append(f"{where} has {found}; at least two classes are needed")
    small = sizes[sizes < MIN_CELLS_PER_CLASS]
    if len(small):
        listed = ", ".join(
            f"{quote_names([name])} has {count}" for name, count in small[:5].items()
        )
        problems.append(
            f"every class of {where} needs at least {MIN_CELLS_PER_CLASS} cells to be split into "
            f"train, validation and test: {listed}"
            + (f" and {len(small) - 5} more classes" if len(small) > 5 else "")
            + "; merge small classes with others or remove their cells"
        )
    return problems, labels


def _has_floats(column: pd.Series) -> bool:
    if column.isna().all():
        return False
    values = column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else column
    kind = pd.api.types.infer_dtype(values, skipna=True)
    return kind in ("floating", "mixed-integer-float")
