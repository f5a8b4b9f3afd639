"""`mmlab run`: a comparison that a YAML file describes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmlab.cli.comparison import OutputOptions, output_options, run_and_print
from mmlab.cli.resource_options import resource_options
from mmlab.cli.shared_options import (
    OfflineOption,
    shared,
    with_shared_options,
)
from mmlab.spec.resources import Resources


@with_shared_options
def run(
    file: Annotated[
        Path, typer.Argument(help="A YAML study file, e.g. experiments/table1_3_zeisel.yaml.")
    ],
    offline: OfflineOption = False,
    resources: Resources = shared(resource_options),
    output: OutputOptions = shared(output_options),
) -> None:
    """Run the benchmark, robustness study or sweep in a YAML file.

    The same command resumes an interrupted study: finished replicates are not computed again.
    """
    from mmlab.spec.comparison import ComparisonSpec
    from mmlab.spec.yaml import read_spec

    run_and_print(read_spec(file, ComparisonSpec), resources, output)
