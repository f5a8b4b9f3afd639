"""Options that several commands share, declared once, and what they are parsed to.

A group of options is a function whose parameters are the options, or groups. A command takes what
the function returns, as in ``resources: Resources = shared(resource_options)``, and
:func:`with_shared_options` puts the options of the group in the place of that parameter.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmlab.cli.file_options import LayerOption, file_options, label_key_error
from mmlab.cli.help_panels import DATA, OUTPUT
from mmlab.cli.option_names import option_name, parse_options
from mmlab.errors import UserError

if TYPE_CHECKING:
    from mmlab.spec.trial import DataSpec


@dataclass(frozen=True)
class _Group:
    """The default value of a parameter that a group of options fills."""

    options: Callable[..., Any]


def shared(options: Callable[..., Any]) -> Any:
    """Return the default value of a parameter that gets what ``options`` returns."""
    return _Group(options)


def with_shared_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with the options of its groups in place of the groups."""
    groups = {
        name: parameter.default.options
        for name, parameter in inspect.signature(command).parameters.items()
        if isinstance(parameter.default, _Group)
    }
    parameters = list(_options(command))

    @wraps(command)
    def parsed(**values: Any) -> None:
        built = {name: _build(options, values) for name, options in groups.items()}
        command(**values, **built)

    parsed.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    parsed.__annotations__ = {option.name: option.annotation for option in parameters}
    return parsed


def _build(options: Callable[..., Any], values: dict[str, Any]) -> Any:
    """Return what a group returns for its options, which are taken out of ``values``."""
    return options(
        **{
            name: _build(parameter.default.options, values)
            if isinstance(parameter.default, _Group)
            else values.pop(name)
            for name, parameter in inspect.signature(options).parameters.items()
        }
    )


def _options(function: Callable[..., Any]) -> Iterator[inspect.Parameter]:
    """Options of a command or of a group, in order."""
    for option in inspect.signature(function, eval_str=True).parameters.values():
        if isinstance(option.default, _Group):
            yield from _options(option.default.options)
        else:
            yield option.replace(kind=inspect.Parameter.KEYWORD_ONLY)


# --- data


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
        help="Do not download; if the dataset is not on this machine, explain how to get it by "
        "hand.",
        rich_help_panel=DATA,
    ),
]


@dataclass(frozen=True)
class DataOptions:
    """The cells that the options name; :meth:`spec` checks them."""

    dataset: str | None
    data: Path | None
    label_key: str | None
    layer: str | None
    min_cells_per_type: int | None
    drop_unlabelled: bool
    gene_names: str | None
    round_counts: bool

    def spec(self) -> DataSpec:
        """Return the specification of the cells.

        Raises
        ------
        UserError
            Neither or both of --dataset and --data, or options that do not go together.
        """
        from mmlab.spec.trial import DataSpec

        if self.dataset is None and self.data is None:
            raise UserError(
                "no cells are named: pass --dataset NAME (see `mmlab datasets list`), or "
                "--data FILE.h5ad with --label-key KEY."
            )
        if self.dataset is not None and self.data is not None:
            raise UserError("pass either --dataset or --data, not both.")
        if self.data is not None and self.label_key is None:
            raise label_key_error(f"--data {self.data}", self.data)
        of_files = asdict(self).keys() - {"dataset", "data"}
        given = [name for name in asdict(self) if name in of_files and getattr(self, name)]
        if self.dataset is not None and given:
            listed = ", ".join(option_name(name) for name in given)
            raise UserError(
                f"{listed}: only a file (--data) can have this, not the dataset {self.dataset}."
            )
        path = None if self.data is None else str(self.data.absolute())
        content = asdict(self) | {"name": self.dataset, "path": path}
        del content["dataset"], content["data"]
        return parse_options(DataSpec, content)


def data_options(
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Name of a dataset, see `mmlab datasets list`; or use --data.",
            rich_help_panel=DATA,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Your own .h5ad file or AnnData .zarr with raw counts; requires --label-key.",
            rich_help_panel=DATA,
        ),
    ] = None,
    label_key: Annotated[
        str | None,
        typer.Option(
            help="With --data: the obs column that holds the cell types.", rich_help_panel=DATA
        ),
    ] = None,
    layer: LayerOption = None,
    file_fields: dict[str, Any] = shared(file_options),
    offline: OfflineOption = False,
) -> DataOptions:
    """Return the cells that a command works on."""
    return DataOptions(dataset, data, label_key, layer, **file_fields)


# --- output


TrackingOption = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri",
        help="MLflow tracking server or database, e.g. http://server:5000. Default: "
        "the variable MLFLOW_TRACKING_URI, else sqlite:///mlflow.db in this folder. Passwords are "
        "neither printed nor recorded.",
        rich_help_panel=OUTPUT,
    ),
]
StorageOption = Annotated[
    str,
    typer.Option(
        "--storage",
        metavar="FOLDER|s3://...",
        envvar="MMLAB_STORAGE",
        help="Where finished trials wait until the tracking server has them, if it should outlive "
        "this machine. Default: a local folder.",
        rich_help_panel=OUTPUT,
    ),
]
JsonOption = Annotated[
    bool,
    typer.Option(
        "--json", help="Print one JSON document on stdout, nothing else.", rich_help_panel=OUTPUT
    ),
]


# --- methods


SeedOption = Annotated[int, typer.Option(min=0, help="Seed of all random numbers.")]
RecipeOption = Annotated[
    str,
    typer.Option(
        help="Cells from which the mean and standard deviation of the z-scores are computed: "
        "train_only, or paper (all cells, as in the published tables)."
    ),
]


def split_names(text: str) -> list[str]:
    """Return the names in a comma-separated list."""
    return [name.strip() for name in text.split(",") if name.strip()]
