"""`mmlab report` and `mmlab reproduce`: a study as a page, and its numbers computed again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmlab.cli.options import (
    AddressOption,
    ConcurrentOption,
    CpusOption,
    GpusOption,
    JsonOption,
    TrackingOption,
    names,
    print_json,
    program,
    say,
    stderr,
    stdout,
)

if TYPE_CHECKING:
    from mmlab.report.reproduce import Reproduction

#: Numbers that are listed, the worst first.
_LISTED = 40


def report(
    study: Annotated[str, typer.Argument(help="A study, by the name that its command printed.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the report; an older one is replaced.")
    ],
    tracking_uri: TrackingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a study as one self-contained page.

    Beside it lie its figures, its tables and a manifest. The report of a search holds what its
    promotion found. report.html needs no network; figures are SVG and PDF, tables Parquet, CSV and
    LaTeX. mmlab reproduce computes all of it again.
    """
    from mmlab.report.study import report_study
    from mmlab.tracking import TrackingStore

    store = TrackingStore(tracking_uri)
    with stderr().status("writing the report"):
        written = report_study(study, store, output)
    page = output / "report.html"
    if as_json:
        print_json({"study": study, "report": str(page), "summary": list(written.summary)})
        return
    console = stdout()
    for line in written.summary:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(f"report written to {page}", highlight=False, soft_wrap=True)
    say(f"compute it again with: {program()} reproduce {output / 'manifest.json'}")


def reproduce(
    manifest: Annotated[Path, typer.Argument(help="The manifest.json of a report.")],
    only: Annotated[
        str, typer.Option(help="Methods to compute again, by their names in the report, by commas.")
    ] = "",
    quick: Annotated[
        bool, typer.Option("--quick", help="The first replicate of every method alone.")
    ] = False,
    data: Annotated[
        Path | None, typer.Option(help="Where your own .h5ad file lies now; default: as it was.")
    ] = None,
    address: AddressOption = None,
    cpus_per_trial: CpusOption = 1,
    gpus_per_trial: GpusOption = 0.0,
    max_concurrent: ConcurrentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compute a report again and compare every number.

    First the files of the report, the data and the versions are checked. A number is equal, within
    the tolerance that the manifest states, or different. Exit code 0 only where nothing was
    changed and every number is equal or within tolerance, else 1.
    """
    from mmlab.report.reproduce import reproduce as compute
    from mmlab.schedule import Resources

    resources = Resources(address, cpus_per_trial, gpus_per_trial, max_concurrent)
    try:
        result = compute(manifest, resources, stderr(), only=names(only), quick=quick, data=data)
    except KeyboardInterrupt:
        say("interrupted; nothing was written")
        raise typer.Exit(130) from None
    if as_json:
        print_json(_json(result))
    else:
        _print(result)
    if not result.holds:
        raise typer.Exit(1)


def _json(result: Reproduction) -> dict[str, Any]:
    return {
        "study": result.manifest.study,
        "holds": result.holds,
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
    from rich.markup import escape
    from rich.table import Table

    from mmlab.report.reproduce import Verdict

    console = stdout()
    for text in result.changed:
        console.print(f"changed: {text}", highlight=False, markup=False, soft_wrap=True)
    for text in result.versions:
        console.print(f"environment: {text}", highlight=False, markup=False, soft_wrap=True)
    for digest, reason in result.failed.items():
        console.print(f"failed: {digest[:8]}: {reason}", markup=False, soft_wrap=True)
    if result.changed:
        console.print("the report was changed: nothing was computed again")
        return
    counts = Counter(number.verdict for number in result.numbers)
    moved = [number for number in result.numbers if number.verdict != Verdict.EQUAL]
    order = [Verdict.MISSING, Verdict.DIFFERENT, Verdict.WITHIN]
    moved.sort(key=lambda number: (order.index(number.verdict), number.method))
    if moved:
        table = Table(box=None, header_style="bold")
        for name in ("method", "trial", "metric", "before", "now", "tolerance", ""):
            table.add_column(name, justify="left" if name in ("method", "metric", "") else "right")
        for number in moved[:_LISTED]:
            now = "" if number.now is None else f"{number.now:.6g}"
            table.add_row(
                escape(number.method),
                number.digest[:8],
                number.metric,
                f"{number.before:.6g}",
                now,
                f"{number.tolerance:.2g}",
                str(number.verdict),
            )
        console.print(table)
        if len(moved) > _LISTED:
            console.print(f"... and {len(moved) - _LISTED} more; --json has all")
    shown = ", ".join(f"{counts[v]} {v}" for v in Verdict if counts[v])
    console.print(f"{len(result.numbers)} numbers: {shown}", highlight=False)
    console.print(
        f"{result.same_panels} of {result.panels} panels are the same, gene by gene",
        highlight=False,
    )
    if result.holds and counts[Verdict.EQUAL] == len(result.numbers):
        console.print("all numbers are equal")
