"""Tables of a comparison: means next to published numbers, and paired tests between methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmlab.comparison.paired_tests import paired_tests
from mmlab.comparison.published import add_published_numbers
from mmlab.figures.published_numbers import published_figure
from mmlab.metrics import METRICS

#: Metrics on which the methods are tested against the best one.
TESTED_METRICS = ("knn/accuracy", "random_forest/accuracy", "linear/l2")


@dataclass(frozen=True)
class TableView:
    """A table to display.

    Attributes
    ----------
    title
        Title of the table.
    columns
        Heading of each column by metric.
    spread
        Whether standard deviations are shown.
    """

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
        "panel: structure, stability and run time",
        {
            "knn/balanced_accuracy": "balanced acc.",
            "panel/mean_redundancy": "redundancy",
            "panel/neighbourhood_preservation": "neighbourhood",
            "leiden/nmi": "NMI",
            "leiden/ari": "ARI",
            "stability/nogueira": "stability",
            "fit_seconds": "fit time (s)",
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
        One row per dataset, method, panel size, setting and metric: dataset, method, n_markers,
        setting, metric, mean, std, n, low, high, published, difference.
    tests
        One row per method, metric and panel size: metric, n_markers, and the columns of
        :func:`mmlab.comparison.paired_tests.paired_tests`. Every method except controls is
        tested against the best one. The best one is selected on the same replicates, which
        biases the tests slightly in its favour.
    """

    table: pd.DataFrame
    tests: pd.DataFrame


def compare_methods(
    rows: pd.DataFrame, summary: pd.DataFrame, controls: set[str], protocol: str = "paper"
) -> ComparisonTables:
    """Return the tables of a comparison.

    Parameters
    ----------
    rows
        One row per finished replicate, with the column ``method``.
    summary
        From :func:`mmlab.comparison.result_table.summarise_rows`.
    controls
        Selectors that are lower or upper bounds and do not compete.
    protocol
        Published numbers are added only under the protocol ``paper``.
    """
    selectors = dict(zip(rows["method"], rows["selector"], strict=True))
    table = add_published_numbers(summary, selectors if protocol == "paper" else {})
    competing = rows[~rows["selector"].isin(controls)]
    parts = []
    for n_markers, group in competing.groupby("n_markers"):
        for metric in TESTED_METRICS:
            best = best_method(table, metric, int(str(n_markers)), set(group["method"]))
            if best is not None:
                tests = paired_tests(group, metric, best)
                parts.append(tests.assign(n_markers=n_markers))
    return ComparisonTables(table, pd.concat(parts, ignore_index=True) if parts else pd.DataFrame())


def competing_methods(rows: pd.DataFrame, controls: set[str]) -> set[str]:
    """Return the methods among finished replicates whose selectors are not controls."""
    return set(rows["method"][~rows["selector"].isin(controls)])


def metric_direction(metric: str) -> str:
    """Return ``max`` if higher values of a metric are better, else ``min``."""
    if metric.startswith("stability/"):
        return "max"
    registered = METRICS.get(metric.partition("/")[2])
    return registered.direction if registered is not None else "min"


def best_method(table: pd.DataFrame, metric: str, n_markers: int, among: set[str]) -> str | None:
    """Return the method with the best mean of a metric at a panel size, or None."""
    part = table[
        (table["metric"] == metric)
        & (table["n_markers"] == n_markers)
        & table["method"].isin(among)
    ]
    if part.empty:
        return None
    order = part.sort_values("mean", ascending=metric_direction(metric) == "min", kind="stable")
    return str(order["method"].iloc[0])


def format_metric(row: Any, *, spread: bool, published: bool) -> list[str]:
    """Format mean (± std), then published number and difference; one text per column."""
    digits = 1 if row.name == "fit_seconds" else 3
    texts = [f"{row['mean']:.{digits}f}"]
    if spread and np.isfinite(row["std"]):
        texts[0] += f" ± {row['std']:.3f}"
    if published:
        known = np.isfinite(row["published"])
        texts += [f"{row['published']:.3f}", f"{row['difference']:+.3f}"] if known else ["", ""]
    return texts


def tables_markdown(comparison: ComparisonTables, n_markers: int, competing: set[str]) -> str:
    """Return all tables as Markdown: best in bold, methods ordered by the first metric."""
    return markdown(view_tables(comparison, n_markers, competing, "**{}**".format))


def markdown(tables: Iterable[tuple[str, list[str], list[list[str]]]]) -> str:
    """Return tables as Markdown, given the title, the header and the rows of each."""
    lines: list[str] = []
    for title, header, body in tables:
        lines += [f"### {title[0].upper()}{title[1:]}", ""]
        lines += ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
        lines += ["| " + " | ".join(row) + " |" for row in body]
        lines.append("")
    return "\n".join(lines)


def view_tables(
    comparison: ComparisonTables, n_markers: int, competing: set[str], bold: Callable[[str], str]
) -> list[tuple[str, list[str], list[list[str]]]]:
    """Return title, header and rows of every table that has numbers.

    Parameters
    ----------
    comparison
        Tables of the comparison.
    n_markers
        Panel size.
    competing
        Methods among which the best is marked.
    bold
        Marks the text of the best method in a column.
    """
    table = comparison.table[comparison.table["n_markers"] == n_markers]
    tables = []
    for view in TABLE_VIEWS:
        part = table[table["metric"].isin(view.columns)]
        if part.empty:
            continue
        first_metric = next(iter(view.columns))
        first = part[part["metric"] == first_metric]
        ascending = metric_direction(first_metric) == "min"
        order = first.sort_values("mean", ascending=ascending, kind="stable")["method"].tolist()
        best = {m: best_method(table, m, n_markers, competing) for m in view.columns}
        has_published = set(part.dropna(subset=["published"])["metric"])
        header = ["method", "n"]
        for metric, heading in view.columns.items():
            header += [heading, "published", "diff."] if metric in has_published else [heading]
        body = []
        for method in order:
            by_metric = part[part["method"] == method].set_index("metric")
            line = [method, str(int(by_metric["n"].max()))]
            for metric in view.columns:
                texts = ["", "", ""] if metric in has_published else [""]
                if metric in by_metric.index:
                    texts = format_metric(
                        by_metric.loc[str(metric)],
                        spread=view.spread,
                        published=metric in has_published,
                    )
                if best[metric] == method and metric != "fit_seconds":
                    texts[0] = bold(texts[0])
                line += texts
            body.append(line)
        tables.append((view.title, header, body))
    return tables


def write_comparison(comparison: ComparisonTables, rows: pd.DataFrame, folder: Path) -> None:
    """Write the tables of a comparison as Parquet and CSV, and the figure, into ``folder``."""
    comparison.table.to_parquet(folder / "comparison.parquet", index=False)
    comparison.table.to_csv(folder / "comparison.csv", index=False)
    comparison.tests.to_parquet(folder / "paired_tests.parquet", index=False)
    comparison.tests.to_csv(folder / "paired_tests.csv", index=False)
    rows.to_parquet(folder / "replicates.parquet", index=False)
    figure = published_figure(comparison.table)
    if figure is not None:
        figure.savefig(folder / "ours_against_published.png")
