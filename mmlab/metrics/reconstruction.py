"""Reconstruction metrics: how well the expression of all genes is predicted from the panel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, stats

from mmlab.preprocessing.expression import ZScores, dense_blocks

Matrix = NDArray[np.float32]

#: Singular values of the centred panel count as zero up to this fraction of the largest one of the
#: panel. Rare genes whose few expressed cells are all clipped become copies of each other: a
#: direction that the fit cannot measure, but along which one read moves a new cell far. Panels of
#: up to 250 genes of the bundled datasets have no singular value below 0.018 of the largest.
SINGULAR_CUTOFF = 1e-3

#: Cells whose prediction is in memory in float64.
_CELLS_AT_A_TIME = 256


def mean_squared_error(x: Matrix, reconstructed: Matrix) -> float:
    """Return the squared error averaged over all cells and genes ("l2" in table 2 of the paper).

    Both arguments are z-scores of shape (n_cells, n_genes).
    """
    return float(np.mean(np.square(x - reconstructed), dtype=np.float64))


def squared_error_per_cell(x: Matrix, reconstructed: Matrix) -> NDArray[np.float64]:
    """Return the squared error of each cell averaged over all genes, shape (n_cells,).

    The mean over the cells is :func:`mean_squared_error`.
    """
    return np.asarray(np.mean(np.square(x - reconstructed), axis=1, dtype=np.float64))


def mean_absolute_error(x: Matrix, reconstructed: Matrix) -> float:
    """Return the absolute error averaged over all cells and genes ("l1" in table 2)."""
    return float(np.mean(np.abs(x - reconstructed), dtype=np.float64))


def linear_reconstruction(x_fit: ZScores, x: Matrix, panel: NDArray[np.int64]) -> Matrix:
    """Predict all genes of ``x`` from its panel genes by ordinary least squares.

    Parameters
    ----------
    x_fit
        Cells on which the regressions are fitted, one with intercept per gene, shape
        (n_fit_cells, n_genes).
    x
        Cells to reconstruct, shape (n_cells, n_genes).
    panel
        Indices of the panel genes.

    Returns
    -------
    float32 of the shape of ``x``.
    """
    return apply_coefficients(linear_coefficients(x_fit, panel), x[:, panel])


def linear_coefficients(x_fit: ZScores, panel: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the coefficients of :func:`linear_reconstruction`.

    They are the solution of minimum norm among the panel genes. Directions along which the panel
    hardly varies over the cells (:data:`SINGULAR_CUTOFF`) are not used: panel genes that are
    copies of each other share the coefficient that one of them would have.

    Returns
    -------
    Shape (n_markers + 1, n_genes); the last row is the intercept.
    """
    # A QR decomposition, updated block by block, has the memory of the normal equations without
    # squaring the condition number. The intercept comes first, so that all columns of Q but the
    # first are orthogonal to it, and R without its first row and column is that of the centred
    # panel.
    n = len(panel) + 1
    r, products = np.zeros((n, n)), np.zeros((n, x_fit.shape[1]))
    for block in dense_blocks(x_fit):
        design = np.column_stack([np.ones(len(block)), block[:, panel]])
        q, r = linalg.qr(np.vstack([r, design]), mode="economic")
        products = q[:n].T @ products + q[n:].T @ block
    left, values, right = linalg.svd(r[1:, 1:])
    used = values > SINGULAR_CUTOFF * linalg.norm(r[:, 1:], 2)
    slopes = right[used].T @ (left[:, used].T @ products[1:] / values[used, None])
    intercept = (products[0] - r[0, 1:] @ slopes) / r[0, 0]
    return np.vstack([slopes, intercept])


