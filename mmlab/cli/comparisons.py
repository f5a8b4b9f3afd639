"""`mmlab benchmark`, `robustness`, `sweep` and `run`: methods compared on the same cells."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmlab.cli.comparison import run_and_show
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
    OfflineOption,
    QuickOption,
    TrackingOption,
    data_spec,
    quick_params,
)
from mmlab.cli.panel_constraints import asks_panels
from mmlab.errors import UserError

if TYPE_CHECKING:
    from mmlab.schedule import Resources
    from mmlab.spec.comparison import ComparisonSpec
    from mmlab.spec.trial import DataSpec

MethodsOption = Annotated[
    str, typer.Option(help="Names of `mmlab methods list`, separated by commas; or all.")
]
ReplicatesOption = Annotated[
    int, typer.Option(min=1, help="Random 70/10/20 splits, the same for every method.")
]
SizeOption = Annotated[int, typer.Option("--n-markers", "-k", min=1, help="Genes in the panel.")]
RecipeOption = Annotated[
    str, typer.Option(help="train_only: no statistic sees a test cell; or paper.")
]
SeedOption = Annotated[int, typer.Option(min=0, help="Of everything random.")]
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
    typer.Option("--output", "-o", help="Write the tables and figures into this folder too."),
]


@asks_panels
def benchmark(
    dataset: DatasetOption = None,
    data: DataOption = None,
    label_key: LabelKeyOption = None,
    layer: LayerOption = None,
    offline: OfflineOption = False,
    methods: MethodsOption = "all",
    n_markers: Annotated[
        str, typer.Option("--n-markers", "-k", help="Genes in the panel; several by commas.")
    ] = "50",
    replicates: ReplicatesOption = 10,
    recipe: RecipeOption = "train_only",
    seed: SeedOption = 0,
    quick: QuickOption = False,
    rows: RowsOption = None,
    output: OutputOption = None,
    tracking_uri: TrackingOption = None,
    address: AddressOption = None,
    cpus_per_trial: CpusOption = 1,
    gpus_per_trial: GpusOption = 0.0,
    max_concurrent: ConcurrentOption = None,
    as_json: JsonOption = False,
    *,
    panel: dict[str, Any],
) -> None:
    """Compare methods on the same splits of one dataset.

    The published numbers stand beside ours. Interrupted in any way and started again, it computes
    only what is missing.
    """
    content = {
        "study": "benchmark",
        "n_markers": _numbers("--n-markers", n_markers, int),
        "replicates": replicates,
        "recipe": recipe,
        "seed": seed,
        **panel,
    }
    spec = _spec(content, data_spec(dataset, data, label_key, layer), methods, quick)
    resources = _resources(address, cpus_per_trial, gpus_per_trial, max_concurrent)
    run_and_show(spec, rows, output, tracking_uri, resources, as_json)


@asks_panels
def robustness(
    dataset: DatasetOption = None,
    data: DataOption = None,
    label_key: LabelKeyOption = None,
    layer: LayerOption = None,
    offline: OfflineOption = False,
    methods: MethodsOption = "all",
    levels: Annotated[
        str, typer.Option(help="Shares of the training cells that get another label; with 0.")
    ] = "0,0.1,0.2,0.5,0.75,1",
    noise: Annotated[
        str,
        typer.Option(
            help="What the label becomes: uniform, any class as in the paper; uniform_other, any "
            "but the true one; pairwise, the class nearest in expression; class_dependent, what "
            "--noise-matrix says."
        ),
    ] = "uniform",
    noise_matrix: Annotated[
        Path | None,
        typer.Option(
            help="CSV file for class_dependent: a true class a row, a given class a column, "
            "probabilities that add up to 1 in every row."
        ),
    ] = None,
    n_markers: SizeOption = 50,
    replicates: ReplicatesOption = 10,
    recipe: RecipeOption = "train_only",
    seed: SeedOption = 0,
    quick: QuickOption = False,
    rows: RowsOption = None,
    output: OutputOption = None,
    tracking_uri: TrackingOption = None,
    address: AddressOption = None,
    cpus_per_trial: CpusOption = 1,
    gpus_per_trial: GpusOption = 0.0,
    max_concurrent: ConcurrentOption = None,
    as_json: JsonOption = False,
    *,
    panel: dict[str, Any],
) -> None:
    """Measure what wrong labels cost, as curves over their share.

    Two experiments in one: wrong labels for the selection and the classifiers (knn/...), and for
    the selection alone (clean_knn/...). Replicate r of every method has the same wrong labels, and
    those of a level are among those of the next. Interrupted in any way and started again, it
    computes only what is missing.
    """
    content = {
        "study": "robustness",
        "n_markers": [n_markers],
        "levels": _numbers("--levels", levels, float),
        "noise": noise,
        "matrix": {} if noise_matrix is None else read_matrix(noise_matrix),
        "replicates": replicates,
        "recipe": recipe,
        "seed": seed,
        **panel,
    }
    spec = _spec(content, data_spec(dataset, data, label_key, layer), methods, quick)
    resources = _resources(address, cpus_per_trial, gpus_per_trial, max_concurrent)
    run_and_show(spec, rows, output, tracking_uri, resources, as_json)


@asks_panels
def sweep(
    over: Annotated[
        str,
        typer.Argument(
            help="What varies: n_markers=10,25,50,100,250, or a parameter of the methods, such "
            "as hidden_size=64,128,256."
        ),
    ],
    dataset: DatasetOption = None,
    data: DataOption = None,
    label_key: LabelKeyOption = None,
    layer: LayerOption = None,
    offline: OfflineOption = False,
    methods: MethodsOption = "markermap_supervised",
    n_markers: SizeOption = 50,
    replicates: ReplicatesOption = 10,
    umap: Annotated[
        bool,
        typer.Option(
            help="Over n_markers: draw UMAPs of each method's panels, coloured by type; seconds "
            "a panel."
        ),
    ] = False,
    recipe: RecipeOption = "train_only",
    seed: SeedOption = 0,
    quick: QuickOption = False,
    rows: RowsOption = None,
    output: OutputOption = None,
    tracking_uri: TrackingOption = None,
    address: AddressOption = None,
    cpus_per_trial: CpusOption = 1,
    gpus_per_trial: GpusOption = 0.0,
    max_concurrent: ConcurrentOption = None,
    as_json: JsonOption = False,
    *,
    panel: dict[str, Any],
) -> None:
    """Draw curves over the panel size or a parameter of methods.

    Interrupted in any way and started again, it computes only what is missing.
    """
    name, values = _over(over)
    content = {
        "study": "sweep",
        "n_markers": values if name == "n_markers" else [n_markers],
        "over": {} if name == "n_markers" else {name: values},
        "umap": umap,
        "replicates": replicates,
        "recipe": recipe,
        "seed": seed,
        **panel,
    }
    spec = _spec(content, data_spec(dataset, data, label_key, layer), methods, quick)
    resources = _resources(address, cpus_per_trial, gpus_per_trial, max_concurrent)
    run_and_show(spec, rows, output, tracking_uri, resources, as_json)


def run(
    file: Annotated[
        Path, typer.Argument(help="A YAML study, e.g. experiments/table1_3_zeisel.yaml.")
    ],
    rows: RowsOption = None,
    output: OutputOption = None,
    offline: OfflineOption = False,
    tracking_uri: TrackingOption = None,
    address: AddressOption = None,
    cpus_per_trial: CpusOption = 1,
    gpus_per_trial: GpusOption = 0.0,
    max_concurrent: ConcurrentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a study that a YAML file describes.

    Interrupted in any way and started again, it computes only what is missing.
    """
    from mmlab.spec.comparison import ComparisonSpec
    from mmlab.spec.yaml import read_spec

    spec = read_spec(file, ComparisonSpec)
    resources = _resources(address, cpus_per_trial, gpus_per_trial, max_concurrent)
    run_and_show(spec, rows, output, tracking_uri, resources, as_json)


