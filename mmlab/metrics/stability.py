"""Stability of gene selection: agreement of the panels of replicates.

All functions take panels as arrays of distinct gene indices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

Panels = Sequence[NDArray[np.int64]]


@dataclass(frozen=True)
class Stability:
    """Nogueira's stability index with its variance and confidence interval."""

    value: float
    variance: float
    low: float
    high: float


def nogueira_stability(panels: Panels, n_genes: int, confidence: float = 0.95) -> Stability:
    """Return the stability of feature selection, corrected for chance (Nogueira et al. 2018).

    The index is 1 minus the summed variances of the selection of each gene, divided by the
    expected sum for random panels of the same mean size. It is 1 for identical panels and 0 on
    average for random panels.

    Parameters
    ----------
    panels
        At least two panels.
    n_genes
        Number of genes that the panels were selected from.
    confidence
        Confidence level of the interval, which assumes asymptotic normality of the estimate.

    Raises
    ------
    ValueError
        There are fewer than two panels, or all panels are empty or contain all genes.

    References
    ----------
    Nogueira, Sechidis & Brown, JMLR 18(174), 2018: definition 4 and theorem 7.
    """
    m = len(panels)
    if m < 2:
        raise ValueError(f"stability needs at least two panels, got {m}")
    selected = np.zeros((m, n_genes))
    for row, panel in zip(selected, panels, strict=True):
        row[panel] = 1
    sizes, frequency = selected.sum(axis=1), selected.mean(axis=0)
    fraction = sizes.mean() / n_genes
    chance = fraction * (1 - fraction)
    if chance == 0:
        raise ValueError("stability is not defined for empty panels or panels of all genes")
    value = 1 - float(np.mean(m / (m - 1) * frequency * (1 - frequency))) / chance
    # Theorem 7: phi_i of each panel, and the variance of their mean.
    agreement = (
        selected @ frequency / n_genes
        - sizes * sizes.mean() / n_genes**2
        + value / 2 * (2 * sizes.mean() * sizes / n_genes**2 - sizes / n_genes - fraction + 1)
    )
    phi = agreement / chance
    variance = float(4 / m**2 * np.square(phi - phi.mean()).sum())
    half_width = float(norm.ppf((1 + confidence) / 2)) * variance**0.5
    return Stability(value, variance, value - half_width, value + half_width)


def mean_jaccard(panels: Panels) -> float:
    """Return the Jaccard index averaged over all pairs of panels, in [0, 1].

    Raises
    ------
    ValueError
        There are fewer than two panels.
    """
    if len(panels) < 2:
        raise ValueError(f"stability needs at least two panels, got {len(panels)}")
    sets = [set(panel.tolist()) for panel in panels]
    return float(np.mean([len(a & b) / len(a | b) for a, b in combinations(sets, 2)]))