def apply_coefficients(coefficients: NDArray[np.float64], x_panel: Matrix) -> Matrix:
    """Return the expression of all genes that :func:`linear_coefficients` predict.

    Parameters
    ----------
    coefficients
        Shape (n_markers + 1, n_genes).
    x_panel
        z-scores of the panel genes, shape (n_cells, n_markers).

    Returns
    -------
    float32 of shape (n_cells, n_genes), computed with the precision of the coefficients.
    """
    predicted = np.empty((len(x_panel), coefficients.shape[1]), dtype=np.float32)
    slopes, intercept = coefficients[:-1], coefficients[-1]
    for start in range(0, len(x_panel), _CELLS_AT_A_TIME):
        cells = slice(start, start + _CELLS_AT_A_TIME)
        predicted[cells] = x_panel[cells] @ slopes + intercept
    return predicted


def explained_variance(x: Matrix, reconstructed: Matrix) -> float:
    """Return one minus squared error over variance, both averaged over all genes.

    1 is a perfect reconstruction; 0 is as good as the mean of each gene. NaN if no gene varies
    over the cells ``x``: there is no variance to explain.
    """
    # The mean in float64 of a constant float32 gene is exact.
    mean = x.mean(axis=0, dtype=np.float64).astype(np.float32)
    variance = np.mean(np.square(x - mean), dtype=np.float64)
    if variance == 0:
        return float("nan")
    return float(1 - mean_squared_error(x, reconstructed) / variance)


def top_variance_jaccard(x: Matrix, reconstructed: Matrix) -> float:
    """Return the Jaccard index of the 20 % most variable genes, true and reconstructed.

    Table 4 of Gregory et al. 2024. Population variance over the cells; of n genes the
    floor(n / 5) with the highest variance, at least one.
    """
    n_top = max(x.shape[1] // 5, 1)
    true, predicted = (
        set(np.argsort(-_variances(m), kind="stable")[:n_top]) for m in (x, reconstructed)
    )
    return len(true & predicted) / len(true | predicted)


def variance_rank_correlation(x: Matrix, reconstructed: Matrix) -> float:
    """Return the Spearman correlation of the variances of the genes, true and reconstructed.

    Table 4 of Gregory et al. 2024. NaN if all genes have the same variance in either.
    """
    true, predicted = (stats.rankdata(_variances(m)) for m in (x, reconstructed))
    if np.ptp(true) == 0 or np.ptp(predicted) == 0:
        return float("nan")
    return float(np.corrcoef(true, predicted)[0, 1])


def mean_l1_distance(x: Matrix, reconstructed: Matrix) -> float:
    """Return the mean l1 distance of a cell to its reconstruction (equation 11 of the paper)."""
    return float(np.abs(x - reconstructed).sum(axis=1, dtype=np.float64).mean())


def mean_l2_distance(x: Matrix, reconstructed: Matrix) -> float:
    """Return the mean Euclidean distance of a cell to its reconstruction (equation 10)."""
    return float(np.sqrt(np.square(x - reconstructed).sum(axis=1, dtype=np.float64)).mean())


#: Metrics that table 4 of the paper reports for each cell type.
METRICS_BY_TYPE = {
    "jaccard": top_variance_jaccard,
    "spearman": variance_rank_correlation,
    "l1": mean_l1_distance,
    "l2": mean_l2_distance,
}


def reconstruction_by_type(
    x: Matrix, reconstructed: Matrix, y: NDArray[np.int64], n_classes: int
) -> dict[str, NDArray[np.float64]]:
    """Return each metric of :data:`METRICS_BY_TYPE`, computed separately on the cells of each type.

    Parameters
    ----------
    x, reconstructed
        Expression and its reconstruction, shape (n_cells, n_genes).
    y
        Class index of each cell, shape (n_cells,).

    Returns
    -------
    Arrays of shape (n_classes,) by name of the metric; NaN for a type with fewer than two cells,
    which has no variance.
    """
    values = {name: np.full(n_classes, np.nan) for name in METRICS_BY_TYPE}
    for c in range(n_classes):
        own = y == c
        if own.sum() >= 2:
            for name, metric in METRICS_BY_TYPE.items():
                values[name][c] = metric(x[own], reconstructed[own])
    return values


def _variances(x: Matrix) -> NDArray[np.float64]:
    return np.asarray(x.var(axis=0, dtype=np.float64))
