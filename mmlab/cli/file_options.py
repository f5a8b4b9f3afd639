"""Options of a user's file: which cells are used, and how genes are named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mmlab.cli.help_panels import DATA

if TYPE_CHECKING:
    from mmlab.spec.trial import FileOptions

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
        help="Leave out the cells of the file without a label (empty, NaN, NA, None).",
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


def file_options(
    min_cells_per_type: int | None, drop_unlabelled: bool, gene_names: str | None
) -> FileOptions:
    """Return which cells of a file are used, and how its genes are named."""
    from mmlab.spec.trial import FileOptions
    from mmlab.spec.yaml import parse_spec

    content = {
        "min_cells_per_type": min_cells_per_type,
        "drop_unlabelled": drop_unlabelled,
        "gene_names": gene_names,
    }
    return parse_spec(FileOptions, content, "options")
