"""Options on where trials run, and what each of them gets."""

from __future__ import annotations

from typing import Annotated

import typer

from mmlab.cli.help_panels import RESOURCES
from mmlab.cli.metrics_option import MetricsOption
from mmlab.spec.resources import Resources


def resource_options(
    address: Annotated[
        str | None,
        typer.Option(
            help="Ray cluster of which this machine is a node: HOST:PORT of its head, or auto. "
            "Default: Ray on this machine alone.",
            rich_help_panel=RESOURCES,
        ),
    ] = None,
    cpus_per_trial: Annotated[
        int, typer.Option(help="CPU threads per trial.", rich_help_panel=RESOURCES)
    ] = 1,
    gpus_per_trial: Annotated[
        float,
        typer.Option(
            help="GPUs per trial; with 0.25, four trials share a GPU.", rich_help_panel=RESOURCES
        ),
    ] = 0.0,
    max_concurrent: Annotated[
        int | None,
        typer.Option(
            help="Trials that run at the same time. Default: as many as fit.",
            rich_help_panel=RESOURCES,
        ),
    ] = None,
    minutes_per_trial: Annotated[
        float | None,
        typer.Option(
            help="A trial that takes longer is started once more, and fails if that takes longer, "
            "too. Default: no limit.",
            rich_help_panel=RESOURCES,
        ),
    ] = None,
    metrics: MetricsOption = None,
) -> Resources:
    """Return where trials run, and what each of them gets."""
    return Resources(address, cpus_per_trial, gpus_per_trial, max_concurrent, minutes_per_trial)
