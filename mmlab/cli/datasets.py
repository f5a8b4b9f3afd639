"""`mmlab datasets`: what data there are, and whether a file can be used."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmlab.cli.options import JsonOption, print_json, stdout
from mmlab.errors import UserError

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
    layer: Annotated[str | None, typer.Option(help="The layer of the counts; default X.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell everything that keeps a file from being used."""
    from mmlab.datasets import read_h5ad
    from mmlab.datasets.check import find_problems

    problems = find_problems(read_h5ad(str(file)), label_key, layer)
    if as_json:
        print_json({"file": str(file), "usable": not problems, "problems": problems})
    if problems:
        raise UserError(f"{file}: " + "; ".join(problems) + ".")
    if not as_json:
        print(f"{file} can be used.")
