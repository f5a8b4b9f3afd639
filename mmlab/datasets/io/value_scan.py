"""Scan a matrix block by block for values that are not counts, and compute sums and ranges."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmlab.datasets.io.fractions import FractionKind, fraction_kind
from mmlab.datasets.io.matrix import Matrix

#: Counts are stored as float32, which cannot represent all integers above this.
LARGEST_COUNT = 2**24
_LOOKS: dict[FractionKind, str] = {
    "log-normalised": "log-normalised",
    "normalised": "normalised",
    "fractional counts": "like ambient-corrected or estimated counts",
}


@dataclass
class Occurrences:
    """Number of values of one invalid kind, and the (cell, gene) of the first."""

    count: int = 0
    first: tuple[int, int] = (-1, -1)


class ValueScan:
    """Results of a scan of the stored values of a matrix.

    Parameters
    ----------
    matrix
        A matrix of numbers.
    n_blocks
        Number of blocks to scan; None scans all.

    Attributes
    ----------
    smallest, largest
        Range of the finite stored values; 0 and 0 if there are none.
    nan, infinite, negative, fractions, too_large
        Values that are not counts; those of ``too_large`` are above 2**24.
    cell_totals
        Sum of the values of each cell, float64, shape (n_cells,).
    n_cells_by_gene
        Number of cells in which each gene is not 0, int64, shape (n_genes,).
    """

    def __init__(self, matrix: Matrix, n_blocks: int | None = None) -> None:
        self.matrix = matrix
        self.smallest, self.largest = np.inf, -np.inf
        self.nan, self.infinite, self.negative = Occurrences(), Occurrences(), Occurrences()
        self.fractions, self.too_large = Occurrences(), Occurrences()
        self.cell_totals = np.zeros(matrix.shape[0], dtype=np.float64)
        self.n_cells_by_gene = np.zeros(matrix.shape[1], dtype=np.int64)
        for number, (first, block) in enumerate(matrix.stored_blocks()):
            if number == n_blocks:
                break
            # NaN and infinite values are counted; numpy's warnings about them are not needed.
            with np.errstate(invalid="ignore"):
                self._add(first, block)
        if self.smallest > self.largest:
            self.smallest = self.largest = 0.0

    @property
    def is_counts(self) -> bool:
        """Whether all scanned values are non-negative integers up to 2**24."""
        return not any(found.count for found in self._invalid_values())

    @property
    def n_nonzero(self) -> int:
        """Number of values that are not 0."""
        return int(self.n_cells_by_gene.sum())

    def some_gene_varies(self) -> bool:
        """Return whether the counts of a gene differ between two cells; blocks are read again."""
        n_cells = self.matrix.shape[0]
        if not np.isin(self.n_cells_by_gene, (0, n_cells)).all():
            return True
        reference: Any = None
        for _, block in self.matrix.stored_blocks():
            values = block if isinstance(block, np.ndarray) else block.toarray()
            if reference is None or self.matrix.kind == "csc":
                reference = values[:1].copy()
            if (values != reference).any():
                return True
        return False

    def describe(self) -> str:
        """Describe values that are not counts in a few words, for messages."""
        if self.nan.count or self.infinite.count:
            return f"{self.nan.count} NaN and {self.infinite.count} infinite values"
        if self.negative.count:
            return f"looks scaled, smallest {self.smallest:.1f}"
        if self.fractions.count:
            return f"{self.describe_fractions()}, maximum {self.largest:.1f}"
        return f"{self.too_large.count} values above {LARGEST_COUNT}"

    @cached_property
    def fraction_kind(self) -> FractionKind | None:
        """What the values are; None if all are integers or some are negative."""
        if self.negative.count or not self.fractions.count:
            return None
        return fraction_kind(self.matrix, self.largest)

    def describe_fractions(self) -> str:
        """Describe non-negative values of which some are not integers, in a few words."""
        return "" if self.fraction_kind is None else f"looks {_LOOKS[self.fraction_kind]}"

    def _invalid_values(self) -> Iterable[Occurrences]:
        return self.nan, self.infinite, self.negative, self.fractions, self.too_large

    def _add(self, first: int, block: Any) -> None:
        values = block.ravel() if isinstance(block, np.ndarray) else block.data
        if not values.size:
            return
        finite = values
        if values.dtype.kind == "f" and not np.isfinite([values.min(), values.max()]).all():
            self._record(self.nan, np.isnan(values), first, block)
            self._record(self.infinite, np.isinf(values), first, block)
            finite = values[np.isfinite(values)]
        if finite.size:
            smallest, largest = float(finite.min()), float(finite.max())
            self.smallest = min(self.smallest, smallest)
            self.largest = max(self.largest, largest)
            if smallest < 0:
                self._record(self.negative, (values < 0) & (values > -np.inf), first, block)
            if largest > LARGEST_COUNT:
                above = (values > LARGEST_COUNT) & (values < np.inf)
                self._record(self.too_large, above, first, block)
            if values.dtype.kind == "f":
                fractions = (values != np.rint(values)) & np.isfinite(values)
                self._record(self.fractions, fractions, first, block)
        self._add_totals(first, block)

    def _record(
        self, found: Occurrences, invalid: NDArray[np.bool_], first: int, block: Any
    ) -> None:
        count = int(np.count_nonzero(invalid))
        if count and not found.count:
            found.first = self._cell_and_gene(int(invalid.argmax()), first, block)
        found.count += count

    def _cell_and_gene(self, position: int, first: int, block: Any) -> tuple[int, int]:
        """Return the cell and gene of the stored value at ``position`` of a block."""
        if isinstance(block, np.ndarray):
            row, column = divmod(position, block.shape[1])
            return first + row, column
        major = first + int(np.searchsorted(block.indptr, position, side="right")) - 1
        minor = int(block.indices[position])
        return (major, minor) if self.matrix.kind == "csr" else (minor, major)

    def _add_totals(self, first: int, block: Any) -> None:
        if isinstance(block, np.ndarray):
            self.cell_totals[first : first + len(block)] += block.sum(axis=1, dtype=np.float64)
            self.n_cells_by_gene += np.count_nonzero(block, axis=0)
            return
        major = np.repeat(np.arange(len(block.indptr) - 1), np.diff(block.indptr))
        nonzero = block.data != 0
        if self.matrix.kind == "csr":
            part = np.bincount(major, weights=block.data, minlength=block.shape[0])
            self.cell_totals[first : first + len(part)] += part
            n_genes = len(self.n_cells_by_gene)
            self.n_cells_by_gene += np.bincount(block.indices[nonzero], minlength=n_genes)
        else:
            part = np.bincount(block.indices, weights=block.data, minlength=len(self.cell_totals))
            self.cell_totals += part
            n_cells = np.bincount(major[nonzero], minlength=block.shape[1])
            self.n_cells_by_gene[first : first + len(n_cells)] += n_cells
