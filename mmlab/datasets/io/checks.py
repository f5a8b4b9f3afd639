"""Are these cells fit for marker selection? Every problem at once, in the user's words."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import anndata as ad
import numpy as np
import pandas as pd

from mmlab.datasets.io.cell_source import CellSource, from_anndata
from mmlab.datasets.io.count_search import InspectedLocation, find_counts, quote_names
from mmlab.datasets.io.hdf5 import RefusedFileError
from mmlab.errors import UserError
from mmlab.spec.protocol import MIN_CELLS_PER_CLASS


@dataclass(frozen=True)
class Inspection:
    """What is known of cells after a look at all that a trial would read.

    Attributes
    ----------
    problems
        What keeps them from being used, a sentence each.
    counts
        The place of the counts; None if there is none.
    passed_over
        Places that were looked at before it.
    cells, genes
        Names; the genes are those of the place.
    labels
        A class name a cell, "" where it is missing; None if there are no classes.
    """

    problems: list[str]
    counts: InspectedLocation | None
    passed_over: list[InspectedLocation]
    cells: pd.Index
    genes: pd.Index
    labels: pd.Series | None


def find_problems(adata: ad.AnnData, label_key: str, layer: str | None = None) -> list[str]:
    """Everything that keeps ``adata`` from being used, a sentence each; empty if all is well."""
    return _examine_anndata(adata, label_key, layer).problems


def require_usable(adata: ad.AnnData, label_key: str, layer: str | None, where: str) -> ad.AnnData:
    """Return an AnnData with the counts in ``X``, or raise one error with all problems."""
    findings = _examine_anndata(adata, label_key, layer)
    counts = findings.counts
    if findings.problems or counts is None:
        raise UserError(f"{where}: " + "; ".join(findings.problems) + ".")
    if counts.place.title == "X":
        return adata
    var = pd.DataFrame(index=findings.genes)
    return ad.AnnData(X=counts.place.element, obs=adata.obs, var=var)


def _examine_anndata(adata: ad.AnnData, label_key: str, layer: str | None) -> Inspection:
    if adata.isbacked:
        problem = (
            f"it is backed by {adata.filename} and not in memory: call its to_memory(), or give "
            "the file to the command line with --data"
        )
        return Inspection([problem], None, [], adata.obs_names, adata.var_names, None)
    return inspect_cells(from_anndata(adata), label_key, layer)


def inspect_cells(
    source: CellSource, label_key: str, layer: str | None, *, in_memory: bool = False
) -> Inspection:
    """Look at everything that a trial would read, block by block.

    Parameters
    ----------
    source
        The cells.
    label_key
        The ``obs`` column with the classes.
    layer, in_memory
        As in :func:`mmlab.datasets.io.count_search.find_counts`.
    """
    cells, genes = source.cells, source.genes
    if 0 in (len(cells), len(genes)):
        problem = f"there are {len(cells)} cells and {len(genes)} genes; both must be above 0"
        return Inspection([problem], None, [], cells, genes, None)
    choice = find_counts(source, layer, in_memory=in_memory)
    if choice.taken is not None:
        genes = choice.taken.place.genes()
    label_problems, labels = _labels(source, label_key)
    problems = [
        *choice.problems,
        *_gene_problems(genes),
        *_cell_problems(cells, choice.taken),
        *label_problems,
    ]
    return Inspection(problems, choice.taken, choice.passed_over, cells, genes, labels)


def _gene_problems(names: pd.Index) -> list[str]:
    problems = []
    empty = np.flatnonzero(names.str.strip() == "")
    if len(empty):
        problems.append(f"{len(empty)} genes have an empty name, first at position {empty[0]}")
    named = names[names.str.strip() != ""]
    repeated = named[named.duplicated()].unique()
    if len(repeated):
        problems.append(
            f"{len(repeated)} gene names occur more than once, first {quote_names(repeated)}: "
            "adata.var_names_make_unique() makes them different"
        )
    return problems


def _cell_problems(names: pd.Index, counts: InspectedLocation | None) -> list[str]:
    problems = []
    repeated = names[names.duplicated()].unique()
    if len(repeated):
        problems.append(
            f"{len(repeated)} cell names occur more than once, first {quote_names(repeated)}: were cells "
            "read twice? If not, adata.obs_names_make_unique() makes them different"
        )
    if counts is not None and counts.scan is not None:
        empty = np.flatnonzero(counts.scan.per_cell == 0)
        if len(empty):
            problems.append(
                f"{len(empty)} of {len(names)} cells have no counts in {counts.place.title}, first "
                f"{quote_names(names[empty])}: leave them out "
                "(scanpy.pp.filter_cells(adata, min_counts=1))"
            )
    return problems


def _labels(source: CellSource, label_key: str) -> tuple[list[str], pd.Series | None]:
    """What is wrong with the label column, and the class of each cell."""
    where = f"obs[{label_key!r}]"
    if label_key not in source.columns:
        near = difflib.get_close_matches(label_key, source.columns, n=1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        existing = ", ".join(source.columns) or "none"
        return [f"obs has no column {label_key!r}{hint} (columns: {existing})"], None
    try:
        column = source.column(label_key)
    except RefusedFileError as error:
        return error.problems, None
    if len(column) != len(source.cells):
        return [f"{where} has {len(column)} labels for {len(source.cells)} cells"], None
    if _holds_floats(column):
        return [
            f"{where} holds floating-point numbers (such as {column.dropna().iloc[0]}), not "
            "classes; convert it to text if these are cluster numbers"
        ], None
    labels = column.astype(object).where(column.notna(), "").astype(str)
    missing = (labels.str.strip() == "").to_numpy()
    problems = []
    if missing.any():
        problems.append(
            f"{where} has no label for {missing.sum()} of {len(labels)} cells, first "
            f"{quote_names(source.cells[missing])}"
        )
    sizes = labels[~missing].value_counts()
    if len(sizes) < 2:
        single = f"the single class {quote_names(sizes.index)}" if len(sizes) else "no class"
        problems.append(f"{where} has {single}; two are needed")
    small = sizes[sizes < MIN_CELLS_PER_CLASS]
    if len(small):
        listed = ", ".join(
            f"{quote_names([name])} has {count}" for name, count in small[:5].items()
        )
        problems.append(
            f"every class of {where} needs at least {MIN_CELLS_PER_CLASS} cells to be split into "
            f"train, validation and test: {listed}"
            + (f" and {len(small) - 5} more classes" if len(small) > 5 else "")
        )
    return problems, labels


def _holds_floats(column: pd.Series) -> bool:
    if column.isna().all():
        return False
    values = column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else column
    kind = pd.api.types.infer_dtype(values, skipna=True)
    return kind in ("floating", "mixed-integer-float")
