"""`mmlab tune`: search a method's hyperparameters."""

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
    OfflineOption,
    QuickOption,
    TrackingOption,
    data_spec,
    look_hint,
    print_json,
    program,
    quick_params,
    stderr,
    stdout,
)
from mmlab.cli.panel_constraints import asks_panels
from mmlab.errors import UserError

if TYPE_CHECKING:
    from mmlab.schedule import SearchResult
    from mmlab.spec.search import SearchSpec


#: Quick methods without settings, to see what a search is worth.
_BASELINES = ("scanpy_t_test", "random")


@asks_panels
def tune(
    dataset: DatasetOption = None,
    data: DataOption = None,
    label_key: LabelKeyOption = None,
    layer: LayerOption = None,
    offline: OfflineOption = False,
    method: Annotated[
        str | None, typer.Option(help="Method to tune; default markermap_supervised.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Configurations to try; default 20.")
    ] = None,
    n_markers: Annotated[
        int | None, typer.Option("--n-markers", "-k", help="Genes in the panel; default 50.")
    ] = None,
    search: Annotated[
        Path | None,
        typer.Option(help="YAML search space; default: the one shipped for the method."),
    ] = None,
    replicates: Annotated[
        int | None, typer.Option(min=1, help="Train/validation splits a trial; default 2.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Most epochs of a trial; default: the method's own.")
    ] = None,
    quick: QuickOption = False,
    with_baselines: Annotated[
        bool,
        typer.Option("--with-baselines", help="Add Scanpy's t-test and random genes as trials."),
    ] = False,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of everything random; default 0.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the study; default: the dataset and the time.")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(metavar="STUDY", help="Go on with a study; --trials may be raised."),
    ] = None,
    tracking_uri: TrackingOption = None,
    address: AddressOption = None,
    cpus_per_trial: CpusOption = 1,
    gpus_per_trial: GpusOption = 0.0,
    max_concurrent: ConcurrentOption = None,
    as_json: JsonOption = False,
    *,
    panel: dict[str, Any],
) -> None:
    """Search a method's best settings; test cells stay locked.

    Ray Tune runs the trials, Optuna proposes them, hopeless ones are stopped early, and MLflow
    keeps all of them.
    """
    given = {
        "dataset": dataset,
        "data": data,
        "label_key": label_key,
        "layer": layer,
        "method": method,
        "n_markers": n_markers,
        "search": search,
        "replicates": replicates,
        "epochs": epochs,
        "quick": quick or None,
        "seed": seed,
        "name": name,
    }
    if resume is None:
        spec = _study_spec(given | panel, trials, with_baselines)
    else:
        asked = given | {name: value or None for name, value in panel.items()}
        asked |= asked.pop("constraints") or {}
        fixed = [
            f"--{name.replace('_', '-')}" for name, value in asked.items() if value is not None
        ]
        if fixed or with_baselines:
            raise UserError(
                f"--resume takes everything but --trials from study {resume}: leave out "
                + ", ".join(fixed or ["--with-baselines"])
                + "."
            )

    from mmlab.schedule import Resources, StudyInterruptedError, resume_search, run_search
    from mmlab.tracking import TrackingStore

    resources = Resources(address, cpus_per_trial, gpus_per_trial, max_concurrent)
    store = TrackingStore(tracking_uri)
    try:
        if resume is None:
            command = shlex.join(["mmlab", *sys.argv[1:]])
            result = run_search(spec, store, resources, stderr(), command, name)
        else:
            result = resume_search(resume, store, resources, stderr(), trials)
    except StudyInterruptedError as study:
        stderr().print(
            f"interrupted; ended trials are kept. Go on with: {program()} tune --resume {study}",
            highlight=False,
            soft_wrap=True,
        )
        raise typer.Exit(130) from None
    if as_json:
        print_json(study_json(result))
    else:
        _print_result(result)


def _study_spec(given: dict[str, Any], trials: int | None, with_baselines: bool) -> SearchSpec:
    from mmlab.selectors import get_selector
    from mmlab.spec.search import SearchSpace, SearchSpec
    from mmlab.spec.yaml import default_search_space_file, parse_spec, read_spec

    data = data_spec(given["dataset"], given["data"], given["label_key"], given["layer"])
    method = given["method"]
    if method is not None:
        get_selector(method)
    path = given["search"] or default_search_space_file(
        method or "markermap_supervised", data.title
    )
    space = read_spec(path, SearchSpace)
    get_selector(space.selector)
    if method is not None and space.selector != method:
        raise UserError(f"{path} is a search space of {space.selector}, not of {method}.")
    fixed = dict(space.fixed)
    if given["quick"]:
        params = quick_params(space.selector).items()
        fixed = {name: value for name, value in params if name not in space.parameters} | fixed
    if given["epochs"] is not None:
        fixed["max_epochs"] = given["epochs"]
    space = space.model_copy(update={"fixed": fixed})
    content = {"data": data, "search": space, "trials": trials or 20}
    for name in ("n_markers", "replicates", "seed", "include", "exclude", "constraints"):
        if given.get(name) is not None:
            content[name] = given[name]
    if with_baselines:
        content["baselines"] = list(_BASELINES)
    return parse_spec(SearchSpec, content, "options")


def study_json(result: SearchResult) -> dict[str, Any]:
    """What ``--json`` prints of a study."""
    best = result.best
    return {
        "study": result.study.name,
        "run_id": result.study.run_id,
        "tracking_uri": result.study.store.uri,
        "trials": [
            {
                "digest": trial.digest,
                "run_id": trial.run_id,
                "selector": trial.selector,
                "status": str(trial.outcome),
                "params": trial.spec.params,
                "metrics": trial.metrics,
            }
            for trial in result.trials
        ],
        "best": None
        if best is None
        else {
            "digest": best.digest,
            "run_id": best.run_id,
            "config": best.spec.params,
            "metrics": best.metrics,
            "panel": result.study.panel(best),
        },
    }


def _print_result(result: SearchResult) -> None:
    from rich.table import Table

    from mmlab.tracking import format_value

    study, console = result.study, stdout()
    if result.best is None:
        console.print("no trial ran to its end")
    else:
        best = result.best
        table = Table(box=None, show_header=False)
        table.add_row("validation score", f"{best.score:.4f}")
        for name in study.spec.search.parameters:
            table.add_row(name, format_value(best.spec.params[name]))
        console.print(f"best of {study.spec.trials} trials: {best.digest[:8]}", highlight=False)
        console.print(table)
        genes = ", ".join(study.panel(best)[:10])
        console.print(f"first markers: {genes}", highlight=False, markup=False, soft_wrap=True)
    uri = study.store.uri
    console.print(f"study {study.name} kept in {uri}", highlight=False, soft_wrap=True)
    console.print(look_hint(uri), highlight=False, soft_wrap=True)
