"""Tell fractional counts from normalised and log-normalised values.

Programs that correct counts for ambient RNA (SoupX, CellBender, DecontX) or distribute ambiguous
reads (RSEM, salmon, kallisto) write counts that are not integers. Normalised values are not
integers, either, but they have other properties: all cells have the same total, or the values of
each cell are multiples of the value of one count. So have logarithms once they are inverted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mmlab.datasets.io.matrix import Matrix

FractionKind = Literal["log-normalised", "normalised", "fractional counts"]

#: log1p of counts is always smaller; the largest count of a dataset is nearly always larger.
LARGEST_LOG_VALUE = 30
#: Number of cells that are examined.
N_CELLS = 500
#: Inverses of the logarithms in use: natural, base 2 and base 10, each of 1 + x.
_INVERSES: tuple[Callable[[Any], Any], ...] = (
    np.expm1,
    lambda values: np.exp2(values) - 1,
    lambda values: 10**values - 1,
)
#: A value is near an integer if it differs by less than this.
_NEAR = 0.05
#: Relative standard deviation of the totals of normalised cells, with rounding.
_EQUAL_TOTALS = 0.01
#: Ratios of two values of a cell that tell whether they are multiples of the same unit.
_RATIOS = (1 + _NEAR, 20 + _NEAR)
#: Number of such ratios, and share of them near an integer, that show that there is a unit.
_MIN_RATIOS, _MULTIPLES = 20, 0.8
#: Share of the cells whose unit is that of reduced counts, and the range of this unit: ambient
#: correction removes less than half of the counts and adds none.
_REDUCED_CELLS, _REDUCED = 0.9, (0.5, 1.0)
#: Share of the values near an integer of fractional counts below 30; of logarithms it is 0.1.
_MOSTLY_INTEGERS = 0.2


def fraction_kind(matrix: Matrix, largest: float) -> FractionKind:
    """Return what a matrix with values that are not integers contains, by its first 500 cells.

    Parameters
    ----------
    matrix
        Its values are finite and not negative, or are taken as 0 otherwise.
    largest
        The largest value of the whole matrix.
    """
    values = first_cells(matrix)
    may_be_log = largest < LARGEST_LOG_VALUE
    for inverse in _INVERSES if may_be_log else ():
        inverted = values.copy()
        inverted.data = inverse(values.data)
        if equal_total(inverted) is not None or _units(inverted, values.data) is not None:
            return "log-normalised"
    if equal_total(values) is not None:
        return "normalised"
    units = _units(values, values.data)
    if units is not None:
        reduced = (units >= _REDUCED[0]) & (units <= _REDUCED[1])
        return "fractional counts" if reduced.mean() >= _REDUCED_CELLS else "normalised"
    if may_be_log and near_integers(values.data).mean() < _MOSTLY_INTEGERS:
        return "log-normalised"
    return "fractional counts"


def first_cells(matrix: Matrix) -> sp.csr_matrix:
    """Return the positive values of at most the first 500 cells as CSR float64."""
    if matrix.kind == "csc":
        parts = [block[:N_CELLS] for _, block in matrix.stored_blocks()]
        cells = sp.csr_matrix(sp.hstack(parts, format="csr"), dtype=np.float64)
    else:
        _, block = next(matrix.stored_blocks())
        cells = sp.csr_matrix(block[:N_CELLS], dtype=np.float64)
    cells.data[~(np.isfinite(cells.data) & (cells.data > 0))] = 0
    cells.eliminate_zeros()
    return cells


def near_integers(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which values differ by less than 0.05 from an integer."""
    return np.asarray(np.abs(values - np.rint(values)) < _NEAR)


def equal_total(cells: sp.csr_matrix) -> float | None:
    """Return the total that all cells have, within 1 %; None if their totals differ."""
    totals = np.asarray(cells.sum(axis=1)).ravel()
    totals = totals[totals > 0]
    if len(totals) < 2 or totals.std() > _EQUAL_TOTALS * totals.mean():
        return None
    return float(np.median(totals))


def _units(cells: sp.csr_matrix, stored: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return the smallest value of each cell if its other values are multiples of it, or None.

    Where ``stored`` is near an integer, a value is left out: powers of integers are multiples,
    whatever the values are.
    """
    sizes = np.diff(cells.indptr)
    starts = cells.indptr[:-1][sizes > 0]
    if not len(starts):
        return None
    smallest = np.minimum.reduceat(cells.data, starts)
    ratios = cells.data / np.repeat(smallest, sizes[sizes > 0])
    ratios = ratios[(ratios > _RATIOS[0]) & (ratios < _RATIOS[1]) & ~near_integers(stored)]
    if len(ratios) < _MIN_RATIOS or near_integers(ratios).mean() < _MULTIPLES:
        return None
    return np.asarray(smallest)
