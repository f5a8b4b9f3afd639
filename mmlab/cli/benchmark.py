"""`mmlab benchmark`: methods compared at one panel size, or at a few."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mmlab.cli.comparison import OutputOptions, output_options, run_and_print
from mmlab.cli.comparison_options import (
    MethodsOption,
    ReplicatesOption,
    comparison_spec,
    parse_numbers,
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
from mmlab.spec.resources import Resources


@with_shared_options
def benchmark(
    data: DataOptions = shared(data_options),
    methods: MethodsOption = "all",
    n_markers: Annotated[
        str, typer.Option("--n-markers", "-k", help="Genes in the panel; several: 25,50,100.")
    ] = "50",
    replicates: ReplicatesOption = 10,
    recipe: RecipeOption = "train_only",
    seed: SeedOption = 0,
    quick: QuickOption = False,
    constraints: dict[str, Any] = shared(constraint_options),
    resources: Resources = shared(resource_options),
    output: OutputOptions = shared(output_options),
) -> None:
    """Compare methods on the same random splits of a dataset.

    For datasets of the paper, the tables show its numbers next to ours. The same command resumes an
    interrupted benchmark: finished replicates are not computed again.
    """
    content = {
        "study": "benchmark",
        "n_markers": parse_numbers("--n-markers", n_markers, int),
        "replicates": replicates,
        "recipe": recipe,
        "seed": seed,
        **constraints,
    }
    run_and_print(comparison_spec(content, data.spec(), methods, quick), resources, output)
