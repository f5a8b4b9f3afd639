"""Run a comparison, keep its tables and figures, and print them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mmlab.cli.options import look_hint, print_json, program, say, stderr, stdout
from mmlab.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from mmlab.schedule import ComparisonResult, Resources
    from mmlab.spec.comparison import ComparisonSpec

#: Title, header and rows of a table for people.
Table = tuple[str, list[str], list[list[str]]]

#: The exit code of a study whose results wait on disk for the tracking store (EX_TEMPFAIL).
_UNSENT = 75


@dataclass(frozen=True)
class Shown:
    """What people and files get of a comparison.

    ``tables`` are for the terminal with ``note`` below them, ``text`` is Markdown, ``json`` joins
    the JSON document, and ``write`` fills a folder.
    """

    tables: list[Table]
    text: str
    json: dict[str, Any]
    write: Callable[[Path], None]
    note: str


def run_and_show(
    spec: ComparisonSpec,
    rows: Path | None,
    output: Path | None,
    tracking_uri: str | None,
    resources: Resources,
    as_json: bool,
) -> None:
    """Run a comparison as the command line asked for it."""
    from mmlab.schedule import StudyInterruptedError, run_comparison
    from mmlab.tracking import TrackingStore

    for option, path in (("--rows", rows), ("--output", output)):
        if path is not None and not path.absolute().parent.is_dir():
            raise UserError(f"{option} {path}: the folder {path.parent} does not exist.")
    command, again = (shlex.join([name, *sys.argv[1:]]) for name in ("mmlab", program()))
    store = TrackingStore(tracking_uri)
    try:
        result = run_comparison(spec, store, resources, stderr(), rows_file=rows, command=command)
    except StudyInterruptedError:
        say(f"interrupted; finished replicates are kept. Go on with: {again}")
        raise typer.Exit(130) from None
    shown = keep(result, command, output)
    if as_json:
        print_json(_json(result) | shown.json)
    else:
        print_tables(shown)
        for name, reason in result.failed.items():
            say(f"failed: {name}: {reason.splitlines()[-1]}")
    if result.unsent:
        say(
            f"{result.unsent} finished trials could not be sent to {store.uri} and wait on this "
            f"machine; when it answers again, send them with: {again}"
        )
        raise typer.Exit(_UNSENT)
    if not as_json:
        say(f"study {result.study.name} kept in {store.uri}")
        say(look_hint(store.uri))


def keep(result: ComparisonResult, command: str, output: Path | None = None) -> Shown:
    """Make the tables and figures of a comparison; its run gets them, and a folder.

    Raises
    ------
    UserError
        Not a single trial was finished.
    """
    from mmlab.constraints.describe import describe_constraints, escape_markdown

    if result.replicates.empty:
        raise UserError("every trial failed: " + "; ".join(map(": ".join, result.failed.items())))
    spec = result.study.spec
    shown = _tables(result) if spec.study == "benchmark" else _curves(result)
    shown = replace(shown, note="\n".join([shown.note, *describe_constraints(spec)]))
    text = "\n".join(
        [shown.text, *describe_constraints(spec, escape_markdown), f"Made by `{command}`.\n"]
    )

    def write_all(folder: Path) -> None:
        shown.write(folder)
        (folder / f"{spec.study}.md").write_text(text, encoding="utf-8")

    if output is not None:
        output.mkdir(exist_ok=True)
        write_all(output)
    if not result.unsent:
        store, study = result.study.store, result.study.run_id
        store.log_files(study, write_all)
        store.set_tags(study, {"mlflow.note.content": text[:7900]})
    return shown


def _curves(result: ComparisonResult) -> Shown:
    from mmlab.comparison.curves import curve_tables, curves_markdown, write_curves

    spec, summary, costs = result.study.spec, result.summary, result.robustness
    text = f"## {spec.data.title}, {spec.study}\n\n{curves_markdown(spec, summary, costs)}"
    note = "means over n replicates; best in bold"
    if len(costs):
        note += (
            "; area under the curve, and the noise that costs 5 % of the clean accuracy, with "
            "95 % confidence intervals"
        )
    return Shown(
        [
            (f"{spec.data.title}: {title}", header, body)
            for title, header, body in curve_tables(spec, summary, costs, "[bold]{}[/bold]".format)
        ],
        text,
        {"table": _records(summary), "robustness": _records(costs)},
        lambda folder: write_curves(spec, result.replicates, summary, costs, folder),
        note,
    )


def _tables(result: ComparisonResult) -> Shown:
    from mmlab.comparison.tables import (
        compare_methods,
        competing_methods,
        tables_markdown,
        view_tables,
        write_comparison,
    )
    from mmlab.selectors import control_methods

    spec = result.study.spec
    comparison = compare_methods(
        result.replicates, result.summary, control_methods(), spec.protocol
    )
    competing = competing_methods(result.replicates, control_methods())

    def write(folder: Path) -> None:
        write_comparison(comparison, result.replicates, folder)
        if len(spec.settings) > 1:
            _curves(result).write(folder)

    tables, text = list[Table](), ""
    for k in spec.n_markers:
        place = f"{spec.data.title}, {k} markers"
        place += ", locked test cells" if spec.protocol == "locked" else ""
        parts = view_tables(comparison, k, competing, "[bold]{}[/bold]".format)
        tables += [(f"{place}: {title}", header, body) for title, header, body in parts]
        text += f"## {place}\n\n{tables_markdown(comparison, k, competing)}\n"
    return Shown(
        tables,
        text,
        {"table": _records(comparison.table), "tests": _records(comparison.tests)},
        write,
        "mean ± standard deviation over n replicates, published number, difference; best in bold",
    )


def _json(result: ComparisonResult) -> dict[str, Any]:
    """What ``--json`` prints of any comparison."""
    from mmlab.trial.result import NESTED_COLUMNS

    nested = [name for name in map(str, result.replicates) if name.startswith(NESTED_COLUMNS)]
    return {
        "study": result.study.name,
        "run_id": result.study.run_id,
        "tracking_uri": result.study.store.uri,
        "trials": _records(result.replicates.drop(columns=nested)),
        "failed": result.failed,
        "unsent": result.unsent,
    }


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(k): v for k, v in row.items()} for row in table.to_dict(orient="records")]


def print_tables(shown: Shown) -> None:
    """Print the tables of a comparison."""
    from rich.table import Table as Grid

    console = stdout()
    if not console.is_terminal:
        console.width = 120
    for title, header, body in shown.tables:
        console.print(title, highlight=False, markup=False)
        table = Grid(box=None, header_style="bold")
        for name in header:
            table.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
        for row in body:
            table.add_row(*row)
        console.print(table)
        console.print()
    console.print(shown.note, highlight=False, markup=False, soft_wrap=True)
