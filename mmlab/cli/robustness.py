"""`mmlab robustness`: accuracy of methods over the level of label noise."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated, Any

import typer

from mmlab.cli.comparison import OutputOptions, output_options, run_and_print
from mmlab.cli.comparison_options import (
    MethodsOption,
    ReplicatesOption,
    SizeOption,
    comparison_spec,
    parse_numbers,
)
from mmlab.cli.panel_constraints import constraint_options
from mmlab.cli.quick_option import QuickOption
from mmlab.cli.resource_options import resource_options
from mmlab.cli.shared_options import (
    DataOptions,
    RecipeOption,
    SeedOption,
    data_options,
    shared,
    with_shared_options,
)
from mmlab.errors import UserError
from mmlab.spec.resources import Resources


@with_shared_options
def robustness(
    data: DataOptions = shared(data_options),
    methods: MethodsOption = "all",
    levels: Annotated[
        str,
        typer.Option(
            help="Noise levels: shares of the training and validation cells whose label is drawn "
            "again."
        ),
    ] = "0,0.1,0.2,0.5,0.75,1",
    noise: Annotated[
        str,
        typer.Option(
            help="The new label: uniform (any cell type, as in the paper), uniform_other (any but "
            "the true one), pairwise (the type with the nearest mean expression), or "
            "class_dependent (from --noise-matrix)."
        ),
    ] = "uniform",
    noise_matrix: Annotated[
        Path | None,
        typer.Option(
            help="CSV file for class_dependent: one row per true cell type, one column per new "
            "type, probabilities that sum to 1 in every row."
        ),
    ] = None,
    n_markers: SizeOption = 50,
    replicates: ReplicatesOption = 10,
    recipe: RecipeOption = "train_only",
    seed: SeedOption = 0,
    quick: QuickOption = False,
    constraints: dict[str, Any] = shared(constraint_options),
    resources: Resources = shared(resource_options),
    output: OutputOptions = shared(output_options),
) -> None:
    """Measure how accuracy falls with label noise.

    Two experiments in one: the genes are selected and the classifiers are fitted with noisy labels
    (knn/...), or only the genes are selected with noisy labels (clean_knn/...). Accuracy is always
    measured with the true labels of the test cells. Every method gets the same noisy labels, and
    the noisy labels of a level include those of the level below. The same command resumes an
    interrupted study.
    """
    content = {
        "study": "robustness",
        "n_markers": [n_markers],
        "levels": parse_numbers("--levels", levels, float),
        "noise": noise,
        "matrix": {} if noise_matrix is None else read_matrix(noise_matrix),
        "replicates": replicates,
        "recipe": recipe,
        "seed": seed,
        **constraints,
    }
    run_and_print(comparison_spec(content, data.spec(), methods, quick), resources, output)


def read_matrix(path: Path) -> dict[str, dict[str, float]]:
    """Return the rows of a noise matrix by true class from a CSV file, without zeros.

    Raises
    ------
    UserError
        The file cannot be read, names a class twice, or holds something that is not a number.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            header, *lines = [line for line in csv.reader(stream) if any(line)]
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise UserError(
            f"--noise-matrix {path}: cannot be read as a CSV table: {error}."
        ) from error
    classes, matrix = header[1:], dict[str, dict[str, float]]()
    for true_class, *values in lines:
        if len(values) != len(classes) or true_class in matrix or len(set(classes)) < len(classes):
            raise UserError(
                f"--noise-matrix {path}: the row {true_class!r} has {len(values)} numbers for "
                f"{len(classes)} classes, or a class is named twice."
            )
        try:
            row = dict(zip(classes, map(float, values), strict=True))
        except ValueError as error:
            raise UserError(f"--noise-matrix {path}, row {true_class!r}: {error}.") from None
        matrix[true_class] = {name: share for name, share in row.items() if share != 0}
    return matrix
