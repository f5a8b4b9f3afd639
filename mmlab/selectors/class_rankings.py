"""Merge the gene rankings of several classes into one panel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def merge_rankings(ranked: NDArray[np.int64], strength: NDArray[np.float64], k: int) -> list[int]:
    """Return k distinct genes from the rankings of several classes, best rank first.

    Row r contains the r-th best gene of every class. The rows are taken in order; within a row,
    the genes with larger ``strength`` come first. If the last row has more new genes than the
    panel has places left, those with the largest ``strength`` are taken.

    Parameters
    ----------
    ranked
        Gene indices, shape (n_ranks, n_classes), best rank first.
    strength
        Order within a row, shape of ``ranked``; larger values come first.
    k
        Number of genes, at most the number of distinct genes in ``ranked``.

    Returns
    -------
    k distinct gene indices, best first.

    Raises
    ------
    ValueError
        ``ranked`` has fewer than k distinct genes.
    """
    panel: dict[int, None] = {}
    for row, weight in zip(ranked, strength, strict=True):
        for gene in row[np.argsort(-weight, kind="stable")]:
            panel.setdefault(int(gene))
            if len(panel) == k:
                return list(panel)
    raise ValueError(f"the rankings have {len(panel)} distinct genes, fewer than {k}")
