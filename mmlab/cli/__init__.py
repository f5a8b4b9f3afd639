"""The command line. Modules of mmlab that are slow to import are imported where they are used."""

from __future__ import annotations

import sys

import typer

from mmlab.cli import comparisons, datasets, methods, promote, report, select, service, tune
from mmlab.errors import UserError

app = typer.Typer(
    name="mmlab",
    help=(
        "Choose gene panels and compare the methods that choose them.\n\n"
        # click leaves the lines of a paragraph that begins with \b as they are.
        "\b\n"
        "Are your cells usable?  mmlab datasets check cells.h5ad --label-key cell_type\n"
        "A panel for them        mmlab select --data cells.h5ad --label-key cell_type\n"
        "Which method is best?   mmlab benchmark --dataset zeisel\n"
        "What wrong labels cost  mmlab robustness --dataset zeisel\n"
        "How many genes?         mmlab sweep n_markers=10,25,50,100 --dataset zeisel\n"
        "Settings of a method    mmlab tune --dataset zeisel --trials 50\n"
        "The champion of these   mmlab promote STUDY\n"
        "A study as one page     mmlab report STUDY -o FOLDER\n"
        "Its numbers once more   mmlab reproduce FOLDER/manifest.json\n"
        "All that was found      mmlab ui"
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("select")(select.select)
app.command("tune")(tune.tune)
app.command("benchmark")(comparisons.benchmark)
app.command("robustness")(comparisons.robustness)
app.command("sweep")(comparisons.sweep)
app.command("run")(comparisons.run)
app.command("promote")(promote.promote)
app.command("report")(report.report)
app.command("reproduce")(report.reproduce)
app.add_typer(datasets.app, name="datasets")
app.add_typer(methods.app, name="methods")
app.command("ui")(service.ui)
app.command("doctor")(service.doctor)


def main() -> None:
    """Run the command line; a user's mistake is one sentence on stderr and exit code 2."""
    try:
        app()
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
