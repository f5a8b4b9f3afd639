"""`mmlab datasets`: list, fetch, simulate, add, check and remove datasets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmlab.cli.console import print_json, print_message, print_text, stdout
from mmlab.cli.datasets_check import check
from mmlab.cli.file_options import LabelKeyOption, LayerOption, file_options, label_key_error
from mmlab.cli.help_panels import command_with_panels, help_without_command
from mmlab.cli.option_names import parse_options
from mmlab.cli.shared_options import JsonOption, OfflineOption, shared, with_shared_options
from mmlab.errors import UserError

if TYPE_CHECKING:
    from mmlab.datasets.cache.records import CacheRecord
    from mmlab.datasets.description import Dataset

app = typer.Typer(help="List, fetch, simulate, add, check and remove datasets.")
app.callback(invoke_without_command=True)(help_without_command)


@app.command("list", cls=command_with_panels("Options"))
def list_datasets(as_json: JsonOption = False) -> None:
    """List the datasets, and the disk space of those on this machine."""
    from rich.table import Table

    from mmlab.datasets import DATASETS
    from mmlab.datasets.cache.cache_paths import cache_folder, downloads_folder
    from mmlab.datasets.cache.records import list_records

    cached = list_records()
    # A cached dataset is listed with its actual size, not with the published one.
    known: dict[str, Dataset | CacheRecord] = {**DATASETS, **cached}
    rows = [_row(about) for about in known.values()]
    waiting = sum(f.stat().st_size for f in downloads_folder().glob("*") if f.is_file())
    if as_json:
        print_json({"cache": str(cache_folder()), "downloads_bytes": waiting, "datasets": rows})
        return
    table = Table(box=None, header_style="bold")
    table.add_column("name", no_wrap=True)
    for column in ("cells", "genes", "types", "on disk"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("description")
    for row in rows:
        disk = {"packaged": "packaged", "missing": "fetch"}.get(row["state"], _size(row["bytes"]))
        sizes = (str(row[key]) for key in ("n_cells", "n_genes", "n_classes"))
        table.add_row(row["name"], *sizes, disk, row["title"])
    stdout().print(table)
    downloads = f", and {_size(waiting)} of downloads" if waiting else ""
    print_message(f"cache: {cache_folder()}{downloads}")


def _row(about: Dataset | CacheRecord) -> dict[str, Any]:
    from mmlab.datasets.cache.records import CacheRecord

    keys = ("name", "title", "n_cells", "n_genes", "n_classes", "simulated")
    row = {key: getattr(about, key) for key in keys}
    if isinstance(about, CacheRecord):
        return row | {"state": "cached", "bytes": about.bytes}
    return row | {"state": "missing" if about.sources else "packaged", "bytes": 0}


@app.command(cls=command_with_panels("Options"))
def info(
    name: Annotated[str, typer.Argument(help="Name of a dataset, see `mmlab datasets list`.")],
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Describe a dataset: origin, cell types, normalisation.

    A dataset that is not on this machine is fetched first.
    """
    from mmlab.datasets import DATASETS, ensure_dataset, load_cells
    from mmlab.preprocessing.normalization import NORMALIZATIONS
    from mmlab.spec.trial import DataSpec

    about = ensure_dataset(name) or DATASETS[name]
    cells = load_cells(DataSpec(name=name))
    sizes = cells.adata.obs[cells.label_key].value_counts()
    made_from: dict[str, str] = getattr(about, "made_from", {})
    content = {
        "name": about.name,
        "title": about.title,
        "origin": about.origin,
        "license": about.license,
        "cells": about.n_cells,
        "genes": about.n_genes,
        "types": {str(label): int(size) for label, size in sizes.items()},
        "label_key": about.label_key,
        "normalization": about.normalization,
        "simulated": about.simulated,
        "fingerprint": cells.fingerprint,
        "made_from": made_from,
        "notes": list(about.notes),
    }
    if as_json:
        print_json(content)
        return
    types = ", ".join(f"{label} {size}" for label, size in sizes.items())
    lines = [
        f"{about.name}: {about.title}",
        f"  {about.n_cells} cells x {about.n_genes} genes, {about.n_classes} types "
        f"in obs[{about.label_key!r}]",
        f"  types: {types}",
        f"  origin: {about.origin}",
        f"  license: {about.license}",
        f"  normalisation: {NORMALIZATIONS[about.normalization]}; z-scores per gene, clipped at 10",
        f"  fingerprint: {cells.fingerprint}",
        *(f"  made from: {file}, sha256 {sha}" for file, sha in made_from.items()),
        *(f"  note: {note}" for note in about.notes),
    ]
    print_text("\n".join(lines))