def read_matrix(path: Path) -> dict[str, dict[str, float]]:
    """A noise matrix from a CSV file, by true class; zeros are left out.

    Raises
    ------
    UserError
        The file cannot be read, names a class twice, or holds something that is no number.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            header, *lines = [line for line in csv.reader(stream) if any(line)]
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise UserError(
            f"--noise-matrix {path}: cannot be read as a CSV table: {error}."
        ) from error
    given, matrix = header[1:], dict[str, dict[str, float]]()
    for true, *cells in lines:
        if len(cells) != len(given) or true in matrix or len(set(given)) < len(given):
            raise UserError(
                f"--noise-matrix {path}: the row {true!r} has {len(cells)} numbers for "
                f"{len(given)} classes, or a class is named twice."
            )
        try:
            row = dict(zip(given, map(float, cells), strict=True))
        except ValueError as error:
            raise UserError(f"--noise-matrix {path}, row {true!r}: {error}.") from None
        matrix[true] = {name: share for name, share in row.items() if share != 0}
    return matrix


def _spec(content: dict[str, Any], data: DataSpec, methods: str, quick: bool) -> ComparisonSpec:
    from mmlab.selectors import SELECTORS
    from mmlab.spec.comparison import ComparisonSpec
    from mmlab.spec.yaml import parse_spec

    named: list[dict[str, Any]] = [
        {"selector": name} for name in _method_names(methods, data, content)
    ]
    for method in named if quick else ():
        params = SELECTORS[method["selector"]].quick if method["selector"] in SELECTORS else {}
        if params:
            method |= {"params": params, "label": f"{method['selector']} (quick)"}
    if quick and not any("params" in method for method in named):
        quick_params(named[0]["selector"])
    return parse_spec(ComparisonSpec, content | {"data": data, "methods": named}, "options")


def _method_names(methods: str, data: DataSpec, content: dict[str, Any]) -> list[str]:
    from mmlab.datasets import is_simulated
    from mmlab.selectors import SELECTORS

    if methods != "all":
        return [name.strip() for name in methods.split(",")]
    # Nobody knows the true markers of measured cells, and all genes hold no constraints.
    simulated = data.name is not None and is_simulated(data.name)
    left_out = set() if simulated else {"oracle"}
    if content["exclude"] or content["constraints"]:
        left_out.add("all_genes")
    return [name for name in SELECTORS if name not in left_out]


def _numbers(option: str, text: str, kind: type[int] | type[float]) -> list[float]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        wanted = "whole numbers" if kind is int else "numbers"
        raise UserError(f"{option} {text!r}: give {wanted}, separated by commas.") from None


def _over(text: str) -> tuple[str, list[Any]]:
    from mmlab.spec.yaml import parse_yaml

    name, equals, values = text.partition("=")
    if not equals or not name or not values:
        raise UserError(f"{text!r} is not of the form name=value,value.")
    return name.strip(), [parse_yaml(value) for value in values.split(",")]


def _resources(
    address: str | None, cpus_per_trial: int, gpus_per_trial: float, max_concurrent: int | None
) -> Resources:
    from mmlab.schedule import Resources

    return Resources(address, cpus_per_trial, gpus_per_trial, max_concurrent)
