"""`mmlab methods`: the marker selection methods and their parameters."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from mmlab.cli.console import print_json, stdout
from mmlab.cli.help_panels import command_with_panels, help_without_command
from mmlab.cli.shared_options import JsonOption

if TYPE_CHECKING:
    from mmlab.selectors.quick_training import QuickTraining
    from mmlab.spec.base import Scalar

app = typer.Typer(help="List and describe the methods.")
app.callback(invoke_without_command=True)(help_without_command)


@app.command("list", cls=command_with_panels("Options"))
def list_methods(as_json: JsonOption = False) -> None:
    """List the methods."""
    from rich.table import Table

    from mmlab.selectors import SELECTORS

    if as_json:
        print_json([{"name": name, "summary": s.summary} for name, s in SELECTORS.items()])
        return
    table = Table(box=None, header_style="bold")
    for column in ("name", "labels", "method"):
        table.add_column(column)
    for name, selector in SELECTORS.items():
        table.add_row(name, "needed" if selector.supervised else "not used", selector.summary)
    stdout().print(table)


@app.command(cls=command_with_panels("Options"))
def info(
    name: Annotated[str, typer.Argument(help="A name of `mmlab methods list`.")],
    as_json: JsonOption = False,
) -> None:
    """Describe a method, its parameters and their defaults."""
    from mmlab.selectors import default_params, get_selector

    selector = get_selector(name)
    params = default_params(name)
    described = next(c for c in selector.__mro__ if "Parameters\n" in (c.__doc__ or ""))
    if as_json:
        print_json(
            {
                "name": name,
                "summary": selector.summary,
                "reference": selector.reference,
                "supervised": selector.supervised,
                "layer": selector.layer,
                "params": params,
                "quick": None if selector.quick is None else asdict(selector.quick),
            }
        )
        return
    print(f"{name}: {selector.summary}\n")
    print(inspect.cleandoc(described.__doc__ or ""))
    print("\nDefaults: " + (_listed(params) or "no parameters"))
    if selector.quick is not None:
        print(f"\nWith --quick: {_describe(selector.quick)}")


def _describe(quick: QuickTraining) -> str:
    return (
        f"at least {quick.steps} training steps of {quick.batch_size} cells and at least "
        f"{quick.min_epochs} epochs, {_listed(quick.params)}. The defaults are kept if that "
        "is more than half of their steps."
    )


def _listed(params: Mapping[str, Scalar]) -> str:
    return ", ".join(f"{name}={value}" for name, value in params.items())
