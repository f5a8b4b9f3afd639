"""`mmlab tune`: a search of a method's hyperparameters."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmlab.cli.console import (
    print_json,
    print_message,
    recorded_command,
    same_command,
    stderr,
)
from mmlab.cli.interrupted import TRY_AGAIN, end_interrupted, print_unsent, resume_command
from mmlab.cli.option_names import parse_options
from mmlab.cli.panel_constraints import constraint_options
from mmlab.cli.quick_option import QuickOption, quick_params
from mmlab.cli.resource_options import resource_options
from mmlab.cli.search_output import describe_missing, print_result, search_json
from mmlab.cli.shared_options import (
    DataOptions,
    JsonOption,
    StorageOption,
    TrackingOption,
    data_options,
    shared,
    with_shared_options,
)
from mmlab.cli.tracking_store import open_store
from mmlab.errors import UserError
from mmlab.spec.resources import Resources

if TYPE_CHECKING:
    from mmlab.spec.search import SearchSpec


#: Fast methods without hyperparameters, which a search has to beat.
_BASELINES = ("scanpy_t_test", "random")


@with_shared_options
def tune(
    data: DataOptions = shared(data_options),
    method: Annotated[
        str | None, typer.Option(help="Method to tune. Default: markermap_supervised.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Configurations to try. Default: 20.")
    ] = None,
    n_markers: Annotated[
        int | None, typer.Option("--n-markers", "-k", help="Genes in the panel. Default: 50.")
    ] = None,
    search: Annotated[
        Path | None,
        typer.Option(
            help="YAML file of the search space. Default: that of mmlab, for MarkerMap, Concrete "
            "VAE and Global-Gumbel VAE."
        ),
    ] = None,
    replicates: Annotated[
        int | None,
        typer.Option(
            min=1, help="Random splits into training and validation cells per trial. Default: 2."
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum epochs per trial. Default: that of the method."),
    ] = None,
    quick: QuickOption = False,
    with_baselines: Annotated[
        bool,
        typer.Option("--with-baselines", help="Add Scanpy's t-test and random genes as trials."),
    ] = False,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of all random numbers. Default: 0.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the study. Default: the dataset and the time.")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(metavar="STUDY", help="Resume a study; --trials may be raised."),
    ] = None,
    constraints: dict[str, Any] = shared(constraint_options),
    resources: Resources = shared(resource_options),
    tracking_uri: TrackingOption = None,
    storage: StorageOption = "",
    as_json: JsonOption = False,
) -> None:
    """Search for the best hyperparameters of a method on a dataset.

    Ray Tune runs the trials, Optuna proposes them, successive halving stops poor ones early, and
    every trial is an MLflow run. No trial of a search sees the held-out test set.
    """
    requested = {
        **asdict(data),
        "method": method,
        "n_markers": n_markers,
        "search": search,
        "replicates": replicates,
        "epochs": epochs,
        "quick": quick or None,
        "seed": seed,
        "name": name,
    } | constraints
    if resume is None:
        spec = search_spec(requested, trials, with_baselines)
    else:
        _require_nothing_else(resume, requested, with_baselines)

    store = open_store(tracking_uri, storage, write=True)

    from mmlab.schedule.search import resume_search, run_search
    from mmlab.system.interruption import StudyInterruptedError

    try:
        if resume is None:
            result = run_search(spec, store, resources, stderr(), recorded_command(), name)
        else:
            result = resume_search(resume, store, resources, stderr(), trials)
    except StudyInterruptedError as interrupted:
        command = same_command()
        if interrupted.study:
            command = resume_command(interrupted.study, tracking_uri, resources)
        end_interrupted(interrupted.reason, f"Finished trials are kept; resume with: {command}")
    if as_json:
        print_json(search_json(result))
    else:
        print_result(result)
    if result.unsent:
        command = resume_command(result.study.name, tracking_uri, resources)
        print_unsent(result.unsent, store.uri, result.waiting_in, command)
        raise typer.Exit(TRY_AGAIN)
    missing = describe_missing(result)
    if missing:
        print_message(missing)
        raise typer.Exit(1)


def _require_nothing_else(study: str, requested: dict[str, Any], with_baselines: bool) -> None:
    """Raise ``UserError`` for options that a resumed search takes from its study."""
    given = {name: value or None for name, value in requested.items()}
    given |= given.pop("constraints") or {}
    if requested["seed"] is not None:
        given["seed"] = requested["seed"]
    fixed = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]
    if fixed or with_baselines:
        raise UserError(
            f"--resume takes everything but --trials from study {study}: leave out "
            + ", ".join(fixed or ["--with-baselines"])
            + "."
        )


def search_spec(requested: dict[str, Any], trials: int | None, with_baselines: bool) -> SearchSpec:
    """Return the specification of a search from the options of its command."""
    from mmlab.selectors import get_selector
    from mmlab.spec.search import SearchSpace, SearchSpec
    from mmlab.spec.yaml import default_search_space_file, read_spec

    names = [field.name for field in fields(DataOptions)]
    data = DataOptions(**{name: requested[name] for name in names}).spec()
    method = requested["method"]
    if method is not None:
        get_selector(method)
    path = requested["search"] or default_search_space_file(
        method or "markermap_supervised", data.title
    )
    space = read_spec(path, SearchSpace)
    get_selector(space.selector)
    if method is not None and space.selector != method:
        raise UserError(f"{path} is a search space of {space.selector}, not of {method}.")
    fixed = dict(space.fixed)
    if requested["quick"]:
        params = quick_params([space.selector], data)[space.selector].items()
        fixed = {name: value for name, value in params if name not in space.parameters} | fixed
    if requested["epochs"] is not None:
        fixed["max_epochs"] = requested["epochs"]
    space = space.model_copy(update={"fixed": fixed})
    content = {"data": data, "search": space, "trials": trials or 20}
    for name in ("n_markers", "replicates", "seed", "include", "exclude", "constraints"):
        if requested.get(name) is not None:
            content[name] = requested[name]
    if with_baselines:
        content["baselines"] = list(_BASELINES)
    return parse_options(SearchSpec, content)
