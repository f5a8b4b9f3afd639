"""What `mmlab select` prints of a panel: metrics in groups, hard cell types, genes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlab.cli.console import stdout
from mmlab.system.words import count

if TYPE_CHECKING:
    from mmlab.trial.result import TrialResult

#: Columns of a terminal that has room for what the metrics are.
_WIDE = 130
#: Cell types with a lower F1 are named as hard, at most this many.
_HARD_F1, _N_HARD = 0.8, 3


def print_panel(result: TrialResult, classes: list[str]) -> None:
    """Print the metrics of a panel on test cells, its hardest cell types, and its genes.

    Parameters
    ----------
    classes
        Names of the cell types, in the order of their indices.
    """
    from rich.table import Table

    from mmlab.metrics.descriptions import BETTER, SOURCES, describe_metric

    console, replicates = stdout(), result.spec.replicates
    wide = console.width >= _WIDE
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("metric on the test cells", no_wrap=True)
    for column in ("mean", "sample std") if replicates > 1 else ("value",):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("better", no_wrap=True)
    if wide:
        table.add_column("meaning")
    means = {name: v for name, v in result.metrics.items() if not name.endswith("_std")}
    for source, title in SOURCES.items():
        names = [name for name in means if name.partition("/")[0] == source]
        if names:
            table.add_row(title[0].upper() + title[1:], style="bold")
        for name in names:
            direction, meaning = describe_metric(name)
            values = [f"{means[name]:.4f}"]
            if replicates > 1:
                spread = result.metrics.get(f"{name}_std")
                values.append("" if spread is None else f"{spread:.4f}")
            table.add_row(f"  {name}", *values, BETTER[direction], *([meaning] if wide else []))
    panel = "Panel"
    if replicates > 1:
        console.print(f"Means over the panels of {replicates} replicates", highlight=False)
        panel = f"Consensus panel of the {replicates} replicates"
    console.print(table)
    for line in (hardest_types(result, classes), f"{panel}, best gene first: {_genes(result)}"):
        if line:
            console.print(f"\n{line}", highlight=False, markup=False, soft_wrap=True)


def hardest_types(result: TrialResult, classes: list[str]) -> str:
    """Return the cell types with the lowest F1 in words; empty if all types are told apart.

    F1 is that of the k-nearest neighbours, averaged over the replicates; test cells are those of
    all replicates.
    """
    import numpy as np

    from mmlab.trial.result import PER_CLASS_F1

    f1 = np.mean(np.stack(result.replicates[f"{PER_CLASS_F1}knn"].to_list()), axis=0)
    hard = [i for i in np.argsort(f1, kind="stable") if f1[i] < _HARD_F1][:_N_HARD]
    n_cells = result.confusion["knn"].sum(axis=1)
    listed = ", ".join(
        f"{classes[i]} {f1[i]:.2f} ({count(int(n_cells[i]), 'test cell')})" for i in hard
    )
    return f"Hardest types (F1 of k-nearest neighbours): {listed}" if hard else ""


def _genes(result: TrialResult) -> str:
    return ", ".join(result.panel["gene"])
