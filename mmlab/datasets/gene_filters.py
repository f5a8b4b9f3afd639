"""Gene filters of the downloaded datasets (Gregory et al. 2024, section "Data processing")."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

#: Prefixes of excluded gene names: mitochondrial, ribosomal, heat shock, HLA. They are those of
#: the paper: case matters, and "Mt" also matches Mta1 and Mtor.
EXCLUDED_PREFIXES = ("Mt", "Rps", "Rpl", "Hsp", "Hla")
#: A gene is kept if its detection rate is at least this in some type ...
MIN_DETECTION_RATE = 0.30
#: ... unless at least this share of the types has at least that detection rate.
UBIQUITOUS_TYPES, UBIQUITOUS_RATE = 0.50, 0.75
#: Thresholds of cell2location, used for the mouse brain: a gene detected in more than the second
#: share of cells is kept; in more than the first share, if its mean count is above the third value.
_MIN_SHARE, _SUFFICIENT_SHARE, _MIN_MEAN = 0.0005, 0.03, 1.12

Mask = NDArray[np.bool_]


def has_excluded_name(genes: Iterable[str], housekeeping: Iterable[str] = ()) -> Mask:
    """Mark genes with one of :data:`EXCLUDED_PREFIXES`, and housekeeping genes; (n_genes,)."""
    listed = set(housekeeping)
    return np.array([g.startswith(EXCLUDED_PREFIXES) or g in listed for g in genes], dtype=bool)


def is_type_specific(counts: sp.csr_matrix, y: NDArray[np.int64]) -> Mask:
    """Mark genes that are detected in enough cells of some type and are not ubiquitous.

    Parameters
    ----------
    counts
        Raw counts (n_cells, n_genes); a gene is detected in a cell if its count is above 0.
    y
        Type index of each cell.

    Returns
    -------
    Boolean mask, shape (n_genes,).
    """
    rates = detection_rates(counts, y)
    detected = (rates >= MIN_DETECTION_RATE).any(axis=0)
    ubiquitous = (rates >= UBIQUITOUS_RATE).mean(axis=0) >= UBIQUITOUS_TYPES
    return np.asarray(detected & ~ubiquitous)


def detection_rates(counts: sp.csr_matrix, y: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of cells of each type with a count above 0, (n_types, n_genes)."""
    types, index = np.unique(y, return_inverse=True)
    return sums_by_type(counts > 0, index, len(types)) / np.bincount(index)[:, None]


def sums_by_type(values: sp.csr_matrix, y: NDArray[np.int64], n_types: int) -> NDArray[np.float64]:
    """Return the sum of each gene over the cells of each type, (n_types, n_genes)."""
    coordinates = y, np.arange(len(y))
    indicator = sp.csr_matrix((np.ones(len(y)), coordinates), shape=(n_types, len(y)))
    return np.asarray((indicator @ values).toarray())


def is_detected(counts: sp.csr_matrix) -> Mask:
    """Mark the genes that cell2location's gene filter keeps; shape (n_genes,).

    Kleshchevnikov et al., Nature Biotechnology 2022: a gene is kept if it is detected in more than
    3 % of the cells, or in more than 0.05 % of them with a mean count above 1.12 in these cells.
    """
    n_detected = np.bincount(counts.indices, minlength=counts.shape[1])
    total = np.asarray(counts.sum(axis=0)).ravel()
    high_mean = total > _MIN_MEAN * n_detected
    n_cells = counts.shape[0]
    in_many = n_detected > _SUFFICIENT_SHARE * n_cells
    return np.asarray((n_detected > _MIN_SHARE * n_cells) & (high_mean | in_many))
