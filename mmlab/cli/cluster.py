"""`mmlab cluster`: the nodes of a Ray cluster."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from mmlab.cli.console import print_json, print_message, stderr, stdout
from mmlab.cli.help_panels import command_with_panels, help_without_command
from mmlab.cli.shared_options import JsonOption

if TYPE_CHECKING:
    from mmlab.schedule.node_check import NodeReport

app = typer.Typer(help="Check the nodes of a Ray cluster.")
app.callback(invoke_without_command=True)(help_without_command)


@app.command("check", cls=command_with_panels("Options"))
def check(
    address: Annotated[
        str,
        typer.Option(
            help="Ray cluster of which this machine is a node: HOST:PORT of its head, or auto, the "
            "one that runs on this machine."
        ),
    ] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Check that every node of a cluster can run trials.

    A probe runs on each node: version of mmlab, Python, folder of cached datasets, free memory and
    disk space, GPUs that torch can use, clock. The exit code is 1 if a node has a problem; studies
    leave out the nodes that cannot run trials.
    """
    from mmlab.schedule.cluster import inspect_cluster

    with stderr().status("checking the nodes"):
        reports = inspect_cluster(address)
    if as_json:
        print_json([asdict(report) | {"problems": report.problems} for report in reports])
    else:
        _print(reports)
    bad = [report for report in reports if report.problems]
    if bad:
        named = "; ".join(f"{report.name} ({', '.join(report.problems)})" for report in bad)
        print_message(f"{len(bad)} of {len(reports)} nodes have problems: {named}")
        raise typer.Exit(1)


def _print(reports: list[NodeReport]) -> None:
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for column in ("node", "mmlab", "Python", "CPUs", "GPUs", "memory", "disk", "clock", "result"):
        table.add_column(column, no_wrap=True)
    for report in reports:
        facts = report.facts
        known = ["", "", "", "", ""]
        if facts is not None:
            known = [
                facts.mmlab,
                facts.python,
                f"{facts.memory_gb:.1f} GB",
                f"{facts.disk_gb:.1f} GB",
                f"{report.clock_seconds:+.0f} s",
            ]
        table.add_row(
            report.name,
            *known[:2],
            f"{report.resources.get('CPU', 0):g}",
            f"{report.resources.get('GPU', 0):g}",
            *known[2:],
            ", ".join(report.problems) or "ok",
        )
    stdout().print_uncut(table)
