"""`mmlab datasets`: what data there are, and whether a file can be used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmlab.cli.options import JsonOption, OfflineOption, print_json, say, stdout
from mmlab.errors import UserError

if TYPE_CHECKING:
    from mmlab.datasets.cache.records import CacheRecord
    from mmlab.datasets.description import Dataset
    from mmlab.datasets.io.counts import FileCheck

app = typer.Typer(help="Fetch, simulate, add, check and list datasets.", no_args_is_help=True)


@app.command("list")
def list_datasets(as_json: JsonOption = False) -> None:
    """List the datasets, and what those on this machine take."""
    from rich.table import Table

    from mmlab.datasets import DATASETS
    from mmlab.datasets.cache.cache_paths import cache_folder, downloads_folder
    from mmlab.datasets.cache.records import records

    there = records()
    # What is here is told as it is, not as it was published.
    known: dict[str, Dataset | CacheRecord] = {**DATASETS, **there}
    rows = [_row(about) for about in known.values()]
    waiting = sum(f.stat().st_size for f in downloads_folder().glob("*") if f.is_file())
    if as_json:
        print_json({"cache": str(cache_folder()), "downloads_bytes": waiting, "datasets": rows})
        return
    table = Table(box=None, header_style="bold")
    table.add_column("name", no_wrap=True)
    for column in ("cells", "genes", "types", "here"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("what")
    for row in rows:
        here = {"packaged": "yes", "missing": "fetch"}.get(row["state"], _size(row["bytes"]))
        sizes = (str(row[key]) for key in ("n_cells", "n_genes", "n_classes"))
        table.add_row(row["name"], *sizes, here, row["title"])
    stdout().print(table)
    downloads = f", and {_size(waiting)} of downloads" if waiting else ""
    say(f"cache: {cache_folder()}{downloads}")


def _row(about: Dataset | CacheRecord) -> dict[str, Any]:
    from mmlab.datasets.cache.records import CacheRecord

    keys = ("name", "title", "n_cells", "n_genes", "n_classes", "simulated")
    row = {key: getattr(about, key) for key in keys}
    if isinstance(about, CacheRecord):
        return row | {"state": "cached", "bytes": about.bytes}
    return row | {"state": "missing" if about.sources else "packaged", "bytes": 0}


@app.command()
def info(
    name: Annotated[str, typer.Argument(help="A name of `mmlab datasets list`.")],
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Tell where a dataset comes from and what is in it.

    One that is not here is fetched.
    """
    from mmlab.datasets import DATASETS, ensure_dataset, load_cells
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
        f"  fingerprint: {cells.fingerprint}",
        *(f"  made from: {file}, sha256 {sha}" for file, sha in made_from.items()),
        *(f"  note: {note}" for note in about.notes),
    ]
    print("\n".join(lines))


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="A name of `mmlab datasets list`.")],
    source: Annotated[
        str | None,
        typer.Option(help="A folder with files downloaded by hand, or the address of a mirror."),
    ] = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Download a dataset from its original source, once."""
    from mmlab.datasets import get_dataset
    from mmlab.datasets.cache.install import fetch_dataset as bring

    dataset = get_dataset(name)
    if not dataset.sources:
        raise UserError(f"{name} comes with mmlab: there is nothing to fetch.")
    _print_record(bring(dataset, source), as_json)


@app.command()
def simulate(
    like: Annotated[str, typer.Option(help="The dataset to stand in for.")],
    cells: Annotated[int | None, typer.Option(min=1, help="Cells; default: as many.")] = None,
    genes: Annotated[int | None, typer.Option(min=10, help="Genes; default: as many.")] = None,
    density: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=0.9,
            help="Share of counts above 0; default: that of the dataset, or 0.1 if it is not here.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    name: Annotated[
        str | None, typer.Option(help="Of the simulated cells; it must hold 'simulated'.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Simulate a stand-in of a dataset's size.

    It has markers that the method `oracle` knows.
    """
    from mmlab.datasets import get_dataset
    from mmlab.datasets.cache.install import simulate_dataset as make
    from mmlab.datasets.simulation import SIMULATED_SUFFIX

    original = get_dataset(like)
    changed = {"cells": cells, "genes": genes, "density": density, "seed": seed or None}
    parts = [f"{key}{value}" for key, value in changed.items() if value is not None]
    name = name or "_".join([f"{like}{SIMULATED_SUFFIX}", *parts])
    if "simulated" not in name:
        raise UserError(f"--name {name} must hold the word simulated: nobody may take it for real.")
    record = make(original, name, n_cells=cells, n_genes=genes, density=density, seed=seed)
    _print_record(record, as_json)


@app.command()
def add(
    file: Annotated[Path, typer.Argument(help="An .h5ad file.")],
    label_key: Annotated[str, typer.Option(help="The obs column of the cell types.")],
    name: Annotated[str | None, typer.Option(help="Default: that of the file.")] = None,
    layer: Annotated[
        str | None, typer.Option(help="Where the counts are: a layer, X or raw; default: found.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Give your file a name, for --dataset.

    It is checked once, and may be of any size.
    """
    from mmlab.datasets import add_file

    _print_record(add_file(file, label_key, layer, name or file.stem), as_json)


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="A dataset that is on this machine.")],
    as_json: JsonOption = False,
) -> None:
    """Free the disk space of a dataset."""
    from mmlab.datasets.cache.records import remove_dataset as free

    freed = free(name)
    if as_json:
        print_json({"name": name, "freed_bytes": freed})
    else:
        print(f"{name} removed, {_size(freed)} freed")


def _print_record(record: CacheRecord, as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        print_json(asdict(record))
        return
    print(
        f"{record.name}: {record.n_cells} cells x {record.n_genes} genes, {record.n_classes} "
        f"types, {100 * record.density:.1f} % of the counts above 0, {_size(record.bytes)}"
    )
    for note in record.notes:
        print(f"  note: {note}")


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="An .h5ad file.")],
    label_key: Annotated[str, typer.Option(help="The obs column of the cell types.")],
    layer: Annotated[
        str | None, typer.Option(help="Where the counts are: a layer, X or raw; default: found.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell everything that is wrong or odd with your file."""
    from dataclasses import asdict

    from mmlab.datasets.io.counts import check_file

    checked = check_file(str(file), label_key, layer)
    if as_json:
        print_json({"file": str(file), "usable": not checked.problems} | asdict(checked))
    else:
        _print_check(checked, file, label_key)
    if checked.problems:
        more = len(checked.problems) - 1
        raise UserError(
            f"{file} cannot be used: {checked.problems[0]}"
            + (f" (and {more} more problems, listed above)." if more else ".")
        )


def _print_check(checked: FileCheck, file: Path, label_key: str) -> None:
    if checked.n_cells is not None:
        place = checked.counts_in or "no place"
        classes = "no" if checked.n_classes is None else checked.n_classes
        print(
            f"{file}: {checked.n_cells} cells x {checked.n_genes} genes, {classes} classes in "
            f"obs[{label_key!r}], counts in {place}"
        )
    for title, sentences in (("problems", checked.problems), ("warnings", checked.warnings)):
        if sentences:
            print(f"{title}:")
            print("\n".join(f"  - {sentence}" for sentence in sentences))
    if not checked.problems:
        print(f"{file} can be used.")
