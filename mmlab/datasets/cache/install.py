"""Add datasets to the cache: download and convert, simulate, or import an ``.h5ad`` file."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd

from mmlab.datasets.cache.cache_paths import cache_folder, downloads_folder
from mmlab.datasets.cache.cached_counts import write_dataset
from mmlab.datasets.cache.download import download, verify_checksum
from mmlab.datasets.cache.records import CacheRecord, dataset_lock, find_record
from mmlab.datasets.cache.transfer_progress import cell_progress
from mmlab.datasets.cells import gene_table, make_cells
from mmlab.datasets.description import Dataset, Description
from mmlab.datasets.io.checks import find_problems
from mmlab.datasets.io.counts import open_counts
from mmlab.datasets.remote_files import RemoteFile
from mmlab.datasets.simulation import BLOCK_CELLS, DEFAULT_DENSITY, Simulation
from mmlab.errors import UserError, join_problems
from mmlab.spec.trial import DEFAULT_OPTIONS, FileOptions
from mmlab.system.files import existing_folder
from mmlab.system.memory import available_memory

#: Environment variable; nothing is downloaded if it is 1.
OFFLINE_VARIABLE = "MMLAB_OFFLINE"
_ASSUMED_DENSITY = (
    "The share of counts above 0, {0.density}, is assumed: {0.like} is not on this machine. To use "
    "its own share, fetch it, remove this simulated dataset and simulate it again."
)


def fetch_dataset(dataset: Dataset, source: str | None = None) -> CacheRecord:
    """Return the record of a dataset; download and convert it first if it is not in the cache.

    Parameters
    ----------
    dataset
        A dataset with ``sources``.
    source
        A folder with files that were downloaded by hand, or the URL of a mirror.

    Raises
    ------
    UserError
        A file cannot be downloaded or read, or its checksum is wrong. The message explains
        how to download it by hand.
    """
    with dataset_lock(dataset.name, f"another process is fetching {dataset.name}: waiting for it"):
        record = find_record(dataset.name)
        if record is not None:
            return record
        files: dict[str, Path] = {}
        checksums: dict[str, str] = {}
        missing = []
        for remote in dataset.sources:
            try:
                files[remote.name] = _local_file(remote, source)
            except UserError as error:
                if not remote.optional:
                    raise UserError(f"{error} {_download_by_hand(dataset)}") from error
                missing.append(remote.name)
                continue
            path = files[remote.name]
            checksums[remote.name] = verify_checksum(remote, path, downloads_folder(), str(path))
        return _convert(dataset, files, checksums, missing)


def simulate_dataset(
    original: Dataset,
    name: str,
    *,
    n_cells: int | None = None,
    n_genes: int | None = None,
    density: float | None = None,
    seed: int = 0,
) -> CacheRecord:
    """Return the record of a simulated dataset; simulate it first if it is not in the cache.

    Parameters
    ----------
    original
        The dataset whose sizes are used by default. The share of counts above 0 is measured on its
        counts if they are on this machine.
    name
        Name of the simulated dataset.
    n_cells, n_genes, density
        Sizes and share of counts above 0 that replace those of the original.
    seed
        Seed of the simulation; see :mod:`mmlab.datasets.simulation`.
    """
    with dataset_lock(name, f"another process is simulating {name}: waiting for it"):
        record = find_record(name)
        if record is not None:
            return record
        measured = _measure_density(original)
        simulation = Simulation(
            like=original.name,
            n_cells=n_cells or original.n_cells,
            n_genes=n_genes or original.n_genes,
            n_types=original.n_classes,
            density=density or measured or DEFAULT_DENSITY,
            seed=seed,
        )
        _require_space(simulation)
        description = simulation.description(name)
        if not density and not measured:
            note = _ASSUMED_DENSITY.format(simulation)
            description = replace(description, notes=(*description.notes, note))
        blocks = cell_progress(simulation.blocks(), simulation.n_cells, f"simulating {name}")
        return write_dataset(description, blocks, simulation.obs(), simulation.var(), {})


def _require_space(simulation: Simulation) -> None:
    """Raise ``UserError`` if a simulation needs more disk space or memory than there is."""
    cells, genes = simulation.n_cells, simulation.n_genes
    # A count is stored as an index and a value of 4 bytes each. A block of cells is drawn as dense
    # arrays of 24 bytes per count; a cell has a name and a label.
    disk = 8 * cells * genes * simulation.density + 100 * cells
    dense = 24 * min(cells, BLOCK_CELLS) * genes + 8 * simulation.n_types * genes
    spaces = {
        "disk space": (disk, shutil.disk_usage(existing_folder(cache_folder())).free),
        "memory": (dense + 200 * cells, available_memory()),
    }
    for kind, (needed, free) in spaces.items():
        if needed > free:
            raise UserError(
                f"{cells} cells x {genes} genes with a density of {simulation.density:g} need "
                f"about {needed / 1e9:.3g} GB of {kind}, but {free / 1e9:.3g} GB are free. Lower "
                "--cells, --genes or --density."
            )


def add_dataset(
    path: Path, label_key: str, layer: str | None, name: str, options: FileOptions = DEFAULT_OPTIONS
) -> CacheRecord:
    """Check the cells of an ``.h5ad`` file and copy them to the cache under a name.

    The file is not needed afterwards. Counts are streamed: they may be larger than memory.

    Raises
    ------
    UserError
        The file cannot be used, or a dataset with this name exists.
    """
    with (
        dataset_lock(name, f"another process is adding {name}: waiting for it"),
        open_counts(str(path), label_key, layer, options) as counts,
    ):
        if find_record(name) is not None:
            raise UserError(
                f"a dataset {name} exists already: choose another name, or remove it with: "
                f"mmlab datasets remove {name}."
            )
        n_cells, n_genes = len(counts.cell_names), len(counts.gene_names)
        description = Description(
            name=name,
            title=f"added from {path.name}",
            origin=f"file {path.name}, counts in {counts.location}",
            license="that of the file",
            n_cells=n_cells,
            n_genes=n_genes,
            n_classes=counts.labels.nunique(),
            label_key=label_key,
            normalization="total",
            notes=counts.notes,
        )
        obs = pd.DataFrame({label_key: counts.labels})
        var = gene_table(counts.gene_names, counts.gene_ids)
        blocks = cell_progress(counts.blocks(), n_cells, f"adding {name}")
        return write_dataset(description, blocks, obs, var, {})


def _measure_density(original: Dataset) -> float | None:
    """Return the share of counts above 0; None if the counts are not on this machine."""
    if not original.sources:
        counts = original.load().X
        return float(counts.nnz / (counts.shape[0] * counts.shape[1]))
    record = find_record(original.name)
    return None if record is None else record.density


def _convert(
    dataset: Dataset, files: dict[str, Path], checksums: dict[str, str], missing: list[str]
) -> CacheRecord:
    """Load a dataset from its files, check it and write it to the cache.

    ``missing`` has the names of optional files that could not be downloaded.
    """
    try:
        adata = dataset.load(files)
    except UserError:
        raise
    except Exception as error:  # the readers of other file formats raise many types
        detail = " ".join(str(error).split()).rstrip(".")
        names = ", ".join(files)
        raise UserError(
            f"{dataset.name} cannot be converted from {names}: {type(error).__name__}: {detail}."
        ) from error
    problems = find_problems(adata, dataset.label_key)
    if problems:
        raise UserError(f"{dataset.name}, as downloaded, cannot be used: {join_problems(problems)}")
    notes = dataset.notes
    if missing:
        listed = ", ".join(missing)
        notes = (
            *notes,
            f"{listed} could not be downloaded: genes on these lists are not filtered out.",
        )
    found = (adata.n_obs, adata.n_vars, adata.obs[dataset.label_key].nunique())
    published = (dataset.n_cells, dataset.n_genes, dataset.n_classes)
    if found != published:
        sizes = "{} cells x {} genes, {} types"
        notes = (*notes, f"It has {sizes.format(*found)}; published: {sizes.format(*published)}.")
    cells = make_cells(
        adata,
        dataset.label_key,
        name=dataset.name,
        normalization=dataset.normalization,
        origin=dataset.origin,
    )
    stored = replace(dataset, notes=notes)
    return write_dataset(stored, [cells.adata.X], cells.adata.obs, cells.adata.var, checksums)


def _local_file(remote: RemoteFile, source: str | None) -> Path:
    """Return the path of a file in the user's folder, or download it from a mirror or its URLs."""
    if source is not None and not source.startswith(("http://", "https://")):
        path = Path(source) / remote.name
        if not path.is_file():
            raise UserError(f"--source {source} has no file {remote.name}.")
        return path
    downloaded = downloads_folder() / remote.name
    if os.environ.get(OFFLINE_VARIABLE) == "1" and not downloaded.is_file():
        raise UserError(
            f"{remote.name} is not on this machine, and downloads are disabled (offline)."
        )
    return download(remote, downloads_folder(), source)


def _download_by_hand(dataset: Dataset) -> str:
    files = "; ".join(f"{remote.urls[0]} as {remote.name}" for remote in dataset.sources)
    return (
        f"To download by hand, save {files} in a folder, then run: mmlab datasets fetch "
        f"{dataset.name} --source FOLDER."
    )
