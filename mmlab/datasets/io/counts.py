"""Counts of a user's file: found, checked, and then streamed or loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import anndata as ad
import pandas as pd
import scipy.sparse as sp

from mmlab.datasets.io.cell_source import from_file
from mmlab.datasets.io.checks import Inspection, inspect_cells
from mmlab.datasets.io.h5ad import open_h5ad
from mmlab.datasets.io.hdf5 import RefusedFileError
from mmlab.datasets.io.matrix import BLOCK_VALUES, Matrix
from mmlab.datasets.io.warnings import find_warnings


@dataclass(frozen=True)
class OpenCounts:
    """Raw counts that have been checked and not been loaded, with what belongs to them.

    Attributes
    ----------
    place
        Where they are: ``X``, ``raw`` or ``layer 'counts'``.
    matrix
        Where they lie in the open file: CSR, CSC or dense, with their ``shape`` and ``dtype``.
    n_nonzero
        Counts above 0.
    cells, genes
        Names, shape (n_cells,) and (n_genes,).
    labels
        Class of each cell, categorical, its index the cells.
    """

    place: str
    matrix: Matrix
    n_nonzero: int
    cells: pd.Index
    genes: pd.Index
    labels: pd.Series

    def blocks(self, n_values: int = BLOCK_VALUES) -> Iterator[sp.csr_matrix]:
        """CSR float32 blocks of cells, in order: :meth:`mmlab.datasets.io.matrix.Matrix.blocks`."""
        return self.matrix.blocks(n_values)

    def load(self, label_key: str) -> ad.AnnData:
        """All of them as CSR float32 in ``X``, with the labels as ``obs[label_key]``."""
        return ad.AnnData(
            X=self.matrix.load(),
            obs=pd.DataFrame({label_key: self.labels}),
            var=pd.DataFrame(index=self.genes),
        )


@contextmanager
def open_counts(
    path: str, label_key: str, layer: str | None = None, *, in_memory: bool = False
) -> Iterator[OpenCounts]:
    """Open the counts of an ``.h5ad`` that is fit for marker selection; nothing is loaded.

    The whole file is looked at once, block by block, before the first block can be had: what comes
    out is known to be counts. The blocks are read anew from the open file, and are those of
    :meth:`OpenCounts.blocks`; a file with CSC counts has to be loaded for them (nearly all have CSR).

    Parameters
    ----------
    path
        The file.
    label_key
        The ``obs`` column with the classes.
    layer
        A layer, ``X`` or ``raw``; None looks for the counts in the layers ``counts``,
        ``raw_counts`` and ``count``, then in ``X``, then in ``raw``.
    in_memory
        Refuse counts that the free memory does not hold, before they are looked at.

    Raises
    ------
    RefusedFileError
        Everything that keeps the file from being used, in one error.
    """
    with open_h5ad(path) as file:
        findings = inspect_cells(from_file(file), label_key, layer, in_memory=in_memory)
        if findings.problems:
            raise RefusedFileError(path, findings.problems)
        yield _counts(findings)


@dataclass(frozen=True)
class FileCheck:
    """What a look at a file has found; sizes are None where they are not known.

    Attributes
    ----------
    problems, oddities
        What keeps it from being used, and what does not; a sentence each.
    counts_in
        The place of the counts.
    """

    problems: list[str]
    oddities: list[str]
    counts_in: str | None = None
    n_cells: int | None = None
    n_genes: int | None = None
    n_classes: int | None = None


def check_file(path: str, label_key: str, layer: str | None = None) -> FileCheck:
    """Everything that is wrong and that looks odd with a file; arguments as in `open_counts`."""
    try:
        with open_h5ad(path) as file:
            source = from_file(file)
            findings = inspect_cells(source, label_key, layer, in_memory=True)
            oddities = find_warnings(findings, source, label_key)
    except RefusedFileError as error:
        return FileCheck(error.problems, [])
    counts, labels = findings.counts, findings.labels
    return FileCheck(
        findings.problems,
        oddities,
        None if counts is None else counts.place.title,
        len(findings.cells),
        len(findings.genes),
        None if labels is None else labels[labels.str.strip() != ""].nunique(),
    )


def _counts(findings: Inspection) -> OpenCounts:
    taken, labels = findings.counts, findings.labels
    # Without problems there are both.
    assert taken is not None and taken.matrix is not None and taken.scan is not None
    assert labels is not None
    return OpenCounts(
        place=taken.place.title,
        matrix=taken.matrix,
        n_nonzero=taken.scan.n_nonzero,
        cells=findings.cells,
        genes=findings.genes,
        labels=pd.Series(pd.Categorical(labels), index=findings.cells),
    )
