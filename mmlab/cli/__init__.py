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
        "A panel for your cells: mmlab select --data FILE.h5ad --label-key KEY -o panel.csv. "
        "The best settings of a method: mmlab tune --dataset zeisel --trials 50. "
        "Which method is best: mmlab benchmark --dataset zeisel. "
        "What wrong labels cost: mmlab robustness --dataset zeisel. "
        "How many genes are enough: mmlab sweep n_markers=10,25,50,100 --dataset zeisel. "
        "The best of a search, judged on cells that it never saw: mmlab promote STUDY. "
        "A study as a page: mmlab report STUDY -o FOLDER, and its numbers once more: "
        "mmlab reproduce FOLDER/manifest.json. "
        "What was found: mmlab ui."
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
