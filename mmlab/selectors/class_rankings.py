"""How ranked lists of several classes become one panel of k genes (METHODS 4.5)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def merge_rankings(ranked: NDArray[np.int64], strength: NDArray[np.float64], k: int) -> list[int]:
    """Take genes from several ranked lists, row by row, until k distinct ones are found.

    Row r holds the r-th best gene of every class. A row is taken whole while it fits;
    the first row that does not fit is taken class by class, strongest first.

    Parameters
    ----------
    ranked
        Gene indices, shape (n_rows, n_classes), best row first.
    strength
        Shape of ``ranked``; within a row, a larger value goes first.
    k
        Number of genes, at most the number of distinct genes in ``ranked``.

    Returns
    -------
    k distinct gene indices, best first.
    """
    panel: dict[int, None] = {}
    for row, weight in zip(ranked, strength, strict=True):
        for gene in row[np.argsort(-weight, kind="stable")]:
            panel.setdefault(int(gene))
            if len(panel) == k:
                return list(panel)
    raise ValueError(f"the lists hold {len(panel)} distinct genes, fewer than {k}")
