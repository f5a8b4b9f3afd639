"""Toy example of the paper: three genes determine the class, a single gene is not informative."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from mmlab.datasets.description import Dataset

N_CELLS = 4000
N_GENES = 500
SEED = 0


def simulate(n_cells: int = N_CELLS, n_genes: int = N_GENES, seed: int = SEED) -> ad.AnnData:
    """Simulate binary genes; a cell has class A if the three markers are all on or all off.

    Counts are 0 or 1 with equal probability, which the z-score maps to -1 and +1. The three
    markers are drawn with ``seed`` and marked in ``var["is_marker"]``.
    """
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 2, size=(n_cells, n_genes))
    markers = rng.choice(n_genes, size=3, replace=False)
    n_on = counts[:, markers].sum(axis=1)
    labels = np.where((n_on == 0) | (n_on == 3), "A", "B")
    is_marker = np.zeros(n_genes, dtype=bool)
    is_marker[markers] = True
    return ad.AnnData(
        X=sp.csr_matrix(counts.astype(np.float32)),
        obs=pd.DataFrame(
            {"class": pd.Categorical(labels)}, index=[f"cell_{i}" for i in range(n_cells)]
        ),
        var=pd.DataFrame({"is_marker": is_marker}, index=[f"gene_{i}" for i in range(n_genes)]),
    )


DATASET = Dataset(
    name="toy_xor",
    title="simulated: class A if three binary marker genes agree, else B",
    origin="simulated by mmlab after the toy example of Gregory et al. 2024, seed 0",
    license="MIT",
    n_cells=N_CELLS,
    n_genes=N_GENES,
    n_classes=2,
    label_key="class",
    normalization="none",
    load=simulate,
    notes=(
        "Select 3 markers. No single gene is informative: methods that score single genes fail.",
    ),
    simulated=True,
)
