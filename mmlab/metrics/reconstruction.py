"""How well all genes can be told from the panel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LinearRegression

Matrix = NDArray[np.float32]


def mean_squared_error(x: Matrix, reconstructed: Matrix) -> float:
    """Mean over all cells and genes of the squared error ("l2" of the paper's table 2).

    Both arguments have shape (n_cells, n_genes), z-scores.
    """
    return float(np.mean(np.square(x - reconstructed), dtype=np.float64))


def mean_absolute_error(x: Matrix, reconstructed: Matrix) -> float:
    """Mean over all cells and genes of the absolute error ("l1" of the paper's table 2)."""
    return float(np.mean(np.abs(x - reconstructed), dtype=np.float64))


def linear_reconstruction(x_fit: Matrix, x: Matrix, panel: NDArray[np.int64]) -> Matrix:
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
    model = LinearRegression().fit(x_fit[:, panel], x_fit)
    return np.asarray(model.predict(x[:, panel]), dtype=np.float32)


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
