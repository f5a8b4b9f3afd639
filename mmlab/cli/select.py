"""`mmlab select`: one panel of one method."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmlab.cli.console import print_json, print_message
from mmlab.cli.help_panels import OUTPUT
from mmlab.cli.option_names import parse_options
from mmlab.cli.output_checks import check_output_file
from mmlab.cli.panel_constraints import constraint_options
from mmlab.cli.quick_option import QuickOption, quick_params
from mmlab.cli.select_output import print_panel
from mmlab.cli.select_progress import SelectProgress
from mmlab.cli.shared_options import (
    DataOptions,
    JsonOption,
    RecipeOption,
    SeedOption,
    TrackingOption,
    data_options,
    shared,
    with_shared_options,
)
from mmlab.cli.tracking_store import open_store, page_hint, page_link
from mmlab.errors import UserError
from mmlab.system.files import atomic_write

if TYPE_CHECKING:
    from mmlab.spec.base import Scalar
    from mmlab.trial.result import TrialResult


@with_shared_options
def select(
    data: DataOptions = shared(data_options),
    method: Annotated[
        str, typer.Option(help="Name of a method, see `mmlab methods list`.")
    ] = "markermap_supervised",
    n_markers: Annotated[int, typer.Option("--n-markers", "-k", help="Genes in the panel.")] = 50,
    param: Annotated[
        list[str] | None,
        typer.Option(help="A parameter of the method, e.g. hidden_size=128; repeatable."),
    ] = None,
    quick: QuickOption = False,
    recipe: RecipeOption = "train_only",
    label_noise: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Share of the training and validation cells whose label is drawn again, "
            "uniformly from all types.",
        ),
    ] = 0.0,
    replicates: Annotated[
        int,
        typer.Option(
            help="Random splits of the cells into 70 % training, 10 % validation and 20 % test "
            "cells; the panel is their consensus."
        ),
    ] = 1,
    seed: SeedOption = 0,
    constraints: dict[str, Any] = shared(constraint_options),
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write the panel to this CSV file.", rich_help_panel=OUTPUT
        ),
    ] = None,
    tracking_uri: TrackingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Select a gene panel and evaluate it on test cells.

    The panel is chosen from training cells; 20 % of the cells are held out to evaluate it.
    """
    from mmlab.datasets import load_cells
    from mmlab.preprocessing.splits import sampling_note
    from mmlab.spec.trial import TrialSpec
    from mmlab.trial.defaults import resolve_spec
    from mmlab.trial.run import Trial

    check_output_file("--output", output)
    cells_spec = data.spec()
    quick_training = quick_params([method], cells_spec)[method] if quick else {}
    content = {
        "data": cells_spec,
        "selector": method,
        "params": quick_training | _params(param or []),
        "n_markers": n_markers,
        "recipe": recipe,
        "noise": {"level": label_noise},
        "replicates": replicates,
        "seed": seed,
    }
    spec = parse_options(TrialSpec, content | constraints)
    store = open_store(tracking_uri, write=True)
    cells = load_cells(spec.data)
    spec = resolve_spec(spec, cells)
    if data.data is not None:
        print_message(cells.origin)
    Trial(spec, cells).check_constraints()

    from mmlab.tracking import UnrecordedResultError, close_abandoned, run_page, run_tracked

    title = f"Selecting {n_markers} of {len(cells.genes)} genes with {method}"
    with SelectProgress(title, spec.params.get("max_epochs")) as progress:
        store.initialise()
        close_abandoned(store)
        try:
            run_id, result = run_tracked(store, spec, cells, progress.update)
        except UnrecordedResultError as error:
            _write_panel(error.result, output, str(error.panel_file))
            raise
    _write_panel(result, output, f"panel.csv of run {run_id} in {store.uri}")
    note = sampling_note(len(cells.y))
    page = run_page(store.experiment(cells.name), run_id)
    if as_json:
        print_json(
            {
                "tracking_uri": store.uri,
                "page": page_link(store, page),
                "run_id": run_id,
                "digest": result.digest,
                "metrics": result.metrics,
                "panel": result.panel.to_dict(orient="records"),
                "note": note,
            }
        )
        return
    print_panel(result, list(cells.classes))
    if note:
        print_message(note)
    if output is not None:
        print_message(f"Panel written to {output}")
    print_message(f"Run {run_id} is saved in {store.uri}")
    print_message(page_hint(store, page))


def _write_panel(result: TrialResult, output: Path | None, elsewhere: str) -> None:
    """Write the panel to the user's file; if that fails, keep an older one, and say where it is."""
    if output is None:
        return
    # A device, a pipe, or a link to one, such as /dev/stdout, is written to, not replaced.
    regular = not output.is_symlink() and (output.is_file() or not output.exists())
    try:
        with atomic_write(output) if regular else nullcontext(output) as path:
            result.panel.to_csv(path, index=False)
    except OSError as error:
        raise UserError(
            f"--output {output} could not be written: {error.strerror or error}. The panel is in "
            f"{elsewhere}: {', '.join(result.panel['gene'])}."
        ) from error


def _params(pairs: list[str]) -> dict[str, Scalar]:
    from mmlab.spec.yaml_text import parse_value

    params: dict[str, Scalar] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise UserError(f"--param {pair!r} is not of the form name=value.")
        params[name] = parse_value(value, f"--param {name}")
    return params
