"""Bring a dataset to this machine: download and convert it, simulate it, or add a file."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pandas as pd

from mmlab.datasets.cache.cache_paths import downloads_folder
from mmlab.datasets.cache.download import download, verify_checksum
from mmlab.datasets.cache.records import CacheRecord, dataset_lock, find_record, write_dataset
from mmlab.datasets.cache.transfer_progress import cell_progress
from mmlab.datasets.cells import make_cells
from mmlab.datasets.description import Dataset, Description
from mmlab.datasets.io.checks import find_problems
from mmlab.datasets.io.counts import open_counts
from mmlab.datasets.remote_files import RemoteFile
from mmlab.datasets.simulation import DENSITY, Simulation
from mmlab.errors import UserError

#: Set to 1, nothing is downloaded.
OFFLINE_VARIABLE = "MMLAB_OFFLINE"
_ASSUMED = (
    "The share of counts above 0, {0.density}, is assumed: {0.like} is not on this machine, and "
    "once it is there its own is taken."
)


def fetch_dataset(dataset: Dataset, source: str | None = None) -> CacheRecord:
    """The dataset, downloaded and converted unless it is there.

    Parameters
    ----------
    dataset
        One with ``sources``.
    source
        A folder with files that were downloaded by hand, or the address of a mirror.

    Raises
    ------
    UserError
        A file cannot be had, or is not what it should be; how to get it by hand is said.
    """
    with dataset_lock(dataset.name, f"another process is fetching {dataset.name}: waiting for it"):
        record = find_record(dataset.name)
        if record is not None:
            return record
        files: dict[str, Path] = {}
        checksums: dict[str, str] = {}
        missing = []
        for wanted in dataset.sources:
            try:
                files[wanted.file] = _obtain(wanted, source)
            except UserError as error:
                if not wanted.optional:
                    raise UserError(f"{error} {_by_hand(dataset)}") from error
                missing.append(wanted.file)
                continue
            folder, what = downloads_folder(), str(files[wanted.file])
            checksums[wanted.file] = verify_checksum(wanted, files[wanted.file], folder, what)
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
    """A stand-in of a dataset, see :mod:`mmlab.datasets.simulation`, unless the name is there.

    Parameters
    ----------
    original
        What it stands in for. The share of counts above 0 is that of its counts, where they are on
        this machine.
    name
        Of the stand-in.
    n_cells, n_genes, density, seed
        Other values than the original's.
    """
    with dataset_lock(name, f"another process is simulating {name}: waiting for it"):
        record = find_record(name)
        if record is not None:
            return record
        measured = _density(original)
        what = Simulation(
            like=original.name,
            n_cells=n_cells or original.n_cells,
            n_genes=n_genes or original.n_genes,
            n_types=original.n_classes,
            density=density or measured or DENSITY,
            seed=seed,
        )
        about = what.description(name)
        if not density and not measured:
            about = replace(about, notes=(*about.notes, _ASSUMED.format(what)))
        blocks = cell_progress(what.blocks(), what.n_cells, f"simulating {name}")
        return write_dataset(about, blocks, what.obs(), what.var(), {})


def add_dataset(path: Path, label_key: str, layer: str | None, name: str) -> CacheRecord:
    """The cells of an ``.h5ad`` file, checked and kept under a name; the file is not needed then.

    Counts are streamed: more of them than memory holds can be added.

    Raises
    ------
    UserError
        The file cannot be used, or there is a dataset of this name.
    """
    with (
        dataset_lock(name, f"another process is adding {name}: waiting for it"),
        open_counts(str(path), label_key, layer) as counts,
    ):
        if find_record(name) is not None:
            raise UserError(
                f"a dataset {name} is there already: choose another name, or free this one with: "
                f"mmlab datasets remove {name}."
            )
        n_cells, n_genes = len(counts.cells), len(counts.genes)
        about = Description(
            name=name,
            title=f"added from {path.name}",
            origin=f"file {path.name}, counts in {counts.place}",
            license="that of the file",
            n_cells=n_cells,
            n_genes=n_genes,
            n_classes=counts.labels.nunique(),
            label_key=label_key,
            normalization="total",
        )
        obs = pd.DataFrame({label_key: counts.labels})
        var = pd.DataFrame(index=counts.genes)
        blocks = cell_progress(counts.blocks(), n_cells, f"adding {name}")
        return write_dataset(about, blocks, obs, var, {})


def _density(original: Dataset) -> float | None:
    """Share of the original's counts above 0, where they are on this machine."""
    if not original.sources:
        counts = original.load().X
        return float(counts.nnz / (counts.shape[0] * counts.shape[1]))
    record = find_record(original.name)
    return None if record is None else record.density


def _convert(
    dataset: Dataset, files: dict[str, Path], checksums: dict[str, str], missing: list[str]
) -> CacheRecord:
    try:
        adata = dataset.load(files)
    except UserError:
        raise
    except Exception as error:  # whatever the readers of a file in another format raise
        detail = " ".join(str(error).split()).rstrip(".")
        names = ", ".join(files)
        raise UserError(
            f"{dataset.name} cannot be made from {names}: {type(error).__name__}: {detail}."
        ) from error
    problems = find_problems(adata, dataset.label_key)
    if problems:
        raise UserError(f"{dataset.name}, as downloaded: {'; '.join(problems)}.")
    notes = dataset.notes
    if missing:
        notes = (*notes, f"{', '.join(missing)} could not be had: these genes are still in.")
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


def _obtain(wanted: RemoteFile, source: str | None) -> Path:
    """A file from a folder of the user's, from a mirror, or from its own address."""
    if source is not None and not source.startswith(("http://", "https://")):
        path = Path(source) / wanted.file
        if not path.is_file():
            raise UserError(f"--source {source} has no file {wanted.file}.")
        return path
    here = downloads_folder() / wanted.file
    if os.environ.get(OFFLINE_VARIABLE) == "1" and not here.is_file():
        raise UserError(f"{wanted.file} is not on this machine, and nothing is downloaded offline.")
    return download(wanted, downloads_folder(), source)


def _by_hand(dataset: Dataset) -> str:
    files = "; ".join(f"{source.addresses[0]} as {source.file}" for source in dataset.sources)
    return (
        f"By hand: save {files} in a folder, then run: mmlab datasets fetch {dataset.name} "
        "--source FOLDER."
    )
