"""Mouse brain, single nuclei, 59 types (Kleshchevnikov et al., Nat Biotechnol 2022)."""

from __future__ import annotations

from functools import partial

from mmlab.datasets.description import Dataset
from mmlab.datasets.mouse_brain import LABEL_LEAKAGE, LICENSE, ORIGIN, SOURCES, load

DATASET = Dataset(
    name="mouse_brain_subtypes",
    title="mouse brain nuclei, 59 types (Kleshchevnikov 2022)",
    origin=ORIGIN,
    license=LICENSE,
    n_cells=40532,
    n_genes=7115,
    n_classes=59,
    label_key="cell_type",
    normalization="total",
    load=partial(load, types="fine"),
    sources=SOURCES,
    notes=(LABEL_LEAKAGE,),
)
