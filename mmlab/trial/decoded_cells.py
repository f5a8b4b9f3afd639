"""Compare cells with their reconstruction by a method's decoder (figure 3 C of the paper)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.decomposition import PCA


@dataclass(frozen=True)
class DecodedCells:
    """Gene variances and principal components of cells and of their reconstruction.

    Attributes
    ----------
    variances
        Columns gene, original, reconstructed: population variance of the z-scores; one row per
        gene.
    components
        Columns cell_type, pc1, pc2, reconstructed_pc1, reconstructed_pc2: the first two principal
        components of the original cells, and the reconstructed cells projected on the same
        components; one row per cell.
    """

    variances: pd.DataFrame
    components: pd.DataFrame

    @classmethod
    def empty(cls) -> DecodedCells:
        """Return empty tables, for a method without decoder."""
        return cls(pd.DataFrame(), pd.DataFrame())


def compare_reconstruction(
    x: NDArray[np.float32],
    reconstructed: NDArray[np.float32],
    genes: NDArray[np.str_],
    cell_types: NDArray[np.str_],
) -> DecodedCells:
    """Compute variances and principal components of cells and of their reconstruction.

    Parameters
    ----------
    x, reconstructed
        z-scores, shape (n_cells, n_genes).
    genes
        Gene names, shape (n_genes,).
    cell_types
        Name of the type of each cell, shape (n_cells,).
    """
    pca = PCA(2, svd_solver="randomized", random_state=0).fit(x)
    columns = {"pc1": pca.transform(x)[:, 0], "pc2": pca.transform(x)[:, 1]}
    projected = pca.transform(reconstructed)
    columns |= {"reconstructed_pc1": projected[:, 0], "reconstructed_pc2": projected[:, 1]}
    variances = {
        "gene": genes,
        "original": x.var(axis=0, dtype=np.float64),
        "reconstructed": reconstructed.var(axis=0, dtype=np.float64),
    }
    components = pd.DataFrame({"cell_type": cell_types} | columns)
    return DecodedCells(pd.DataFrame(variances), components)
