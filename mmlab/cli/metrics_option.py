"""The option --metrics of commands that run trials."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from mmlab.cli.help_panels import OUTPUT
from mmlab.cli.output_checks import check_output_file
from mmlab.errors import UserError
from mmlab.schedule.metrics_file import METRICS_VARIABLE


def _set_metrics(path: Path | None) -> Path | None:
    if path is not None:
        if path.suffix != ".prom":
            raise UserError(
                f"--metrics {path}: the name must end with .prom; node_exporter reads no others."
            )
        check_output_file("--metrics", path)
        os.environ[METRICS_VARIABLE] = str(path.absolute())
    return path


MetricsOption = Annotated[
    Path | None,
    typer.Option(
        "--metrics",
        metavar="FILE.prom",
        callback=_set_metrics,
        help="Keep the numbers of running, ended, failed and unsent trials in a file that "
        "Prometheus' node_exporter reads (textfile collector).",
        rich_help_panel=OUTPUT,
    ),
]
