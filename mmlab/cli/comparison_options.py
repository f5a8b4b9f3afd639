"""The methods of `benchmark`, `robustness` and `sweep`, and the specification that they make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmlab.cli.option_names import parse_options
from mmlab.cli.quick_option import quick_params
from mmlab.errors import UserError

if TYPE_CHECKING:
    from mmlab.spec.comparison import ComparisonSpec
    from mmlab.spec.trial import DataSpec

MethodsOption = Annotated[
    str, typer.Option(help="Names of `mmlab methods list`, comma-separated; or all.")
]
ReplicatesOption = Annotated[
    int,
    typer.Option(
        min=1,
        help="Random splits of the cells into 70 % training, 10 % validation and 20 % test cells, "
        "the same for every method.",
    ),
]
SizeOption = Annotated[int, typer.Option("--n-markers", "-k", min=1, help="Genes in the panel.")]


def comparison_spec(
    content: dict[str, Any], data: DataSpec, methods: str, quick: bool
) -> ComparisonSpec:
    """Return the specification of a comparison from the options of its command."""
    from mmlab.spec.comparison import ComparisonSpec

    named: list[dict[str, Any]] = [
        {"selector": name} for name in _method_names(methods, data, content)
    ]
    params = quick_params([method["selector"] for method in named], data) if quick else {}
    for method in named:
        if changed := params.get(method["selector"]):
            method |= {"params": changed, "label": f"{method['selector']} (quick)"}
    return parse_options(ComparisonSpec, content | {"data": data, "methods": named})


def _method_names(methods: str, data: DataSpec, content: dict[str, Any]) -> list[str]:
    from mmlab.datasets import is_simulated
    from mmlab.selectors import SELECTORS

    if methods != "all":
        return [name.strip() for name in methods.split(",")]
    # The true markers of measured cells are unknown, and a panel of all genes fits no constraint.
    simulated = data.name is not None and is_simulated(data.name)
    left_out = set() if simulated else {"oracle"}
    if content["exclude"] or content["constraints"]:
        left_out |= {name for name, selector in SELECTORS.items() if selector.takes_all_genes}
    return [name for name in SELECTORS if name not in left_out]


def parse_numbers(option: str, text: str, kind: type[int] | type[float]) -> list[float]:
    """Return the numbers of a comma-separated list.

    Raises
    ------
    UserError
        Something in the list is not such a number.
    """
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        wanted = "whole numbers" if kind is int else "numbers"
        raise UserError(f"{option} {text!r}: give {wanted}, separated by commas.") from None
