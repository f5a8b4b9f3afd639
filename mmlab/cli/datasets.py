"""`mmlab datasets`: what data there are, and whether a file can be used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmlab.cli.options import JsonOption, print_json, stdout
from mmlab.errors import UserError

if TYPE_CHECKING:
    from mmlab.datasets.counts import Checked

app = typer.Typer(help="The datasets, and a check of your own file.", no_args_is_help=True)


@app.command("list")
def list_datasets(as_json: JsonOption = False) -> None:
    """List the datasets."""
    from rich.table import Table

    from mmlab.datasets import DATASETS

    if as_json:
        print_json([{"name": d.name, "title": d.title} for d in DATASETS.values()])
        return
    table = Table(box=None, header_style="bold")
    table.add_column("name")
    for column in ("cells", "genes", "types"):
        table.add_column(column, justify="right")
    table.add_column("what")
    for d in DATASETS.values():
        table.add_row(d.name, str(d.n_cells), str(d.n_genes), str(d.n_classes), d.title)
    stdout().print(table)


@app.command()
def info(
    name: Annotated[str, typer.Argument(help="A name of `mmlab datasets list`.")],
    as_json: JsonOption = False,
) -> None:
    """Tell where a dataset comes from and what is in it."""
    from mmlab.config import DataSpec
    from mmlab.datasets import get_dataset, load_cells

    dataset = get_dataset(name)
    cells = load_cells(DataSpec(name=name))
    sizes = cells.adata.obs[cells.label_key].value_counts()
    content = {
        "name": dataset.name,
        "title": dataset.title,
        "origin": dataset.origin,
        "license": dataset.license,
        "cells": dataset.n_cells,
        "genes": dataset.n_genes,
        "types": {str(label): int(size) for label, size in sizes.items()},
        "label_key": dataset.label_key,
        "normalization": dataset.normalization,
        "simulated": dataset.simulated,
        "fingerprint": cells.fingerprint,
        "notes": list(dataset.notes),
    }
    if as_json:
        print_json(content)
        return
    types = ", ".join(f"{label} {size}" for label, size in sizes.items())
    lines = [
        f"{dataset.name}: {dataset.title}",
        f"  {dataset.n_cells} cells x {dataset.n_genes} genes, {dataset.n_classes} types "
        f"in obs[{dataset.label_key!r}]",
        f"  types: {types}",
        f"  origin: {dataset.origin}",
        f"  license: {dataset.license}",
        f"  fingerprint: {cells.fingerprint}",
        *(f"  note: {note}" for note in dataset.notes),
    ]
    print("\n".join(lines))


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="An .h5ad file.")],
    label_key: Annotated[str, typer.Option(help="The obs column of the cell types.")],
    layer: Annotated[
        str | None, typer.Option(help="Where the counts are: a layer, X or raw; default: found.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell everything that keeps a file from being used, and everything that looks odd."""
    from dataclasses import asdict

    from mmlab.datasets.counts import check_file

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


def _print_check(checked: Checked, file: Path, label_key: str) -> None:
    if checked.n_cells is not None:
        place = checked.counts_in or "no place"
        classes = "no" if checked.n_classes is None else checked.n_classes
        print(
            f"{file}: {checked.n_cells} cells x {checked.n_genes} genes, {classes} classes in "
            f"obs[{label_key!r}], counts in {place}"
        )
    for title, sentences in (("wrong", checked.problems), ("odd", checked.oddities)):
        if sentences:
            print(f"{title}:")
            print("\n".join(f"  - {sentence}" for sentence in sentences))
    if not checked.problems:
        print(f"{file} can be used.")
