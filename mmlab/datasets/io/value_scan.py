"""One pass over a matrix, block by block: what is wrong with its values, and how large they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmlab.datasets.io.matrix import Matrix

#: Integers above this are rounded in float32, in which counts are kept.
LARGEST_COUNT = 2**24
#: log1p of counts stays below this; counts of a whole dataset hardly do.
LARGEST_LOG_VALUE = 30


@dataclass
class Occurrences:
    """How many values are wrong in one way, and the (cell, gene) of the first."""

    count: int = 0
    first: tuple[int, int] = (-1, -1)


class ValueScan:
    """What a pass over the stored values of a matrix has found.

    Parameters
    ----------
    matrix
        Its values are numbers.
    n_blocks
        Look at so many blocks; None looks at all.

    Attributes
    ----------
    smallest, largest
        Of the finite values; a sparse matrix with nothing stored has 0 and 0.
    nan, infinite, negative, fractions, too_large
        Values that are not counts; ``too_large`` are above 2**24.
    per_cell
        Sum of the values of each cell, float64, shape (n_cells,).
    per_gene
        Cells in which each gene is not 0, int64, shape (n_genes,).
    """

    def __init__(self, matrix: Matrix, n_blocks: int | None = None) -> None:
        self.matrix = matrix
        self.smallest, self.largest = np.inf, -np.inf
        self.nan, self.infinite, self.negative = Occurrences(), Occurrences(), Occurrences()
        self.fractions, self.too_large = Occurrences(), Occurrences()
        self.per_cell = np.zeros(matrix.shape[0], dtype=np.float64)
        self.per_gene = np.zeros(matrix.shape[1], dtype=np.int64)
        for number, (first, block) in enumerate(matrix.lines()):
            if number == n_blocks:
                break
            # NaN and infinite values are counted, and are no reason for a warning.
            with np.errstate(invalid="ignore"):
                self._add(first, block)
        if self.smallest > self.largest:
            self.smallest = self.largest = 0.0

    @property
    def is_counts(self) -> bool:
        """Nothing but non-negative integers was found."""
        return not any(found.count for found in self._defects())

    @property
    def n_nonzero(self) -> int:
        """Values that are not 0."""
        return int(self.per_gene.sum())

    def looks(self) -> str:
        """What the values look like, for people; of values that are no counts."""
        if self.nan.count or self.infinite.count:
            return f"{self.nan.count} NaN and {self.infinite.count} infinite values"
        if self.negative.count:
            return f"looks scaled, smallest {self.smallest:.1f}"
        if self.fractions.count:
            return f"{self.looks_normalised()}, maximum {self.largest:.1f}"
        return f"{self.too_large.count} values above {LARGEST_COUNT}"

    def looks_normalised(self) -> str:
        """Whether fractions look like logarithms."""
        logged = self.largest < LARGEST_LOG_VALUE
        return "looks log-normalised" if logged else "looks normalised"

    def _defects(self) -> Iterable[Occurrences]:
        return self.nan, self.infinite, self.negative, self.fractions, self.too_large

    def _add(self, first: int, block: Any) -> None:
        values = block.ravel() if isinstance(block, np.ndarray) else block.data
        if not values.size:
            return
        finite = values
        if values.dtype.kind == "f" and not np.isfinite([values.min(), values.max()]).all():
            self._note(self.nan, np.isnan(values), first, block)
            self._note(self.infinite, np.isinf(values), first, block)
            finite = values[np.isfinite(values)]
        if finite.size:
            smallest, largest = float(finite.min()), float(finite.max())
            self.smallest = min(self.smallest, smallest)
            self.largest = max(self.largest, largest)
            if smallest < 0:
                self._note(self.negative, (values < 0) & (values > -np.inf), first, block)
            if largest > LARGEST_COUNT:
                above = (values > LARGEST_COUNT) & (values < np.inf)
                self._note(self.too_large, above, first, block)
            if values.dtype.kind == "f":
                fractions = (values != np.rint(values)) & np.isfinite(values)
                self._note(self.fractions, fractions, first, block)
        self._total(first, block)

    def _note(self, found: Occurrences, wrong: NDArray[np.bool_], first: int, block: Any) -> None:
        count = int(np.count_nonzero(wrong))
        if count and not found.count:
            found.first = self._place(int(wrong.argmax()), first, block)
        found.count += count

    def _place(self, position: int, first: int, block: Any) -> tuple[int, int]:
        """Cell and gene of a stored value of a block."""
        if isinstance(block, np.ndarray):
            line, across = divmod(position, block.shape[1])
            return first + line, across
        line = first + int(np.searchsorted(block.indptr, position, side="right")) - 1
        across = int(block.indices[position])
        return (line, across) if self.matrix.kind == "csr" else (across, line)

    def _total(self, first: int, block: Any) -> None:
        if isinstance(block, np.ndarray):
            self.per_cell[first : first + len(block)] += block.sum(axis=1, dtype=np.float64)
            self.per_gene += np.count_nonzero(block, axis=0)
            return
        lines = np.repeat(np.arange(len(block.indptr) - 1), np.diff(block.indptr))
        stored = block.data != 0
        if self.matrix.kind == "csr":
            part = np.bincount(lines, weights=block.data, minlength=block.shape[0])
            self.per_cell[first : first + len(part)] += part
            self.per_gene += np.bincount(block.indices[stored], minlength=len(self.per_gene))
        else:
            part = np.bincount(block.indices, weights=block.data, minlength=len(self.per_cell))
            self.per_cell += part
            nonzero = np.bincount(lines[stored], minlength=block.shape[1])
            self.per_gene[first : first + len(nonzero)] += nonzero
