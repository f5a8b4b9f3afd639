"""`mmlab benchmark` and `mmlab run`: methods compared on the same cells."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmlab.cli.options import (
    AddressOption,
    ConcurrentOption,
    CpusOption,
    DataOption,
    DatasetOption,
    GpusOption,
    JsonOption,
    LabelKeyOption,
    LayerOption,
    TrackingOption,
    data_spec,
    look_hint,
    print_json,
    program,
    stderr,
    stdout,
)
from mmlab.errors import UserError

if TYPE_CHECKING:
    from mmlab.config import BenchmarkSpec
    from mmlab.report.comparison import Comparison
    from mmlab.schedule import BenchmarkResult, Resources

RowsOption = Annotated[
    Path | None,
    typer.Option(
        "--rows",
        help="Parquet file of finished replicates: what it holds is not computed again, and "
        "every new one is added.",
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Write the tables and the figure into this folder too."),
]


def benchmark(
    dataset: DatasetOption = None,
    data: DataOption = None,
    label_key: LabelKeyOption = None,
    layer: LayerOption = None,
    methods: Annotated[
        str, typer.Option(help="Names of `mmlab methods list`, separated by commas; or all.")
    ] = "all",
    n_markers: Annotated[
        str, typer.Option("--n-markers", "-k", help="Genes in the panel; several by commas.")
    ] = "50",
    replicates: Annotated[
        int, typer.Option(min=1, help="Random 70/10/20 splits, the same for every method.")
    ] = 10,
    recipe: Annotated[
        str, typer.Option(help="train_only: no statistic sees a test cell; or paper.")
    ] = "train_only",
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    rows: RowsOption = None,
    output: OutputOption = None,
    tracking_uri: TrackingOption = None,
    address: AddressOption = None,
    cpus_per_trial: CpusOption = 1,
    gpus_per_trial: GpusOption = 0.0,
    max_concurrent: ConcurrentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare methods on the same splits of one dataset, beside the published numbers.

    Interrupted in any way and started again, it computes only what is missing.
    """
    from mmlab.config import BenchmarkSpec
    from mmlab.schedule import Resources
    from mmlab.specfile import build

    content = {
        "data": data_spec(dataset, data, label_key, layer),
        "methods": _method_names(methods, dataset),
        "n_markers": [_whole(text) for text in n_markers.split(",")],
        "replicates": replicates,
        "recipe": recipe,
        "seed": seed,
    }
    spec = build(BenchmarkSpec, content, "options")
    resources = Resources(address, cpus_per_trial, gpus_per_trial, max_concurrent)
    _run(spec, rows, output, tracking_uri, resources, as_json)


