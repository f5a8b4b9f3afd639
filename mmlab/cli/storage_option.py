"""The option --storage of commands that run studies."""

from __future__ import annotations

from typing import Annotated

import typer

from mmlab.cli.help_panels import OUTPUT

StorageOption = Annotated[
    str,
    typer.Option(
        "--storage",
        metavar="FOLDER|s3://...",
        envvar="MMLAB_STORAGE",
        help="Where finished trials wait until the tracking server has them, if it should outlive "
        "this machine. Default: a local folder.",
        rich_help_panel=OUTPUT,
    ),
]
