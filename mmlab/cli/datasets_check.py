"""`mmlab datasets check`: whether a file can be used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmlab.cli.console import print_json, print_text
from mmlab.cli.file_options import (
    LabelKeyOption,
    LayerOption,
    file_options,
    label_key_error,
)
from mmlab.cli.option_names import parse_options
from mmlab.cli.shared_options import JsonOption, shared, with_shared_options
from mmlab.errors import UserError, join_problems

if TYPE_CHECKING:
    from mmlab.datasets.io.counts import FileCheck


@with_shared_options
def check(
    file: Annotated[Path, typer.Argument(help="An .h5ad file or AnnData .zarr with raw counts.")],
    label_key: LabelKeyOption = None,
    layer: LayerOption = None,
    file_fields: dict[str, Any] = shared(file_options),
    as_json: JsonOption = False,
) -> None:
    """Check whether your own file can be used."""
    from dataclasses import asdict

    from mmlab.datasets import DATASETS
    from mmlab.datasets.cache.records import find_record
    from mmlab.datasets.io.counts import check_file
    from mmlab.spec.trial import FileOptions

    if not file.exists() and (str(file) in DATASETS or find_record(str(file)) is not None):
        raise UserError(
            f"{file} is a dataset of mmlab, not a file, and needs no check: see "
            f"`mmlab datasets info {file}`."
        )
    if label_key is None:
        raise label_key_error(str(file), file)
    options = parse_options(FileOptions, file_fields)
    checked = check_file(str(file), label_key, layer, options)
    if as_json:
        print_json({"file": str(file), "usable": not checked.problems} | asdict(checked))
    else:
        _print_check(checked, file, label_key)
    if checked.problems:
        raise UserError(f"{file} cannot be used: {join_problems(checked.problems)}")


def _print_check(checked: FileCheck, file: Path, label_key: str) -> None:
    if checked.n_cells is not None:
        counts = f"counts in {checked.counts_in}" if checked.counts_in else "no counts"
        types = "no" if checked.n_classes is None else checked.n_classes
        print_text(
            f"{file}: {checked.n_cells} cells x {checked.n_genes} genes, {types} cell types in "
            f"obs[{label_key!r}], {counts}"
        )
    if checked.warnings:
        print_text("warnings:")
        print_text("\n".join(f"  - {sentence}" for sentence in checked.warnings))
    if not checked.problems:
        print_text(f"{file} can be used.")
