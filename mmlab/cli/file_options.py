"""Options of a user's file: which cells are used, how genes are named, how counts are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mmlab.cli.help_panels import DATA
from mmlab.errors import UserError

#: Of the commands whose argument is a file.
LabelKeyOption = Annotated[
    str | None,
    typer.Option(
        help="The obs column that holds the cell types. Required; without it, the columns are "
        "listed."
    ),
]

LayerOption = Annotated[
    str | None,
    typer.Option(
        "--layer",
        help="Where the raw counts of the file are: a layer, X or raw. Default: detected.",
        rich_help_panel=DATA,
    ),
]
MinCellsOption = Annotated[
    int | None,
    typer.Option(
        "--min-cells-per-type",
        min=1,
        help="Leave out the cell types of the file with fewer cells than this.",
        rich_help_panel=DATA,
    ),
]
DropUnlabelledOption = Annotated[
    bool,
    typer.Option(
        "--drop-unlabelled",
        help="Leave out the cells of the file without a label (empty, NaN, NA, None). Numbers of "
        "clusters that are floats because of NaN are integers then.",
        rich_help_panel=DATA,
    ),
]
GeneNamesOption = Annotated[
    str | None,
    typer.Option(
        "--gene-names",
        metavar="COLUMN",
        help="Column of the file's var with the gene names to use, e.g. feature_name of a "
        "CELLxGENE file. Default: the index of var.",
        rich_help_panel=DATA,
    ),
]
RoundCountsOption = Annotated[
    bool,
    typer.Option(
        "--round-counts",
        help="Round fractional counts of the file to integers: ambient-corrected ones (SoupX, "
        "CellBender) and estimated ones (RSEM, salmon). Default: refuse them.",
        rich_help_panel=DATA,
    ),
]


def file_options(
    min_cells_per_type: MinCellsOption = None,
    drop_unlabelled: DropUnlabelledOption = False,
    gene_names: GeneNamesOption = None,
    round_counts: RoundCountsOption = False,
) -> dict[str, Any]:
    """Return the fields of :class:`mmlab.spec.trial.FileOptions`."""
    return {
        "min_cells_per_type": min_cells_per_type,
        "drop_unlabelled": drop_unlabelled,
        "gene_names": gene_names,
        "round_counts": round_counts,
    }


def label_key_error(what: str, file: Path) -> UserError:
    """Return the error that the label column of a file is not given, with its columns if known."""
    from mmlab.datasets.io.open_source import open_source

    try:
        with open_source(str(file)) as source:
            existing = f" (columns: {', '.join(source.obs_columns) or 'none'})"
    except UserError:
        existing = ""
    return UserError(
        f"{what} requires --label-key, the column of obs with the cell types{existing}."
    )
