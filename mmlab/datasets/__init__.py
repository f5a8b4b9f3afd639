"""Datasets by name, and any ``.h5ad`` of the user's: raw counts and labels, checked."""

from __future__ import annotations

from pathlib import Path

import anndata as ad

from mmlab.config import DataSpec
from mmlab.datasets import citeseq, pbmc68k_reduced, toy_xor, zeisel, zeisel_subtypes
from mmlab.datasets.base import Cells, Dataset, make_cells
from mmlab.datasets.check import require_usable
from mmlab.errors import UserError, unknown_name

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


def read_h5ad(path: str) -> ad.AnnData:
    """Read an ``.h5ad`` file.

    Raises
    ------
    UserError
        The file is missing, a directory, or not a readable ``.h5ad``.
    """
    if not Path(path).is_file():
        raise UserError(f"{path} is not a file; an .h5ad file is needed.")
    try:
        adata: ad.AnnData = ad.read_h5ad(path)
    except Exception as error:  # whatever h5py and the readers of anndata raise
        detail = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read as .h5ad: {detail}.") from error
    return adata


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
    adata = require_usable(read_h5ad(path), label_key, data.layer, path)
    return make_cells(
        adata, label_key, name=data.title, normalization="total", origin=f"file {path}"
    )
