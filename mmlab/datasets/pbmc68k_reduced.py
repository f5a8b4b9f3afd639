"""Peripheral blood mononuclear cells, 10 types; the sample included in scanpy (Zheng 2017)."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from mmlab.datasets.description import Dataset


def load() -> ad.AnnData:
    """Return raw counts, recovered from the log-normalised values of scanpy's data file.

    The file has ``log1p(counts * 1e4 / n_counts)`` and ``n_counts``, both rounded. The inverse of
    the two steps is within 0.1 of an integer, which is the count.
    """
    import scanpy as sc

    source = sc.datasets.pbmc68k_reduced()
    log_values = source.raw.X.tocoo()
    per_cell = source.obs["n_counts"].to_numpy(dtype=float)[log_values.row] / 1e4
    counts = np.rint(np.expm1(log_values.data.astype(float)) * per_cell)
    return ad.AnnData(
        X=sp.csr_matrix((counts, (log_values.row, log_values.col)), shape=log_values.shape),
        obs=source.obs[["bulk_labels"]].copy(),
        var=pd.DataFrame(index=source.raw.var_names),
    )


DATASET = Dataset(
    name="pbmc68k_reduced",
    title="peripheral blood mononuclear cells, a small sample with gene names (Zheng 2017)",
    origin="Zheng et al., Nature Communications 2017; included in scanpy",
    license="BSD-3-Clause (as packaged by scanpy)",
    n_cells=700,
    n_genes=765,
    n_classes=10,
    label_key="bulk_labels",
    normalization="total",
    load=load,
    notes=(
        "700 cells and 765 variable genes: enough for a first test, too few to compare methods.",
        "Counts are recovered from the rounded log-normalised values in scanpy.",
    ),
)
