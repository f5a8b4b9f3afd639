"""Mouse brain, single nuclei, 59 types, all genes; the paper could not train on these data."""

from __future__ import annotations

from functools import partial

from mmlab.datasets.description import Dataset
from mmlab.datasets.mouse_brain import LICENSE, ORIGIN, SOURCES, load

DATASET = Dataset(
    name="mouse_brain_all_genes",
    title="mouse brain nuclei, 59 types, no gene filter (Kleshchevnikov 2022)",
    origin=ORIGIN,
    license=LICENSE,
    n_cells=40532,
    n_genes=31053,
    n_classes=59,
    label_key="cell_type",
    normalization="total",
    load=partial(load, types="fine", all_genes=True),
    sources=SOURCES,
    notes=(
        "Not a dataset of the paper: no gene filter is applied, and counts are read from disk.",
    ),
)