def run(
    file: Annotated[
        Path, typer.Argument(help="A YAML study, e.g. experiments/table1_3_zeisel.yaml.")
    ],
    rows: RowsOption = None,
    output: OutputOption = None,
    tracking_uri: TrackingOption = None,
    address: AddressOption = None,
    cpus_per_trial: CpusOption = 1,
    gpus_per_trial: GpusOption = 0.0,
    max_concurrent: ConcurrentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a study that a YAML file describes; started again, only what is missing."""
    from mmlab.config import BenchmarkSpec
    from mmlab.schedule import Resources
    from mmlab.specfile import read_yaml

    spec = read_yaml(file, BenchmarkSpec)
    resources = Resources(address, cpus_per_trial, gpus_per_trial, max_concurrent)
    _run(spec, rows, output, tracking_uri, resources, as_json)


def _method_names(methods: str, dataset: str | None) -> list[str]:
    from mmlab.datasets import DATASETS
    from mmlab.selectors import SELECTORS

    if methods != "all":
        return [name.strip() for name in methods.split(",")]
    # Nobody knows the true markers of measured cells.
    simulated = dataset in DATASETS and DATASETS[dataset].simulated
    return [name for name in SELECTORS if name != "oracle" or simulated]


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UserError(f"--n-markers {text!r} is not a whole number.") from None


def _run(
    spec: BenchmarkSpec,
    rows: Path | None,
    output: Path | None,
    tracking_uri: str | None,
    resources: Resources,
    as_json: bool,
) -> None:
    from mmlab.report.comparison import compare, markdown, write_comparison
    from mmlab.schedule import StudyInterruptedError, run_benchmark
    from mmlab.tracking import Store

    for option, path in (("--rows", rows), ("--output", output)):
        if path is not None and not path.absolute().parent.is_dir():
            raise UserError(f"{option} {path}: the folder {path.parent} does not exist.")
    command = shlex.join(["mmlab", *sys.argv[1:]])
    store = Store(tracking_uri)
    try:
        result = run_benchmark(spec, store, resources, stderr(), rows_file=rows, command=command)
    except StudyInterruptedError:
        again = shlex.join([program(), *sys.argv[1:]])
        stderr().print(
            f"interrupted; finished replicates are kept. Go on with: {again}",
            highlight=False,
            soft_wrap=True,
        )
        raise typer.Exit(130) from None
    if result.rows.empty:
        raise UserError("every trial failed: " + "; ".join(map(": ".join, result.failed.items())))
    comparison = compare(result.rows, result.summary, _controls())
    competing = set(result.rows["method"][~result.rows["selector"].isin(_controls())])
    text = "\n".join(
        f"## {spec.data.title}, {k} markers\n\n{markdown(comparison, k, competing)}"
        for k in sorted(set(result.rows["n_markers"]))
    )
    text += f"\nMade by `{command}`.\n"
    study = result.study
    store.log_files(
        study.run_id, lambda folder: write_comparison(comparison, result.rows, text, folder)
    )
    store.set_tags(study.run_id, {"mlflow.note.content": text[:7900]})
    if output is not None:
        output.mkdir(exist_ok=True)
        write_comparison(comparison, result.rows, text, output)
    if as_json:
        print_json(benchmark_json(result, comparison))
        return
    _print(result, comparison, competing)
    for name, reason in result.failed.items():
        stderr().print(f"failed: {name}: {reason.splitlines()[-1]}", highlight=False, markup=False)
    stderr().print(f"study {study.name} kept in {store.uri}", highlight=False, soft_wrap=True)
    stderr().print(look_hint(store.uri), highlight=False, soft_wrap=True)


def _controls() -> set[str]:
    from mmlab.selectors import SELECTORS

    return {name for name, selector in SELECTORS.items() if selector.is_control}


def _print(result: BenchmarkResult, comparison: Comparison, competing: set[str]) -> None:
    from rich.table import Table

    from mmlab.report.comparison import view_tables

    console = stdout()
    if not console.is_terminal:
        console.width = 120
    for k in sorted(set(result.rows["n_markers"])):
        for title, header, body in view_tables(comparison, k, competing, "[bold]{}[/bold]"):
            console.print(f"{result.study.spec.data.title}, {k} markers: {title}", highlight=False)
            table = Table(box=None, header_style="bold")
            for name in header:
                table.add_column(
                    name, justify="left" if name == "method" else "right", no_wrap=True
                )
            for row in body:
                table.add_row(*row)
            console.print(table)
            console.print()
    console.print(
        "mean ± standard deviation over n replicates, published number, difference; best in bold",
        highlight=False,
    )


def benchmark_json(result: BenchmarkResult, comparison: Comparison) -> dict[str, Any]:
    """What ``--json`` prints of a comparison."""
    nested = [n for n in map(str, result.rows) if n.startswith(("confusion/", "per_class_f1/"))]
    return {
        "study": result.study.name,
        "run_id": result.study.run_id,
        "tracking_uri": result.study.store.uri,
        "trials": result.rows.drop(columns=nested).to_dict(orient="records"),
        "table": comparison.table.to_dict(orient="records"),
        "tests": comparison.tests.to_dict(orient="records"),
        "failed": result.failed,
    }
