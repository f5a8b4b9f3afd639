"""The command line. Modules of mmlab that are slow to import are imported where they are used."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from mmlab.cli import (
    benchmark,
    cluster,
    datasets,
    doctor,
    methods,
    promote,
    prune,
    report,
    reproduce,
    robustness,
    run,
    select,
    submit,
    sweep,
    tune,
    ui,
)
from mmlab.cli.console import print_message
from mmlab.cli.help_panels import command_with_panels, help_without_command
from mmlab.cli.interrupted import comes_from_interrupt
from mmlab.errors import UserError
from mmlab.system.library_caches import provide_library_caches
from mmlab.system.memory import is_out_of_memory
from mmlab.system.redaction import redact

app = typer.Typer(
    name="mmlab",
    help=(
        "Select gene panels, and compare the methods that select them.\n\n"
        # click keeps the lines of a paragraph that begins with \b.
        "\b\n"
        "Check your data        mmlab datasets check cells.h5ad --label-key cell_type\n"
        "Select a panel         mmlab select --data cells.h5ad --label-key cell_type\n"
        "Compare methods        mmlab benchmark --dataset zeisel\n"
        "Label noise            mmlab robustness --dataset zeisel\n"
        "Panel size             mmlab sweep n_markers=10,25,50,100 --dataset zeisel\n"
        "Tune a method          mmlab tune --dataset zeisel --trials 50\n"
        "Promote a champion     mmlab promote STUDY\n"
        "Run on a cluster       mmlab submit -- tune --dataset zeisel\n"
        "Report a study         mmlab report STUDY -o FOLDER\n"
        "Reproduce a report     mmlab reproduce FOLDER/manifest.json\n"
        "Open the MLflow UI     mmlab ui\n"
        "Delete old studies     mmlab prune --older-than 90d"
    ),
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(requested: bool) -> None:
    if requested:
        import mmlab

        print(f"mmlab {mmlab.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    _require_home()
    provide_library_caches()
    help_without_command(context)


def _require_home() -> None:
    """Raise ``UserError`` if the user has no home folder, as libraries expect one."""
    try:
        Path.home()
    except RuntimeError as error:
        raise UserError(
            "this user has no home folder. Set the environment variable HOME to a folder that you "
            "can write."
        ) from error


#: Commands in the order of the help, with the title of each one's own options.
for _name, _title, _command in (
    ("select", "Selection", select.select),
    ("tune", "Search", tune.tune),
    ("benchmark", "Comparison", benchmark.benchmark),
    ("robustness", "Comparison", robustness.robustness),
    ("sweep", "Comparison", sweep.sweep),
    ("run", "Options", run.run),
    ("promote", "Evaluation", promote.promote),
    ("report", "Options", report.report),
    ("reproduce", "Options", reproduce.reproduce),
):
    app.command(_name, cls=command_with_panels(_title))(_command)
app.add_typer(datasets.app, name="datasets")
app.add_typer(methods.app, name="methods")
app.add_typer(cluster.app, name="cluster")
app.command(
    "submit",
    cls=command_with_panels("Options"),
    # Options after the name of the submitted command are its own, also without --.
    context_settings={"allow_interspersed_args": False},
)(submit.submit)
for _name, _command in (("ui", ui.ui), ("prune", prune.prune), ("doctor", doctor.doctor)):
    app.command(_name, cls=command_with_panels("Options"))(_command)


def main() -> None:
    """Run the command line.

    A user's mistake, or a file that the system refuses, is one sentence on stderr and exit code 2;
    Ctrl-C, also while a library is imported, is one and 130.
    """
    # Figures are never shown. A notebook's value names a module that its cells alone can import.
    os.environ["MPLBACKEND"] = "agg"
    try:
        app()
    except UserError as error:
        print_message(f"Error: {error}")
        sys.exit(2)
    except OSError as error:
        if error.filename is None:
            _print_traceback()
        print_message(f"Error: {error.filename}: {error.strerror}.")
        sys.exit(2)
    except SystemExit as end:
        if comes_from_interrupt(end):
            print_message("Interrupted.")
        raise
    except Exception as error:
        if comes_from_interrupt(error):
            print_message("Interrupted.")
            sys.exit(130)
        if is_out_of_memory(error):
            print_message(
                "Error: there is not enough memory. Choose smaller values of the method's "
                "parameters, such as hidden_size and batch_size, a method that reads the cells "
                "from disk, or a machine with more memory."
            )
            sys.exit(2)
        if not _is_of_store(error):
            _print_traceback()
        reason = " ".join(str(error).split())[:300].rstrip(".")
        print_message(
            f"Error: the tracking store cannot be used any more: {reason}. What had ended before "
            "is kept in it, or on this machine. When it answers again, run the same command again."
        )
        sys.exit(2)


def _is_of_store(error: Exception) -> bool:
    """Return whether an error is one of MLflow, which is imported only if it is in use."""
    mlflow = sys.modules.get("mlflow.exceptions")
    return mlflow is not None and isinstance(error, mlflow.MlflowException)


def _print_traceback() -> NoReturn:
    print(redact(traceback.format_exc()), file=sys.stderr)
    sys.exit(1)
