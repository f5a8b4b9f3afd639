"""Raw counts of a user's file: open them, check them, and stream or load them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import anndata as ad
import pandas as pd
import scipy.sparse as sp

from mmlab.datasets.io.checks import Inspection, inspect_cells
from mmlab.datasets.io.count_search import InspectedLocation
from mmlab.datasets.io.hdf5 import InvalidFileError
from mmlab.datasets.io.matrix import BLOCK_VALUES, Matrix
from mmlab.datasets.io.odd_names import find_odd_names
from mmlab.datasets.io.open_source import open_source
from mmlab.datasets.io.warnings import find_warnings
from mmlab.spec.protocol import VALIDATION_FRACTION


@dataclass(frozen=True)
class OpenCounts:
    """Checked raw counts of an open file, not loaded, with their names and labels.

    Attributes
    ----------
    location
        Location in the file: ``X``, ``raw`` or ``layer 'counts'``; and whether they are rounded.
    matrix
        The stored matrix (CSR, CSC or dense) with its ``shape`` and ``dtype``.
    n_nonzero
        Number of counts above 0.
    cell_names, gene_names
        Names, shape (n_cells,) and (n_genes,).
    labels
        Class of each cell, categorical, indexed by the cell names.
    notes
        Sentences about odd labels and genes.
    """

    location: str
    matrix: Matrix
    n_nonzero: int
    cell_names: pd.Index
    gene_names: pd.Index
    labels: pd.Series
    notes: tuple[str, ...] = ()

    def blocks(self, n_values: int = BLOCK_VALUES) -> Iterator[sp.csr_matrix]:
        """Yield blocks of consecutive cells as CSR float32; see `Matrix.blocks`."""
        return self.matrix.blocks(n_values)

    def load(self, label_key: str) -> ad.AnnData:
        """Return all counts as CSR float32 in ``X``, with the labels as ``obs[label_key]``."""
        return ad.AnnData(
            X=self.matrix.load(),
            obs=pd.DataFrame({label_key: self.labels}),
            var=pd.DataFrame(index=self.gene_names),
        )


@contextmanager
def open_counts(
    path: str,
    label_key: str,
    layer: str | None = None,
    *,
    in_memory: bool = False,
    round_counts: bool = False,
) -> Iterator[OpenCounts]:
    """Open the counts of a file and check that they can be used; nothing is loaded.

    The whole file is checked once, block by block, before the first block is returned: all returned
    values are counts. :meth:`OpenCounts.blocks` reads the blocks again from the open file. A CSC
    matrix has to be loaded for that; nearly all files use CSR.

    Parameters
    ----------
    path
        An ``.h5ad`` file or an AnnData ``.zarr`` store.
    label_key
        The ``obs`` column with the classes.
    layer
        A layer, ``X`` or ``raw``; None searches the layers ``counts``, ``raw_counts`` and
        ``count``, then ``X``, then ``raw``.
    in_memory
        Reject counts that do not fit into free memory, before their values are read.
    round_counts
        Round fractional counts (ambient-corrected or estimated) to integers; without it they are
        refused.

    Raises
    ------
    InvalidFileError
        All reasons why the file cannot be used, in one error.
    """
    with open_source(path) as source:
        options = {"in_memory": in_memory, "round_counts": round_counts}
        inspection = inspect_cells(source, label_key, layer, **options)
        if problems := _all_problems(inspection):
            raise InvalidFileError(path, problems)
        yield _to_open_counts(inspection, find_odd_names(inspection, source, label_key))


@dataclass(frozen=True)
class FileCheck:
    """Result of the check of a file; sizes are None if they are unknown.

    Attributes
    ----------
    problems
        Reasons why the file cannot be used, one sentence each.
    warnings
        Unusual properties of a file that can be used, one sentence each.
    counts_in
        Location of the counts.
    n_cells, n_genes, n_classes
        Sizes.
    """

    problems: list[str]
    warnings: list[str]
    counts_in: str | None = None
    n_cells: int | None = None
    n_genes: int | None = None
    n_classes: int | None = None


def check_file(
    path: str, label_key: str, layer: str | None = None, *, round_counts: bool = False
) -> FileCheck:
    """Return all problems of a file and all warnings; parameters as in `open_counts`."""
    try:
        with open_source(path) as source:
            options = {"in_memory": True, "round_counts": round_counts}
            inspection = inspect_cells(source, label_key, layer, **options)
            warnings = find_warnings(inspection, source, label_key)
    except InvalidFileError as error:
        return FileCheck(error.problems, [])
    counts, labels = inspection.counts, inspection.labels
    return FileCheck(
        _all_problems(inspection),
        warnings,
        None if counts is None else _location(counts),
        len(inspection.cell_names),
        len(inspection.gene_names),
        None if labels is None else labels[labels.str.strip() != ""].nunique(),
    )


def _location(counts: InspectedLocation) -> str:
    rounded = counts.matrix is not None and counts.matrix.rounded
    return counts.location.title + (", rounded to integers" if rounded else "")


def _all_problems(inspection: Inspection) -> list[str]:
    """Return the problems of an inspection, and those of a split of the cells."""
    labels = inspection.labels
    n_cells, n_classes = len(inspection.cell_names), 0 if labels is None else labels.nunique()
    if inspection.problems or int(VALIDATION_FRACTION * n_cells) >= n_classes:
        return inspection.problems
    return [
        f"there are {n_cells} cells of {n_classes} classes, but the split into train, validation "
        f"and test needs a validation cell of each class, and {VALIDATION_FRACTION:.0%} of the "
        "cells are for validation: is this the column of the cell types? If so, merge classes"
    ]


def _to_open_counts(inspection: Inspection, notes: list[str]) -> OpenCounts:
    counts, labels = inspection.counts, inspection.labels
    # An inspection without problems has both.
    assert counts is not None and counts.matrix is not None and counts.scan is not None
    assert labels is not None
    return OpenCounts(
        location=_location(counts),
        matrix=counts.matrix,
        n_nonzero=counts.scan.n_nonzero,
        cell_names=inspection.cell_names,
        gene_names=inspection.gene_names,
        labels=pd.Series(pd.Categorical(labels), index=inspection.cell_names),
        notes=tuple(notes),
    )
