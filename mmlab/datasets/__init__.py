"""Datasets by name, and any ``.h5ad`` of the user's: raw counts and labels, checked."""

from __future__ import annotations

from mmlab.config import DataSpec
from mmlab.datasets import citeseq, pbmc68k_reduced, toy_xor, zeisel, zeisel_subtypes
from mmlab.datasets.base import Cells, Dataset, make_cells
from mmlab.datasets.counts import open_counts
from mmlab.errors import unknown_name

DATASETS: dict[str, Dataset] = {
    "zeisel": zeisel.DATASET,
    "zeisel_subtypes": zeisel_subtypes.DATASET,
    "citeseq": citeseq.DATASET,
    "pbmc68k_reduced": pbmc68k_reduced.DATASET,
    "toy_xor": toy_xor.DATASET,
}


def get_dataset(name: str) -> Dataset:
    """Description of a dataset; an unknown name lists the known ones."""
    if name not in DATASETS:
        raise unknown_name("dataset", name, DATASETS)
    return DATASETS[name]


def load_cells(data: DataSpec) -> Cells:
    """Load and check what a specification names.

    Raises
    ------
    UserError
        Unknown dataset, unreadable file, or data that cannot be used: all problems at once.
    """
    if data.name is not None:
        dataset = get_dataset(data.name)
        return make_cells(
            dataset.load(),
            dataset.label_key,
            name=dataset.name,
            normalization=dataset.normalization,
            origin=dataset.origin,
            simulated=dataset.simulated,
        )
    path, label_key = str(data.path), str(data.label_key)
    with open_counts(path, label_key, data.layer, in_memory=True) as counts:
        adata, place = counts.load(label_key), counts.place
    return make_cells(
        adata,
        label_key,
        name=data.title,
        normalization="total",
        origin=f"file {path}, counts in {place}",
        copy=False,
    )
