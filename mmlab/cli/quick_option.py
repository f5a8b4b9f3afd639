"""The option --quick, and the parameters that it sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from mmlab.cli.console import print_message
from mmlab.errors import UserError

if TYPE_CHECKING:
    from mmlab.spec.base import Scalar
    from mmlab.spec.trial import DataSpec

QuickOption = Annotated[
    bool,
    typer.Option(
        "--quick",
        help="Train MarkerMap with about 400 steps of 128 cells instead of 60 epochs: about 5 to "
        "15 times as fast with some thousand cells. Costs about 0.01 of accuracy and up to 0.04 "
        "of balanced accuracy, more with dozens of types. Changes nothing up to 1190 cells.",
    ),
]


def quick_params(methods: Sequence[str], data: DataSpec) -> dict[str, dict[str, Scalar]]:
    """Return the parameters of the quick training of each method that has one.

    A message on stderr names the methods whose default training is used instead, because it is
    short on these cells: they have no parameters.

    Raises
    ------
    UserError
        No method has a quick training, a method is unknown, or the cells cannot be counted.
    """
    from mmlab.datasets import count_cells
    from mmlab.preprocessing.splits import n_training_cells
    from mmlab.selectors import SELECTORS, get_selector
    from mmlab.selectors import quick_params as method_quick_params

    known = [name for name, selector in SELECTORS.items() if selector.quick is not None]
    quick = [name for name in methods if name in known]
    if others := [name for name in methods if name not in known]:
        for name in others:
            get_selector(name)
        listed = ", ".join(others)
        if not quick:
            raise UserError(
                f"--quick: {listed} {'have' if len(others) > 1 else 'has'} no quick training; "
                f"these have: {', '.join(known)}."
            )
        print_message(f"--quick changes nothing for {listed}: no quick training is known.")
    n_cells = n_training_cells(count_cells(data))
    params = {name: method_quick_params(name, n_cells) for name in quick}
    if unchanged := [name for name in quick if not params[name]]:
        print_message(
            f"--quick changes nothing for {', '.join(unchanged)}: the default training takes few "
            f"steps on {n_cells} training cells."
        )
    return params
