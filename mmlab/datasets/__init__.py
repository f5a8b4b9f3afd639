"""Datasets by name, and the user's own ``.h5ad`` files: checked raw counts and labels.

A new dataset is a module in this package, which defines ``DATASET``, and one line in
:data:`DATASETS`.
"""

from __future__ import annotations

import functools
import sys
from importlib import import_module
from pathlib import Path

from mmlab.datasets.cache.cached_counts import open_cells
from mmlab.datasets.cache.install import add_dataset, fetch_dataset, simulate_dataset
from mmlab.datasets.cache.records import CacheRecord, find_record, list_records
from mmlab.datasets.cache.removal import discard_damaged
from mmlab.datasets.cells import Cells, make_cells
from mmlab.datasets.description import Dataset
from mmlab.datasets.io.checks import count_kept_cells
from mmlab.datasets.io.counts import open_counts
from mmlab.datasets.io.open_source import open_source
from mmlab.datasets.simulation import SIMULATED_SUFFIX
from mmlab.errors import UserError, unknown_name
from mmlab.spec.names import check_name
from mmlab.spec.trial import DEFAULT_OPTIONS, DataSpec, FileOptions

#: The registry, in the order of tables: a dataset has the name of its module.
DATASETS: dict[str, Dataset] = {
    name: import_module(f"{__name__}.{name}").DATASET
    for name in (
        "zeisel",
        "zeisel_subtypes",
        "citeseq",
        "baron_pancreas",
        "paul",
        "mouse_brain",
        "mouse_brain_subtypes",
        "mouse_brain_all_genes",
        "ssv4",
        "pbmc68k_reduced",
        "toy_xor",
    )
}


def get_dataset(name: str) -> Dataset:
    """Return the description of a dataset; the error for an unknown name lists the known ones."""
    if name not in DATASETS:
        raise unknown_name("dataset", name, DATASETS)
    return DATASETS[name]


def ensure_dataset(name: str) -> CacheRecord | None:
    """Return the cache record of a dataset, which is fetched first if it is not cached.

    A dataset inside the package has no record: None. ``NAME_simulated`` is simulated. Downloads
    are announced on stderr.

    Raises
    ------
    UserError
        Unknown name, or the dataset cannot be downloaded.
    """
    record = find_record(name)
    if record is not None:
        return record
    original = name.removesuffix(SIMULATED_SUFFIX)
    if original != name and original in DATASETS:
        return simulate_dataset(DATASETS[original], name)
    if name not in DATASETS:
        raise unknown_name("dataset", name, [*DATASETS, *list_records()])
    return fetch_dataset(DATASETS[name]) if DATASETS[name].sources else None


def add_file(
    path: Path, label_key: str, layer: str | None, name: str, options: FileOptions = DEFAULT_OPTIONS
) -> CacheRecord:
    """Add the cells of an ``.h5ad`` file to the cache under a name.

    Raises
    ------
    UserError
        The file cannot be used, or the name is taken or holds other characters than letters,
        digits and ``_.-``.
    """
    check_name(name, "dataset")
    if name in DATASETS or name.endswith(SIMULATED_SUFFIX):
        raise UserError(f"{name} is the name of a dataset of mmlab: choose another name.")
    return add_dataset(path, label_key, layer, name, options)


def is_simulated(name: str) -> bool:
    """Return whether a dataset is simulated, so that its true markers are known."""
    known = find_record(name) or DATASETS.get(name)
    return name.endswith(SIMULATED_SUFFIX) if known is None else known.simulated


def count_cells(data: DataSpec) -> int:
    """Return the number of cells that a specification names; no counts are read.

    A missing dataset is fetched first.

    Raises
    ------
    UserError
        Unknown dataset, or a file that is not ``.h5ad``.
    """
    if data.name is not None:
        return (ensure_dataset(data.name) or DATASETS[data.name]).n_cells
    with open_source(str(data.path)) as source:
        return count_kept_cells(source, str(data.label_key), data)


def load_cells(data: DataSpec) -> Cells:
    """Load and check the cells that a specification names; a missing dataset is fetched first.

    So is a dataset whose counts in the cache are damaged, if it was fetched before. Left-out cells
    of a file, and its odd labels and genes, are named on stderr, once per process.

    Raises
    ------
    UserError
        Unknown dataset, unreadable file, or data that cannot be used: all problems at once.
    """
    if data.name is not None:
        record = ensure_dataset(data.name)
        dataset = DATASETS.get(data.name)
        # A dataset that was added or simulated here cannot be fetched again: open_cells refuses it.
        if record is not None and dataset is not None and discard_damaged(record):
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
    with open_counts(path, label_key, data.layer, data, in_memory=True) as counts:
        adata = counts.load(label_key)
    for note in counts.notes:
        _print_once(f"{path}: {note}")
    return make_cells(
        adata,
        label_key,
        name=data.title,
        normalization="total",
        origin=f"file {path}, counts in {counts.location}",
        notes=counts.notes,
        gene_ids=counts.gene_ids,
        copy=False,
    )


@functools.cache
def _print_once(message: str) -> None:
    print(message, file=sys.stderr)
