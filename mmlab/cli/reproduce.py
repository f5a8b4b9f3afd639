"""`mmlab reproduce`: the numbers of a report computed again and compared."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmlab.cli.console import print_json, print_text, same_command, stderr, stdout
from mmlab.cli.interrupted import end_interrupted
from mmlab.cli.resource_options import resource_options
from mmlab.cli.shared_options import (
    JsonOption,
    shared,
    split_names,
    with_shared_options,
)
from mmlab.spec.resources import Resources

if TYPE_CHECKING:
    from mmlab.report.reproduce import ReproducedMetric, Reproduction

#: Numbers that are listed, missing and different ones first.
_LISTED = 40


@with_shared_options
def reproduce(
    manifest: Annotated[Path, typer.Argument(help="The manifest.json of a report.")],
    only: Annotated[
        str, typer.Option(help="Methods to compute again, by their names in the report: A,B.")
    ] = "",
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="Compute only the first replicate of every method; training is the same.",
        ),
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(help="Present path of your own .h5ad file. Default: the recorded path."),
    ] = None,
    resources: Resources = shared(resource_options),
    as_json: JsonOption = False,
) -> None:
    """Compute the numbers of a report again and compare them.

    First the report's files, the data and the versions are checked. Then every number is computed
    again: it is equal, within the tolerance that the manifest states, or different. The exit code
    is 0 if no file was changed and every number is equal or within tolerance, else 1.
    """
    from mmlab.report.reproduce import reproduce as compute_again
    from mmlab.system.interruption import StudyInterruptedError

    try:
        result = compute_again(
            manifest, resources, stderr(), only=split_names(only), quick=quick, data=data
        )
    except StudyInterruptedError as interrupted:
        advice = f"Nothing was written; start again with: {same_command()}"
        end_interrupted(interrupted.reason, advice)
    if as_json:
        print_json(_json(result))
    else:
        _print(result)
    if not result.reproduced:
        raise typer.Exit(1)


def _json(result: Reproduction) -> dict[str, Any]:
    return {
        "study": result.manifest.study,
        "reproduced": result.reproduced,
        "changed": result.changed,
        "versions": result.versions,
        "failed": result.failed,
        "same_panels": result.same_panels,
        "panels": result.panels,
        "numbers": [
            {
                "method": number.method,
                "setting": number.setting,
                "digest": number.digest,
                "metric": number.metric,
                "before": number.before,
                "now": number.now,
                "tolerance": number.tolerance,
                "verdict": str(number.verdict),
            }
            for number in result.numbers
        ],
    }


def _print(result: Reproduction) -> None:
    from mmlab.report.reproduce import Verdict

    for text in result.changed:
        print_text(f"changed: {text}")
    for text in result.versions:
        print_text(f"environment: {text}")
    for digest, reason in result.failed.items():
        print_text(f"failed: {digest[:8]}: {reason}")
    if result.changed:
        print_text("The report was changed: nothing was computed again.")
        return
    counts = Counter(number.verdict for number in result.numbers)
    order = [Verdict.MISSING, Verdict.DIFFERENT, Verdict.WITHIN]
    unequal = [number for number in result.numbers if number.verdict != Verdict.EQUAL]
    unequal.sort(key=lambda number: (order.index(number.verdict), number.method))
    if unequal:
        _print_numbers(unequal)
    listed = ", ".join(f"{counts[v]} {v}" for v in Verdict if counts[v])
    print_text(f"{len(result.numbers)} numbers: {listed}")
    print_text(f"{result.same_panels} of {result.panels} panels are the same, gene by gene")
    if result.reproduced and counts[Verdict.EQUAL] == len(result.numbers):
        print_text("all numbers are equal")


def _print_numbers(numbers: list[ReproducedMetric]) -> None:
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for name in ("method", "trial", "metric", "before", "now", "tolerance", ""):
        table.add_column(name, justify="left" if name in ("method", "metric", "") else "right")
    for number in numbers[:_LISTED]:
        table.add_row(
            number.method,
            number.digest[:8],
            number.metric,
            f"{number.before:.6g}",
            "" if number.now is None else f"{number.now:.6g}",
            f"{number.tolerance:.2g}",
            str(number.verdict),
        )
    stdout().print(table)
    if len(numbers) > _LISTED:
        print_text(f"... and {len(numbers) - _LISTED} more; --json lists all")
