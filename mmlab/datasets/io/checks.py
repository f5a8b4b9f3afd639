"""Check whether cells can be used for marker selection; all problems are reported at once."""

from __future__ import annotations

from dataclasses import dataclass

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmlab.datasets.io.cell_source import CellSource, from_anndata
from mmlab.datasets.io.count_search import InspectedLocation, find_counts, quote_names
from mmlab.datasets.io.gene_names import GeneNames, read_gene_names
from mmlab.datasets.io.labels import keep_cells, label_problems, read_labels
from mmlab.datasets.io.odd_names import find_odd_names
from mmlab.errors import UserError, join_problems
from mmlab.spec.trial import DEFAULT_OPTIONS, FileOptions


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
    kept
        Whether each cell is used, shape (n_cells,).
    gene_ids
        Names of the genes in the index of ``var``; None if ``gene_names`` are these.
    notes
        Left-out cells, properties of the gene names, and odd labels and genes, one sentence each.
    """

    problems: list[str]
    counts: InspectedLocation | None
    rejected: list[InspectedLocation]
    cell_names: pd.Index
    gene_names: pd.Index
    labels: pd.Series | None
    kept: NDArray[np.bool_]
    gene_ids: pd.Index | None = None
    notes: tuple[str, ...] = ()


def find_problems(adata: ad.AnnData, label_key: str, layer: str | None = None) -> list[str]:
    """Return all reasons why ``adata`` cannot be used, one sentence each; empty if it can."""
    return _inspect_anndata(adata, label_key, layer, DEFAULT_OPTIONS).problems


def require_usable(
    adata: ad.AnnData,
    label_key: str,
    layer: str | None,
    where: str,
    options: FileOptions = DEFAULT_OPTIONS,
) -> tuple[ad.AnnData, Inspection]:
    """Return an AnnData with the counts of the used cells in ``X``, and what was found.

    Raises
    ------
    UserError
        All reasons why the cells cannot be used, after ``where``.
    """
    inspection = _inspect_anndata(adata, label_key, layer, options)
    counts = inspection.counts
    if inspection.problems or counts is None or counts.matrix is None:
        raise UserError(f"{where}: " + join_problems(inspection.problems))
    if (
        counts.location.title == "X"
        and not counts.matrix.rounded
        and inspection.gene_ids is None
        and inspection.kept.all()
    ):
        return adata, inspection
    var = pd.DataFrame(index=inspection.gene_names)
    X = counts.matrix.load() if counts.matrix.rounded else counts.location.element
    usable = ad.AnnData(X=X, obs=adata.obs, var=var)
    return (usable if inspection.kept.all() else usable[inspection.kept].copy()), inspection


def _inspect_anndata(
    adata: ad.AnnData, label_key: str, layer: str | None, options: FileOptions
) -> Inspection:
    if adata.isbacked:
        problem = (
            f"it is backed by {adata.filename} and not in memory: call its to_memory(), or pass "
            "the file to the command line with --data"
        )
        return _refuse(problem, adata.obs_names, adata.var_names)
    return inspect_cells(from_anndata(adata), label_key, layer, options)


def _refuse(problem: str, cell_names: pd.Index, gene_names: pd.Index) -> Inspection:
    kept = np.ones(len(cell_names), dtype=bool)
    return Inspection([problem], None, [], cell_names, gene_names, None, kept)


def inspect_cells(
    source: CellSource,
    label_key: str,
    layer: str | None,
    options: FileOptions = DEFAULT_OPTIONS,
    *,
    in_memory: bool = False,
) -> Inspection:
    """Inspect everything that a trial reads: counts (block by block), names and labels.

    Parameters
    ----------
    source
        The cells.
    label_key
        The ``obs`` column with the classes.
    layer, in_memory
        As in :func:`mmlab.datasets.io.count_search.find_counts`.
    options
        Which cells are used, how genes are named, and whether counts are rounded.
    """
    cell_names, gene_names = source.cell_names, source.gene_names
    n_cells, n_genes = len(cell_names), len(gene_names)
    if 0 in (n_cells, n_genes):
        problem = f"there are {n_cells} cells and {n_genes} genes; at least one of each is needed"
        return _refuse(problem, cell_names, gene_names)
    result = find_counts(source, layer, in_memory=in_memory, round_counts=options.round_counts)
    genes = GeneNames(gene_names, None, [], [])
    if result.found is not None:
        genes = read_gene_names(source, result.found.location, options.gene_names)
    kept, notes, used = np.ones(n_cells, dtype=bool), list[str](), None
    of_labels, labels = read_labels(source, label_key, options)
    if labels is not None:
        where = f"obs[{label_key!r}]"
        kept, notes = keep_cells(labels, options, where)
        of_labels, used = label_problems(labels, kept, cell_names, where), labels[kept]
    problems = [
        *result.problems,
        *genes.problems,
        *_gene_problems(genes.names),
        *_cell_problems(cell_names, kept, result.found),
        *of_labels,
    ]
    return Inspection(
        problems,
        result.found,
        result.rejected,
        cell_names,
        genes.names,
        labels,
        kept,
        genes.ids,
        (*notes, *genes.notes, *find_odd_names(genes.names, used, source, label_key)),
    )


def count_kept_cells(source: CellSource, label_key: str, options: FileOptions) -> int:
    """Return the number of cells that are used; no counts are read."""
    n_cells = len(source.cell_names)
    if options.min_cells_per_type is None and not options.drop_unlabelled:
        return n_cells
    _, labels = read_labels(source, label_key, options)
    return n_cells if labels is None else int(keep_cells(labels, options)[0].sum())


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


def _cell_problems(
    names: pd.Index, kept: NDArray[np.bool_], counts: InspectedLocation | None
) -> list[str]:
    problems = []
    used = names[kept]
    repeated = used[used.duplicated()].unique()
    if len(repeated):
        problems.append(
            f"{len(repeated)} cell names occur more than once, first {quote_names(repeated)}: "
            "remove the cells that were read twice; if they are different cells, call "
            "adata.obs_names_make_unique()"
        )
    if counts is not None and counts.scan is not None:
        empty = np.flatnonzero((counts.scan.cell_totals == 0) & kept)
        if len(empty):
            problems.append(
                f"{len(empty)} of {len(used)} cells have no counts in {counts.location.title}, "
                f"first {quote_names(names[empty])}: remove them with "
                "scanpy.pp.filter_cells(adata, min_counts=1)"
            )
        elif len(names) > 1 and not counts.scan.some_gene_varies():
            problems.append(
                f"no gene of {counts.location.title} varies: all {len(names)} cells have the same "
                "counts, which tell no cell types apart; pass the measured counts"
            )
    return problems
