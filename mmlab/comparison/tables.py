"""What a comparison shows: tables beside the published numbers, paired tests, one figure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmlab.comparison.paired_tests import paired_tests
from mmlab.comparison.published import beside_published
from mmlab.figures.published_numbers import published_figure
from mmlab.metrics import METRICS

#: Metrics for which methods are tested against each other.
TESTED = ("knn/accuracy", "random_forest/accuracy", "linear/l2")


@dataclass(frozen=True)
class TableView:
    """A table for people: title, headings by metric, and whether the spread is shown."""

    title: str
    columns: dict[str, str]
    spread: bool = True


TABLE_VIEWS = (
    TableView(
        "k-nearest neighbours (table 1 of the paper)",
        {"knn/accuracy": "accuracy", "knn/weighted_f1": "weighted F1"},
    ),
    TableView(
        "random forest (table 3 of the paper)",
        {"random_forest/accuracy": "accuracy", "random_forest/weighted_f1": "weighted F1"},
    ),
    TableView(
        "linear reconstruction of all genes (table 2 of the paper)",
        {"linear/l2": "l2", "linear/l1": "l1"},
    ),
    TableView(
        "the panel itself",
        {
            "knn/balanced_accuracy": "balanced acc.",
            "panel/mean_redundancy": "redundancy",
            "panel/neighbourhood_preservation": "neighbours",
            "leiden/nmi": "NMI",
            "leiden/ari": "ARI",
            "stability/nogueira": "stability",
            "fit_seconds": "fit seconds",
        },
        spread=False,
    ),
)


@dataclass(frozen=True)
class ComparisonTables:
    """Tables of a comparison.

    Attributes
    ----------
    table
        Tidy: dataset, method, n_markers, metric, mean, std, n, low, high, published, difference.
    tests
        Tidy: metric, n_markers, and the columns of :func:`mmlab.comparison.paired_tests.paired_tests`; every
        method against the best one, controls left out. The best one is the best on these very
        replicates: it is a little favoured.
    """

    table: pd.DataFrame
    tests: pd.DataFrame


def compare_methods(
    rows: pd.DataFrame, summary: pd.DataFrame, controls: set[str], protocol: str = "paper"
) -> ComparisonTables:
    """Make the tables of a comparison from its rows and their summary.

    Parameters
    ----------
    rows
        A row a finished replicate, with the column ``method``.
    summary
        From :func:`mmlab.comparison.result_table.summarise_rows`.
    controls
        Selectors that bound the others and do not compete.
    protocol
        Published numbers stand beside those of the paper's own.
    """
    selectors = dict(zip(rows["method"], rows["selector"], strict=True))
    table = beside_published(summary, selectors if protocol == "paper" else {})
    competing = rows[~rows["selector"].isin(controls)]
    parts = []
    for n_markers, group in competing.groupby("n_markers"):
        for metric in TESTED:
            best = best_method(table, metric, int(str(n_markers)), set(group["method"]))
            if best is not None:
                tests = paired_tests(group, metric, best)
                parts.append(tests.assign(n_markers=n_markers))
    return ComparisonTables(table, pd.concat(parts, ignore_index=True) if parts else pd.DataFrame())


def competing_methods(rows: pd.DataFrame, controls: set[str]) -> set[str]:
    """Methods among finished replicates whose selectors compete."""
    return set(rows["method"][~rows["selector"].isin(controls)])


def metric_direction(metric: str) -> str:
    """``max`` where higher is better, else ``min``."""
    if metric.startswith("stability/"):
        return "max"
    registered = METRICS.get(metric.partition("/")[2])
    return registered.direction if registered is not None else "min"


def best_method(table: pd.DataFrame, metric: str, n_markers: int, among: set[str]) -> str | None:
    """The method with the best mean of a metric at a panel size; None if none has it."""
    part = table[
        (table["metric"] == metric)
        & (table["n_markers"] == n_markers)
        & table["method"].isin(among)
    ]
    if part.empty:
        return None
    order = part.sort_values("mean", ascending=metric_direction(metric) == "min", kind="stable")
    return str(order["method"].iloc[0])


def format_cells(row: Any, *, spread: bool, published: bool) -> list[str]:
    """Mean (and spread) of a metric for people, then the published number and the difference."""
    digits = 1 if row.name == "fit_seconds" else 3
    texts = [f"{row['mean']:.{digits}f}"]
    if spread and np.isfinite(row["std"]):
        texts[0] += f" ± {row['std']:.3f}"
    if published:
        known = np.isfinite(row["published"])
        texts += [f"{row['published']:.3f}", f"{row['difference']:+.3f}"] if known else ["", ""]
    return texts


def tables_markdown(comparison: ComparisonTables, n_markers: int, competing: set[str]) -> str:
    """All views as Markdown tables; best in bold, methods in order of the first column."""
    lines: list[str] = []
    for title, header, body in view_tables(comparison, n_markers, competing, "**{}**".format):
        lines += [f"### {title[0].upper()}{title[1:]}", ""]
        lines += ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
        lines += ["| " + " | ".join(row) + " |" for row in body]
        lines.append("")
    return "\n".join(lines)


def view_tables(
    comparison: ComparisonTables, n_markers: int, competing: set[str], bold: Callable[[str], str]
) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, header and rows of every view that has numbers.

    Parameters
    ----------
    competing
        Methods of which the best is marked by ``bold``.
    """
    table = comparison.table[comparison.table["n_markers"] == n_markers]
    shown = []
    for view in TABLE_VIEWS:
        part = table[table["metric"].isin(view.columns)]
        if part.empty:
            continue
        first = part[part["metric"] == next(iter(view.columns))]
        up = metric_direction(next(iter(view.columns))) == "max"
        order = first.sort_values("mean", ascending=not up, kind="stable")["method"].tolist()
        best = {m: best_method(table, m, n_markers, competing) for m in view.columns}
        known = set(part.dropna(subset=["published"])["metric"])
        header = ["method", "n"]
        for metric, heading in view.columns.items():
            header += [heading, "published", "diff."] if metric in known else [heading]
        body = []
        for method in order:
            own = part[part["method"] == method].set_index("metric")
            line = [method, str(int(own["n"].max()))]
            for metric in view.columns:
                texts = ["", "", ""] if metric in known else [""]
                if metric in own.index:
                    texts = format_cells(
                        own.loc[str(metric)], spread=view.spread, published=metric in known
                    )
                if best[metric] == method and metric != "fit_seconds":
                    texts[0] = bold(texts[0])
                line += texts
            body.append(line)
        shown.append((view.title, header, body))
    return shown


def write_comparison(comparison: ComparisonTables, rows: pd.DataFrame, folder: Path) -> None:
    """Write the tables as Parquet and CSV, and the figure, into ``folder``."""
    comparison.table.to_parquet(folder / "comparison.parquet", index=False)
    comparison.table.to_csv(folder / "comparison.csv", index=False)
    comparison.tests.to_parquet(folder / "paired_tests.parquet", index=False)
    comparison.tests.to_csv(folder / "paired_tests.csv", index=False)
    rows.to_parquet(folder / "replicates.parquet", index=False)
    figure = published_figure(comparison.table)
    if figure is not None:
        figure.savefig(folder / "ours_against_published.png")
