"""`mmlab sweep`: accuracy over the panel size, or over a parameter of the methods."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mmlab.cli.comparison import OutputOptions, output_options, run_and_print
from mmlab.cli.comparison_options import (
    MethodsOption,
    ReplicatesOption,
    SizeOption,
    comparison_spec,
)
from mmlab.cli.panel_constraints import constraint_options
from mmlab.cli.quick_option import QuickOption
from mmlab.cli.resource_options import resource_options
from mmlab.cli.shared_options import (
    DataOptions,
    RecipeOption,
    SeedOption,
    data_options,
    shared,
    with_shared_options,
)
from mmlab.errors import UserError
from mmlab.spec.resources import Resources


@with_shared_options
def sweep(
    over: Annotated[
        str,
        typer.Argument(
            metavar="NAME=VALUES",
            help="What varies: n_markers=10,25,50,100,250, or a parameter of the methods, such "
            "as hidden_size=64,128,256.",
        ),
    ],
    data: DataOptions = shared(data_options),
    methods: MethodsOption = "markermap_supervised",
    n_markers: SizeOption = 50,
    replicates: ReplicatesOption = 10,
    umap: Annotated[
        bool,
        typer.Option(
            help="With n_markers: draw UMAPs of each method's panels, coloured by cell type, into "
            "its MLflow run and the folder of --output; takes seconds per panel."
        ),
    ] = False,
    recipe: RecipeOption = "train_only",
    seed: SeedOption = 0,
    quick: QuickOption = False,
    constraints: dict[str, Any] = shared(constraint_options),
    resources: Resources = shared(resource_options),
    output: OutputOptions = shared(output_options),
) -> None:
    """Measure accuracy over the panel size or over a parameter.

    Reconstruction error is measured as well. This is a comparison, not a search; see mmlab tune.

    The same command resumes an interrupted sweep: finished replicates are not computed again.
    """
    name, values = _parse_axis(over)
    content = {
        "study": "sweep",
        "n_markers": values if name == "n_markers" else [n_markers],
        "over": {} if name == "n_markers" else {name: values},
        "umap": umap,
        "replicates": replicates,
        "recipe": recipe,
        "seed": seed,
        **constraints,
    }
    run_and_print(comparison_spec(content, data.spec(), methods, quick), resources, output)


def _parse_axis(text: str) -> tuple[str, list[Any]]:
    from mmlab.spec.yaml_text import parse_value

    name, equals, values = text.partition("=")
    if not equals or not name or not values:
        raise UserError(f"{text!r} is not of the form name=value,value.")
    return name.strip(), [parse_value(value, name) for value in values.split(",")]
