"""Which genes of a downloaded dataset are kept (Data processing of Gregory et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

#: Beginnings of the names of genes that are no markers of anything: mitochondrial, ribosomal,
#: heat shock, HLA. As published: case counts, and "Mt" also meets Mta1 and Mtor.
GENERAL_PREFIXES = ("Mt", "Rps", "Rpl", "Hsp", "Hla")
#: A gene is kept if at least this share of the cells of some type has it ...
PRESENT_IN_A_TYPE = 0.30
#: ... and unless at least this share of the types has it in at least that share of their cells.
UBIQUITOUS_TYPES, UBIQUITOUS_CELLS = 0.50, 0.75
#: Of the mouse brain, after cell2location: genes in few cells are kept if strong where they are.
_FEW_CELLS, _MANY_CELLS, _STRONG = 0.0005, 0.03, 1.12

Mask = NDArray[np.bool_]


def is_general(genes: Iterable[str], housekeeping: Iterable[str] = ()) -> Mask:
    """Genes with one of :data:`GENERAL_PREFIXES`, and those of a list; shape (n_genes,)."""
    listed = set(housekeeping)
    return np.array([g.startswith(GENERAL_PREFIXES) or g in listed for g in genes], dtype=bool)


def tells_types(counts: sp.csr_matrix, y: NDArray[np.int64]) -> Mask:
    """Genes present in enough cells of some type, and not in nearly all cells of most types.

    Parameters
    ----------
    counts
        Raw counts (n_cells, n_genes); present is above 0.
    y
        Type index of each cell.

    Returns
    -------
    Shape (n_genes,).
    """
    share = shares_by_type(counts, y)
    in_a_type = (share >= PRESENT_IN_A_TYPE).any(axis=0)
    ubiquitous = (share >= UBIQUITOUS_CELLS).mean(axis=0) >= UBIQUITOUS_TYPES
    return np.asarray(in_a_type & ~ubiquitous)


def shares_by_type(counts: sp.csr_matrix, y: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of the cells of each type in which a gene is present, (n_types, n_genes)."""
    types, index = np.unique(y, return_inverse=True)
    return sums_by_type(counts > 0, index, len(types)) / np.bincount(index)[:, None]


def sums_by_type(values: sp.csr_matrix, y: NDArray[np.int64], n_types: int) -> NDArray[np.float64]:
    """Sum of each gene over the cells of each type, (n_types, n_genes)."""
    places = y, np.arange(len(y))
    members = sp.csr_matrix((np.ones(len(y)), places), shape=(n_types, len(y)))
    return np.asarray((members @ values).toarray())


def is_detected(counts: sp.csr_matrix) -> Mask:
    """Genes in many cells, or in a few with more than a count or so, as cell2location keeps them.

    Kleshchevnikov et al., Nature Biotechnology 2022: in more than 3 % of the cells, or in more
    than 0.05 % of them with a mean above 1.12 over the cells that have it. Shape (n_genes,).
    """
    n_with = np.bincount(counts.indices, minlength=counts.shape[1])
    total = np.asarray(counts.sum(axis=0)).ravel()
    strong = total > _STRONG * n_with
    n_cells = counts.shape[0]
    return np.asarray((n_with > _FEW_CELLS * n_cells) & (strong | (n_with > _MANY_CELLS * n_cells)))
