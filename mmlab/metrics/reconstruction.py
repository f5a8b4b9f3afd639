"""How well all genes can be told from the panel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, stats

from mmlab.preprocessing.expression import ZScores, dense_blocks

Matrix = NDArray[np.float32]


def mean_squared_error(x: Matrix, reconstructed: Matrix) -> float:
    """Mean over all cells and genes of the squared error ("l2" of the paper's table 2).

    Both arguments have shape (n_cells, n_genes), z-scores.
    """
    return float(np.mean(np.square(x - reconstructed), dtype=np.float64))


def mean_absolute_error(x: Matrix, reconstructed: Matrix) -> float:
    """Mean over all cells and genes of the absolute error ("l1" of the paper's table 2)."""
    return float(np.mean(np.abs(x - reconstructed), dtype=np.float64))


def linear_reconstruction(x_fit: ZScores, x: Matrix, panel: NDArray[np.int64]) -> Matrix:
    """All genes of ``x`` predicted from its panel genes by ordinary least squares.

    Parameters
    ----------
    x_fit
        Cells that the regression (with intercept, one a gene) is fitted on.
    x
        Cells to reconstruct, shape (n_cells, n_genes).
    panel
        Gene indices.

    Returns
    -------
    float32, shape of ``x``.
    """
    rebuilt: Matrix = with_intercept(x[:, panel]) @ linear_coefficients(x_fit, panel)
    return rebuilt


def linear_coefficients(x_fit: ZScores, panel: NDArray[np.int64]) -> Matrix:
    """Coefficients of :func:`linear_reconstruction`, (n_markers + 1, n_genes); intercept last."""
    # The normal equations are a problem of the panel's size, whatever the cells and genes.
    n = len(panel) + 1
    squares, products = np.zeros((n, n)), np.zeros((n, x_fit.shape[1]), dtype=np.float32)
    for block in dense_blocks(x_fit):
        design = with_intercept(block[:, panel])
        exact = design.astype(np.float64)
        squares += exact.T @ exact
        products += design.T @ block
    coefficients, *_ = linalg.lstsq(squares, products)
    found: Matrix = coefficients.astype(np.float32)
    return found


def with_intercept(x: Matrix) -> Matrix:
    """Cells with a column of ones, the last."""
    return np.column_stack([x, np.ones(len(x), dtype=np.float32)])


def explained_variance(x: Matrix, reconstructed: Matrix) -> float:
    """One minus squared error over variance, all genes pooled; 1 is perfect, 0 is the mean.

    Raises
    ------
    ValueError
        No gene varies over the cells ``x``: there is nothing to explain.
    """
    variance = np.mean(np.square(x - x.mean(axis=0)), dtype=np.float64)
    if variance == 0:
        raise ValueError(f"no gene varies over the {len(x)} cells: no variance to explain")
    return float(1 - mean_squared_error(x, reconstructed) / variance)


def top_variance_jaccard(x: Matrix, reconstructed: Matrix) -> float:
    """Jaccard index of the fifth of the genes with the highest variance, true and reconstructed.

    Table 4 of Gregory et al. 2024. Population variance over the cells; of n genes, the
    floor(n / 5) highest, at least one.
    """
    n_top = max(x.shape[1] // 5, 1)
    true, rebuilt = (
        set(np.argsort(-_variances(m), kind="stable")[:n_top]) for m in (x, reconstructed)
    )
    return len(true & rebuilt) / len(true | rebuilt)


def variance_rank_correlation(x: Matrix, reconstructed: Matrix) -> float:
    """Spearman correlation of the genes' variances, true and reconstructed.

    Table 4 of Gregory et al. 2024. NaN where either has the same variance for all genes.
    """
    true, rebuilt = (stats.rankdata(_variances(m)) for m in (x, reconstructed))
    if np.ptp(true) == 0 or np.ptp(rebuilt) == 0:
        return float("nan")
    return float(np.corrcoef(true, rebuilt)[0, 1])


def mean_l1_distance(x: Matrix, reconstructed: Matrix) -> float:
    """Mean over the cells of the l1 distance to their reconstruction (equation 10 of the paper)."""
    return float(np.abs(x - reconstructed).sum(axis=1, dtype=np.float64).mean())


def mean_l2_distance(x: Matrix, reconstructed: Matrix) -> float:
    """Mean over the cells of the Euclidean distance to their reconstruction (equation 11)."""
    return float(np.sqrt(np.square(x - reconstructed).sum(axis=1, dtype=np.float64)).mean())


#: Of each cell type, what table 4 of the paper reports.
BY_TYPE = {
    "jaccard": top_variance_jaccard,
    "spearman": variance_rank_correlation,
    "l1": mean_l1_distance,
    "l2": mean_l2_distance,
}


def reconstruction_by_type(
    x: Matrix, reconstructed: Matrix, y: NDArray[np.int64], n_classes: int
) -> dict[str, NDArray[np.float64]]:
    """Every measure of :data:`BY_TYPE` on the cells of each type alone.

    Parameters
    ----------
    x, reconstructed
        Expression and its reconstruction, shape (n_cells, n_genes).
    y
        Class index of each cell.

    Returns
    -------
    Shape (n_classes,) each; NaN for a type with fewer than two cells, which has no variance.
    """
    found = {name: np.full(n_classes, np.nan) for name in BY_TYPE}
    for c in range(n_classes):
        own = y == c
        if own.sum() >= 2:
            for name, measure in BY_TYPE.items():
                found[name][c] = measure(x[own], reconstructed[own])
    return found


def _variances(x: Matrix) -> NDArray[np.float64]:
    return np.asarray(x.var(axis=0, dtype=np.float64))
