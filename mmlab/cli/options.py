"""Options that several commands share, and how results are printed."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmlab.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from mmlab.spec.base import Scalar
    from mmlab.spec.trial import DataSpec

_DATA = "Data"
_RUN = "Where it runs and is kept"

DatasetOption = Annotated[
    str | None,
    typer.Option("--dataset", help="A name of `mmlab datasets list`.", rich_help_panel=_DATA),
]
DataOption = Annotated[
    Path | None,
    typer.Option("--data", help="Your own .h5ad file with raw counts.", rich_help_panel=_DATA),
]
LabelKeyOption = Annotated[
    str | None,
    typer.Option("--label-key", help="With --data: the obs column of the cell types."),
]
LayerOption = Annotated[
    str | None,
    typer.Option(
        "--layer", help="With --data: where the counts are, a layer, X or raw; default: found."
    ),
]
TrackingOption = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri",
        help="MLflow store, e.g. http://server:5000; default sqlite:///mlflow.db in this folder.",
        rich_help_panel=_RUN,
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option("--address", help="Ray cluster, e.g. ray://head:10001; default: this machine."),
]
CpusOption = Annotated[int, typer.Option("--cpus-per-trial", help="CPU threads of a trial.")]
GpusOption = Annotated[
    float, typer.Option("--gpus-per-trial", help="GPUs of a trial; 0.25 puts four on one GPU.")
]
ConcurrentOption = Annotated[
    int | None, typer.Option("--max-concurrent", help="Trials at a time; default: all that fit.")
]
QuickOption = Annotated[
    bool,
    typer.Option(
        "--quick",
        help="Train MarkerMap for 7 epochs, twenty times as fast; its panels are a bit worse.",
    ),
]


def _go_offline(offline: bool) -> bool:
    if offline:
        from mmlab.datasets.cache.install import OFFLINE_VARIABLE

        # Processes that this one starts are offline, too.
        os.environ[OFFLINE_VARIABLE] = "1"
    return offline


OfflineOption = Annotated[
    bool,
    typer.Option(
        "--offline",
        callback=_go_offline,
        help="Download nothing: say how to get a dataset that is not here.",
        rich_help_panel=_DATA,
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")
]


def data_spec(
    dataset: str | None, data: Path | None, label_key: str | None, layer: str | None
) -> DataSpec:
    """The cells that the options name.

    Raises
    ------
    UserError
        Neither or both of --dataset and --data, or options that do not go together.
    """
    from mmlab.spec.trial import DataSpec
    from mmlab.spec.yaml import parse_spec

    if dataset is None and data is None:
        raise UserError(
            "no cells are named: give --dataset NAME (see `mmlab datasets list`), or "
            "--data FILE.h5ad with --label-key KEY."
        )
    path = None if data is None else str(data.absolute())
    content = {"name": dataset, "path": path, "label_key": label_key, "layer": layer}
    return parse_spec(DataSpec, content, "data")


def quick_params(method: str) -> dict[str, Scalar]:
    """Parameters of the quick training of a method.

    Raises
    ------
    UserError
        Unknown method, or one that has no quick training.
    """
    from mmlab.selectors import SELECTORS, get_selector

    params = get_selector(method).quick
    if not params:
        quick = ", ".join(name for name, selector in SELECTORS.items() if selector.quick)
        raise UserError(f"--quick: {method} has no quick training; these have: {quick}.")
    return params


def program() -> str:
    """How the user called mmlab: its name where that is on the path, else the file."""
    called = sys.argv[0]
    found = shutil.which("mmlab")
    same = found is not None and Path(found).resolve() == Path(called).resolve()
    return "mmlab" if same else called


def look_hint(uri: str) -> str:
    """The command that opens the MLflow UI on a store."""
    from mmlab.tracking import resolve_uri

    option = "" if uri == resolve_uri(None) else f" --tracking-uri {uri}"
    return f"look at it with: {program()} ui{option}"


def print_json(content: Any) -> None:
    """One JSON document on stdout; NaN becomes null."""
    print(json.dumps(_without_nan(content), indent=2))


def stdout() -> Console:
    """Console for results."""
    from rich.console import Console

    return Console()


def stderr() -> Console:
    """Console for progress and messages."""
    from rich.console import Console

    return Console(stderr=True)


def say(text: str) -> None:
    """A message on stderr, as it is."""
    stderr().print(text, highlight=False, markup=False, soft_wrap=True)


def names(text: str) -> list[str]:
    """Names that an option lists, separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and value != value else value
