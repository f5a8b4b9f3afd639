"""Options that constrain the panels of a command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mmlab.cli.gene_files import read_genes, read_table, to_group, to_weight
from mmlab.cli.help_panels import CONSTRAINTS
from mmlab.errors import UserError


def constraint_options(
    include: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|GENE,GENE",
            help="Genes that every panel must include: A,B,C or a FILE with one gene per line.",
            rich_help_panel=CONSTRAINTS,
        ),
    ] = None,
    exclude: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|GENE,GENE",
            help="Genes that no panel may include: A,B,C or a FILE with one gene per line.",
            rich_help_panel=CONSTRAINTS,
        ),
    ] = None,
    groups: Annotated[
        Path | None,
        typer.Option(
            help="CSV file with the columns gene and group (e.g. gene families); with "
            "--max-per-group.",
            rich_help_panel=CONSTRAINTS,
        ),
    ] = None,
    max_per_group: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum number of genes per group.", rich_help_panel=CONSTRAINTS),
    ] = None,
    max_mean_counts: Annotated[
        float | None,
        typer.Option(
            help="Maximum mean of a gene's raw counts over the training cells, against optical "
            "crowding in imaging.",
            rich_help_panel=CONSTRAINTS,
        ),
    ] = None,
    min_per_type: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Minimum number of panel genes that are markers of each cell type: highest in "
            "it, with a mean log1p expression at least log(2) above that of all other cells.",
            rich_help_panel=CONSTRAINTS,
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="CSV file with the columns gene and weight: the priority of a gene, 1 by "
            "default; 0 excludes it.",
            rich_help_panel=CONSTRAINTS,
        ),
    ] = None,
) -> dict[str, Any]:
    """Return the fields ``include``, ``exclude`` and ``constraints`` of a specification.

    Raises
    ------
    UserError
        A file that cannot be read, with all its mistakes; a list of no gene; or only one of
        --groups and --max-per-group.
    """
    if (groups is None) != (max_per_group is None):
        raise UserError("--groups and --max-per-group go together: give both, or neither.")
    constraints: dict[str, Any] = {
        "max_per_group": max_per_group,
        "max_mean_counts": max_mean_counts,
        "min_per_type": min_per_type,
    }
    if groups is not None:
        constraints["groups"] = read_table("--groups", groups, "group", to_group)
    if weights is not None:
        constraints["weights"] = read_table("--weights", weights, "weight", to_weight)
    return {
        "include": read_genes("--include", include),
        "exclude": read_genes("--exclude", exclude),
        "constraints": {name: value for name, value in constraints.items() if value is not None},
    }
