"""Small simulated dataset for tests: 120 cells of three types, 40 genes, 9 true markers."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from mmlab.datasets.cells import Cells, make_cells

CLASSES = ("astrocyte", "microglia", "neuron")
#: Three marker genes per class, spread over the index so that no method finds them by position.
MARKERS = ((3, 17, 31), (5, 19, 38), (8, 22, 27))
N_CELLS, N_GENES = 120, 40

#: Parameters for a short training of MarkerMap and the other neural methods.
SMALL = {
    "max_epochs": 3,
    "min_epochs": 1,
    "hidden_size": 16,
    "batch_size": 32,
    "learning_rate": 2e-3,
    "final_temperature": 0.2,
}
#: The same, with parameters that make the other methods fast.
SMALL_OF_ALL = SMALL | {
    "n_trees": 20,
    "dense_epochs": 20,
    "path_epochs": 5,
    "path_multiplier": 1.3,
    "elimination_epochs": 2,
    "selection_epochs": 3,
}


def simulate_cells(
    n_cells: int = N_CELLS, n_genes: int = N_GENES, *, markers: Any = MARKERS, seed: int = 7
) -> ad.AnnData:
    """Simulate negative-binomial counts of mean 2; markers have mean 14 in cells of their class."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n_cells) % len(markers))
    mean = np.full((n_cells, n_genes), 2.0)
    for label, genes in enumerate(markers):
        mean[np.ix_(y == label, list(genes))] = 14.0
    dispersion = 4.0
    counts = rng.negative_binomial(dispersion, dispersion / (dispersion + mean))
    return ad.AnnData(
        X=sp.csr_matrix(counts.astype(np.float32)),
        obs=pd.DataFrame(
            {"cell_type": pd.Categorical(np.asarray(CLASSES)[y]), "donor": "d1"},
            index=[f"cell_{i}" for i in range(n_cells)],
        ),
        var=pd.DataFrame(
            {"is_marker": np.isin(np.arange(n_genes), np.concatenate(markers))},
            index=[f"Gene{i}" for i in range(n_genes)],
        ),
    )


def as_cells(adata: ad.AnnData, name: str = "tiny") -> Cells:
    return make_cells(
        adata,
        "cell_type",
        name=name,
        normalization="total",
        origin="simulated in the tests",
        simulated=True,
    )
