"""What `benchmark`, `robustness`, `sweep` and `run` share: run a comparison, save and print it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmlab.cli.comparison_output import (
    BOLD,
    ComparisonOutput,
    curves_output,
    tables_output,
)
from mmlab.cli.console import (
    print_json,
    print_message,
    recorded_command,
    same_command,
    stderr,
    stdout,
)
from mmlab.cli.help_panels import OUTPUT
from mmlab.cli.interrupted import TRY_AGAIN, end_interrupted, print_unsent
from mmlab.cli.output_checks import check_output_file, check_output_folder
from mmlab.cli.shared_options import JsonOption, StorageOption, TrackingOption
from mmlab.cli.tracking_store import open_store, page_hint, page_link
from mmlab.errors import UserError
from mmlab.spec.resources import Resources

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from mmlab.schedule.comparison_plan import ComparisonResult
    from mmlab.spec.comparison import ComparisonSpec

_BEFORE, _AFTER = BOLD.split("{}")


@dataclass(frozen=True)
class OutputOptions:
    """Where the results of a comparison go."""

    rows: Path | None
    output: Path | None
    tracking_uri: str | None
    storage: str
    as_json: bool


def output_options(
    rows: Annotated[
        Path | None,
        typer.Option(
            "--rows",
            help="Parquet file of finished replicates: those in it are not computed again, and "
            "new ones are added.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Also write the tables and figures to this folder.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    tracking_uri: TrackingOption = None,
    storage: StorageOption = "",
    as_json: JsonOption = False,
) -> OutputOptions:
    """Return where the results of a comparison go."""
    check_output_file("--rows", rows, read=True)
    check_output_folder("--output", output)
    return OutputOptions(rows, output, tracking_uri, storage, as_json)


def run_and_print(spec: ComparisonSpec, resources: Resources, options: OutputOptions) -> None:
    """Run a comparison, save its tables and figures, and print them."""
    store = open_store(options.tracking_uri, options.storage, write=True)

    from mmlab.schedule.comparison import run_comparison
    from mmlab.system.interruption import StudyInterruptedError

    command = recorded_command()
    try:
        result = run_comparison(
            spec, store, resources, stderr(), results_file=options.rows, command=command
        )
    except StudyInterruptedError as interrupted:
        advice = f"Finished replicates are kept; resume with: {same_command()}"
        end_interrupted(interrupted.reason, advice)
    shown = save_output(result, command)
    if options.as_json:
        print_json(_json(result) | shown.json)
    else:
        print_tables(shown)
        for name, reason in result.failed.items():
            print_message(f"failed: {name}: {reason.splitlines()[-1]}")
    if options.output is not None:
        _write_tables(result, shown, options.output)
    if result.rows_error:
        raise UserError(
            f"--rows {options.rows} could not be written: {result.rows_error}. The finished "
            f"replicates are in study {result.study.name} of {store.uri}: run the same command "
            "with another file; none is computed again."
        )
    if result.unsent:
        if not result.rescued:
            print_unsent(result.unsent, store.uri, result.waiting_in, same_command())
        raise typer.Exit(TRY_AGAIN)
    if not options.as_json:
        print_message(f"Study {result.study.name} is saved in {store.uri}")
        print_message(page_hint(store, _page(result)))
    if result.failed:
        print_message(_describe_failed(result))
        raise typer.Exit(1)


def _describe_failed(result: ComparisonResult) -> str:
    """Return the sentence on trials that failed: means are over unequal numbers of replicates."""
    planned = Counter(trial.method.title for trial in result.trials)
    finished = Counter(map(str, result.replicates["method"]))
    unequal = [
        f"{title} {finished[title]} of {n}" for title, n in planned.items() if finished[title] < n
    ]
    return (
        f"{len(result.failed)} of {len(result.trials)} trials failed; means are over those that "
        f"finished ({', '.join(unequal)}). Try them again with: {same_command()}"
    )


def _write_tables(result: ComparisonResult, output: ComparisonOutput, folder: Path) -> None:
    """Write tables and figures to the folder of the user, or say where else they are."""
    try:
        folder.mkdir(exist_ok=True)
        output.write_all(folder)
    except OSError as error:
        raise UserError(
            f"--output {folder} could not be written: {error.strerror or error}. The tables are in "
            f"study {result.study.name} of {result.study.store.uri}: run the same command with "
            "another folder; nothing is computed again."
        ) from error


def save_output(result: ComparisonResult, command: str) -> ComparisonOutput:
    """Write the tables and figures of a comparison to its run, and return them.

    Raises
    ------
    UserError
        No trial was finished.
    """
    from mmlab.constraints.describe import describe_constraints, escape_markdown

    if result.replicates.empty:
        raise UserError("every trial failed: " + "; ".join(map(": ".join, result.failed.items())))
    spec = result.study.spec
    output = tables_output(result) if spec.study == "benchmark" else curves_output(result)
    output = replace(output, note="\n".join([output.note, *describe_constraints(spec)]))
    constraints = describe_constraints(spec, escape_markdown)
    text = "\n".join([output.text, *constraints, f"Made by `{command}`.\n"])
    output = replace(output, text=text, text_file=f"{spec.study}.md", umaps=result.umaps)
    if not result.unsent:
        store, study = result.study.store, result.study.run_id
        store.log_files(study, output.write_all)
        leader = "" if result.leader is None else _about_leader(escape_markdown(result.leader))
        store.set_tags(study, {"mlflow.note.content": (leader + text)[:7900]})
    return output


def _page(result: ComparisonResult) -> str:
    """Return the page of a comparison in the MLflow UI."""
    from mmlab.tracking import study_page

    study = result.study
    return study_page(study.experiment_id, study.run_id)


def _about_leader(method: str) -> str:
    """Return what the page of a study says about its metrics, with the leading method."""
    return (
        f"The metrics of this run are those of **{method}**, the method with the highest `score`: "
        "kNN accuracy on the test cells, mean over replicates and settings; higher is better.\n\n"
    )


def _json(result: ComparisonResult) -> dict[str, Any]:
    """Return what ``--json`` prints of any comparison."""
    from mmlab.comparison.tables import records
    from mmlab.trial.result import NESTED_COLUMNS

    nested = [name for name in map(str, result.replicates) if name.startswith(NESTED_COLUMNS)]
    return {
        "study": result.study.name,
        "run_id": result.study.run_id,
        "tracking_uri": result.study.store.uri,
        "page": page_link(result.study.store, _page(result)),
        "trials": records(result.replicates.drop(columns=nested)),
        "failed": result.failed,
        "unsent": result.unsent,
    }


def print_tables(output: ComparisonOutput) -> None:
    """Print the tables of a comparison."""
    from rich.table import Table as RichTable

    console = stdout()
    for title, header, body, legend in output.tables:
        console.print(title)
        table = RichTable(box=None, header_style="bold")
        for name in header:
            table.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
        for row in body:
            table.add_row(row[0], *(_cell(text, console) for text in row[1:]))
        console.print_uncut(table)
        if legend:
            console.print(legend, highlight=False, markup=False, soft_wrap=True)
        console.print()
    console.print(output.note, soft_wrap=True)


def _cell(text: str, console: Console) -> str | Text:
    """Return the text of a number in a table; on a terminal, the marked ones are bold."""
    from rich.text import Text

    number = text.removeprefix(_BEFORE).removesuffix(_AFTER)
    return Text(number, "bold") if number != text and console.is_terminal else text
