"""`mmlab report`: a study as one self-contained page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmlab.cli.console import print_json, print_message, print_text, program_name, stderr
from mmlab.cli.help_panels import OUTPUT
from mmlab.cli.output_checks import check_output_folder
from mmlab.cli.shared_options import JsonOption, TrackingOption
from mmlab.cli.tracking_store import open_store


def report(
    study: Annotated[str, typer.Argument(help="Name of a study, as its command printed it.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="Folder of the report; an older report in it is replaced.",
            rich_help_panel=OUTPUT,
        ),
    ],
    tracking_uri: TrackingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a study as one self-contained page.

    The folder holds report.html, which needs no network, the figures as SVG and PDF, the tables as
    Parquet, CSV and LaTeX, and a manifest from which mmlab reproduce computes everything again. The
    report of a search includes the results of its promotion.
    """
    from mmlab.report.study import report_study

    check_output_folder("--output", output)
    store = open_store(tracking_uri)
    with stderr().status("writing the report"):
        written = report_study(study, store, output)
    page = output / "report.html"
    if as_json:
        print_json({"study": study, "report": str(page), "summary": list(written.summary)})
        return
    for line in written.summary:
        print_text(line)
    print_text(f"Report written to {page}")
    manifest = output / "manifest.json"
    print_message(f"Compute its numbers again with: {program_name()} reproduce {manifest}")
