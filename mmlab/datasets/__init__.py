"""Datasets by name, and any ``.h5ad`` of the user's: raw counts and labels, checked."""

from __future__ import annotations

import re
from pathlib import Path

from mmlab.datasets import (
    citeseq,
    mouse_brain,
    mouse_brain_all_genes,
    mouse_brain_subtypes,
    paul,
    pbmc68k_reduced,
    ssv4,
    toy_xor,
    zeisel,
    zeisel_subtypes,
)
from mmlab.datasets.cache.install import add_dataset, fetch_dataset, simulate_dataset
from mmlab.datasets.cache.records import CacheRecord, find_record, open_cells, records
from mmlab.datasets.cells import Cells, make_cells
from mmlab.datasets.description import Dataset
from mmlab.datasets.io.counts import open_counts
from mmlab.datasets.simulation import SIMULATED_SUFFIX
from mmlab.errors import UserError, unknown_name
from mmlab.spec.trial import DataSpec

DATASETS: dict[str, Dataset] = {
    "zeisel": zeisel.DATASET,
    "zeisel_subtypes": zeisel_subtypes.DATASET,
    "citeseq": citeseq.DATASET,
    "paul": paul.DATASET,
    "mouse_brain": mouse_brain.DATASET,
    "mouse_brain_subtypes": mouse_brain_subtypes.DATASET,
    "mouse_brain_all_genes": mouse_brain_all_genes.DATASET,
    "ssv4": ssv4.DATASET,
    "pbmc68k_reduced": pbmc68k_reduced.DATASET,
    "toy_xor": toy_xor.DATASET,
}


def get_dataset(name: str) -> Dataset:
    """Description of a dataset that mmlab knows; an unknown name lists the known ones."""
    if name not in DATASETS:
        raise unknown_name("dataset", name, DATASETS)
    return DATASETS[name]


def ensure_dataset(name: str) -> CacheRecord | None:
    """What the store has under a name, brought there if need be; None for a packaged dataset.

    Downloads are said on stderr. A stand-in, ``NAME_simulated``, is made.

    Raises
    ------
    UserError
        Unknown name, or the dataset cannot be had.
    """
    record = find_record(name)
    if record is not None:
        return record
    original = name.removesuffix(SIMULATED_SUFFIX)
    if original != name and original in DATASETS:
        return simulate_dataset(DATASETS[original], name)
    if name not in DATASETS:
        raise unknown_name("dataset", name, [*DATASETS, *records()])
    return fetch_dataset(DATASETS[name]) if DATASETS[name].sources else None


def add_file(path: Path, label_key: str, layer: str | None, name: str) -> CacheRecord:
    """Keep the cells of an ``.h5ad`` file under a name; see :func:`mmlab.datasets.cache.install.add_dataset`.

    Raises
    ------
    UserError
        The file cannot be used, or the name not: it is taken, or is more than letters, digits and
        ``_.-``.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise UserError(
            f"{name!r} cannot be the name of a dataset: letters, digits, _ . and - can, and a "
            "letter or a digit comes first."
        )
    if name in DATASETS or name.endswith(SIMULATED_SUFFIX):
        raise UserError(f"{name} is a name that mmlab has given: choose another one.")
    return add_dataset(path, label_key, layer, name)


def is_simulated(name: str) -> bool:
    """Whether the cells of a name are, or would be, simulated: their markers are known."""
    known = find_record(name) or DATASETS.get(name)
    return name.endswith(SIMULATED_SUFFIX) if known is None else known.simulated


def load_cells(data: DataSpec) -> Cells:
    """Load and check what a specification names; a dataset that is not there is fetched first.

    Raises
    ------
    UserError
        Unknown dataset, unreadable file, or data that cannot be used: all problems at once.
    """
    if data.name is not None:
        record = ensure_dataset(data.name)
        if record is not None:
            return open_cells(record)
        dataset = DATASETS[data.name]
        return make_cells(
            dataset.load(),
            dataset.label_key,
            name=dataset.name,
            normalization=dataset.normalization,
            origin=dataset.origin,
            simulated=dataset.simulated,
            notes=dataset.notes,
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
