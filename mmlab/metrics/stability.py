"""How much panels agree over the replicates.

All functions take the panels as arrays of gene indices, each holding distinct genes.
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
    """Nogueira's index with its variance and confidence interval."""

    value: float
    variance: float
    low: float
    high: float


def nogueira_stability(panels: Panels, n_genes: int, confidence: float = 0.95) -> Stability:
    """Stability of feature selection, corrected for chance (Nogueira et al. 2018).

    1 minus the variance of a gene's selection, summed over the genes, divided by what that sum
    is for random panels of the same mean size. 1 for equal panels, 0 on average for random ones.

    Parameters
    ----------
    panels
        At least two.
    n_genes
        Number of genes that were chosen from.
    confidence
        Of the interval, which rests on the asymptotic normality of the estimate.

    Raises
    ------
    ValueError
        Fewer than two panels, or panels of no or of all genes: there is no choice to agree on.

    References
    ----------
    Nogueira, Sechidis & Brown, JMLR 18(174), 2018: definition 4 and theorem 7.
    """
    m = len(panels)
    if m < 2:
        raise ValueError(f"stability needs at least two panels, got {m}")
    chosen = np.zeros((m, n_genes))
    for row, panel in zip(chosen, panels, strict=True):
        row[panel] = 1
    sizes, frequency = chosen.sum(axis=1), chosen.mean(axis=0)
    share = sizes.mean() / n_genes
    chance = share * (1 - share)
    if chance == 0:
        raise ValueError("stability is not defined for panels of no or of all genes")
    value = 1 - float(np.mean(m / (m - 1) * frequency * (1 - frequency))) / chance
    # Theorem 7: phi_i for each panel, and the variance of their mean.
    agreement = (
        chosen @ frequency / n_genes
        - sizes * sizes.mean() / n_genes**2
        + value / 2 * (2 * sizes.mean() * sizes / n_genes**2 - sizes / n_genes - share + 1)
    )
    phi = agreement / chance
    variance = float(4 / m**2 * np.square(phi - phi.mean()).sum())
    half = float(norm.ppf((1 + confidence) / 2)) * variance**0.5
    return Stability(value, variance, value - half, value + half)


def mean_jaccard(panels: Panels) -> float:
    """Mean over all pairs of panels of shared genes divided by genes in either; in [0, 1].

    Raises
    ------
    ValueError
        Fewer than two panels.
    """
    if len(panels) < 2:
        raise ValueError(f"stability needs at least two panels, got {len(panels)}")
    sets = [set(panel.tolist()) for panel in panels]
    return float(np.mean([len(a & b) / len(a | b) for a, b in combinations(sets, 2)]))
