"""`mmlab select`: one method, one panel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmlab.cli.options import (
    DataOption,
    DatasetOption,
    JsonOption,
    LabelKeyOption,
    LayerOption,
    OfflineOption,
    QuickOption,
    TrackingOption,
    data_spec,
    look_hint,
    print_json,
    quick_params,
    say,
    stderr,
    stdout,
)
from mmlab.cli.panel_constraints import asks_panels
from mmlab.errors import UserError

if TYPE_CHECKING:
    from mmlab.spec.base import Scalar
    from mmlab.trial.result import TrialResult


@asks_panels
def select(
    dataset: DatasetOption = None,
    data: DataOption = None,
    label_key: LabelKeyOption = None,
    layer: LayerOption = None,
    offline: OfflineOption = False,
    method: Annotated[
        str, typer.Option(help="A name of `mmlab methods list`.")
    ] = "markermap_supervised",
    n_markers: Annotated[int, typer.Option("--n-markers", "-k", help="Genes in the panel.")] = 50,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the panel to this CSV file.")
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(help="A parameter of the method, e.g. hidden_size=128; repeatable."),
    ] = None,
    quick: QuickOption = False,
    recipe: Annotated[
        str, typer.Option(help="train_only: no statistic sees a test cell; or paper.")
    ] = "train_only",
    label_noise: Annotated[
        float, typer.Option(min=0, max=1, help="Share of train labels drawn at random.")
    ] = 0.0,
    replicates: Annotated[
        int, typer.Option(help="Random 70/10/20 splits; the panel is their consensus.")
    ] = 1,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    tracking_uri: TrackingOption = None,
    as_json: JsonOption = False,
    *,
    panel: dict[str, Any],
) -> None:
    """Choose a panel and measure it on other cells.

    Every method chooses it from training cells; the test cells, 20 % of all, only judge it.
    """
    from mmlab.datasets import load_cells
    from mmlab.preprocessing.splits import sampling_note
    from mmlab.spec.trial import TrialSpec
    from mmlab.spec.yaml import parse_spec
    from mmlab.trial.defaults import resolve_spec
    from mmlab.trial.run import Trial

    if output is not None and not output.absolute().parent.is_dir():
        raise UserError(f"--output {output}: the folder {output.parent} does not exist.")
    content = {
        "data": data_spec(dataset, data, label_key, layer),
        "selector": method,
        "params": (quick_params(method) if quick else {}) | _params(param or []),
        "n_markers": n_markers,
        "recipe": recipe,
        "noise": {"level": label_noise},
        "replicates": replicates,
        "seed": seed,
    }
    spec = parse_spec(TrialSpec, content | panel, "options")
    cells = load_cells(spec.data)
    spec = resolve_spec(spec, cells)
    if data is not None:
        say(cells.origin)
    Trial(spec, cells).check_constraints()

    from mmlab.tracking import TrackingStore, close_abandoned, run_tracked

    store = TrackingStore(tracking_uri)
    with stderr().status(f"choosing {n_markers} of {len(cells.genes)} genes with {method}"):
        store.initialise()
        close_abandoned(store)
        run_id, result = run_tracked(store, spec, cells)
    if output is not None:
        result.panel.to_csv(output, index=False)
    note = sampling_note(len(cells.y))
    if as_json:
        print_json(
            {
                "tracking_uri": store.uri,
                "run_id": run_id,
                "digest": result.digest,
                "metrics": result.metrics,
                "panel": result.panel.to_dict(orient="records"),
                "note": note,
            }
        )
        return
    _print_result(result)
    if note:
        say(note)
    if output is not None:
        say(f"panel written to {output}")
    say(f"run {run_id} kept in {store.uri}")
    say(look_hint(store.uri))


def _params(pairs: list[str]) -> dict[str, Scalar]:
    from mmlab.spec.yaml import parse_yaml

    params: dict[str, Scalar] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"--param {pair!r} is not of the form name=value.")
        params[name] = parse_yaml(value)
    return params


def _print_result(result: TrialResult) -> None:
    from rich.table import Table

    spec = result.spec
    table = Table(box=None, header_style="bold", title_justify="left")
    table.add_column("on the test cells")
    table.add_column("mean", justify="right")
    table.add_column("std" if spec.replicates > 1 else "", justify="right")
    for name, value in result.metrics.items():
        if not name.endswith("_std"):
            spread = result.metrics.get(f"{name}_std")
            table.add_row(name, f"{value:.4f}", "" if spread is None else f"{spread:.4f}")
    console = stdout()
    console.print(table)
    genes = ", ".join(result.panel["gene"])
    console.print(f"\npanel, best first: {genes}", highlight=False, markup=False, soft_wrap=True)