@app.command(cls=command_with_panels("Options"))
def fetch(
    name: Annotated[str, typer.Argument(help="Name of a dataset, see `mmlab datasets list`.")],
    source: Annotated[
        str | None,
        typer.Option(help="Folder with the files downloaded by hand, or URL of a mirror."),
    ] = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Download a dataset from its original source."""
    from mmlab.datasets import get_dataset
    from mmlab.datasets.cache.install import fetch_dataset

    dataset = get_dataset(name)
    if not dataset.sources:
        raise UserError(f"{name} is part of mmlab: there is nothing to fetch.")
    _print_record(fetch_dataset(dataset, source), as_json)


@app.command(cls=command_with_panels("Options"))
def simulate(
    like: Annotated[str, typer.Option(help="Dataset whose size is simulated.")],
    cells: Annotated[
        int | None, typer.Option(min=1, help="Number of cells. Default: the same.")
    ] = None,
    genes: Annotated[
        int | None, typer.Option(min=10, help="Number of genes. Default: the same.")
    ] = None,
    density: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=0.9,
            help="Share of counts above 0. Default: that of the dataset, or 0.1 if unknown.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random numbers.")] = 0,
    name: Annotated[
        str | None, typer.Option(help="Name of the result; it must contain 'simulated'.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Simulate a dataset with known markers.

    It has the size of another dataset; the method `oracle` selects the true markers.
    """
    from mmlab.datasets import get_dataset
    from mmlab.datasets.cache.install import simulate_dataset
    from mmlab.datasets.simulation import SIMULATED_SUFFIX

    original = get_dataset(like)
    changed = {"cells": cells, "genes": genes, "density": density, "seed": seed or None}
    parts = [f"{key}{value}" for key, value in changed.items() if value is not None]
    name = name or "_".join([f"{like}{SIMULATED_SUFFIX}", *parts])
    if "simulated" not in name:
        raise UserError(
            f"--name {name} must contain the word simulated, so that nobody takes it for real data."
        )
    record = simulate_dataset(
        original, name, n_cells=cells, n_genes=genes, density=density, seed=seed
    )
    _print_record(record, as_json)


@app.command(cls=command_with_panels("Options"))
@with_shared_options
def add(
    file: Annotated[Path, typer.Argument(help="An .h5ad file or AnnData .zarr with raw counts.")],
    label_key: LabelKeyOption = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the dataset. Default: that of the file.")
    ] = None,
    layer: LayerOption = None,
    file_fields: dict[str, Any] = shared(file_options),
    as_json: JsonOption = False,
) -> None:
    """Add your own .h5ad file under a name for --dataset.

    The file is checked once; it may be larger than memory.
    """
    from mmlab.datasets import add_file
    from mmlab.spec.trial import FileOptions

    if label_key is None:
        raise label_key_error(str(file), file)
    options = parse_options(FileOptions, file_fields)
    _print_record(add_file(file, label_key, layer, name or file.stem, options), as_json)


@app.command(cls=command_with_panels("Options"))
def remove(
    name: Annotated[str, typer.Argument(help="A dataset in the cache of this machine.")],
    as_json: JsonOption = False,
) -> None:
    """Remove a dataset from the cache."""
    from mmlab.datasets.cache.removal import remove_dataset

    freed = remove_dataset(name)
    if as_json:
        print_json({"name": name, "freed_bytes": freed})
    else:
        print_text(f"{name} removed, {_size(freed)} freed")


def _print_record(record: CacheRecord, as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        print_json(asdict(record))
        return
    print_text(
        f"{record.name}: {record.n_cells} cells x {record.n_genes} genes, {record.n_classes} "
        f"types, {100 * record.density:.1f} % of the counts above 0, {_size(record.bytes)}"
    )
    for note in record.notes:
        print_text(f"  note: {note}")


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"


app.command("check", cls=command_with_panels("Options"))(check)
