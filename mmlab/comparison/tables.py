"""Tables of a comparison: means next to published numbers, and paired tests between methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmlab.comparison.published import add_published_numbers
from mmlab.comparison.shown_table import ShownTable
from mmlab.comparison.significance import add_significance, metric_direction, reference_tests
from mmlab.figures.published_numbers import published_figure
from mmlab.figures.style import save_figure
from mmlab.metrics.descriptions import legend


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
        Whether sample standard deviations are shown.
    published
        The table of the paper with the same numbers, if there is one.
    """

    title: str
    columns: dict[str, str]
    spread: bool = True
    published: str = ""


TABLE_VIEWS = (
    TableView(
        "k-nearest neighbours",
        {"knn/accuracy": "accuracy", "knn/weighted_f1": "weighted F1"},
        published="table 1 of the paper",
    ),
    TableView(
        "random forest",
        {"random_forest/accuracy": "accuracy", "random_forest/weighted_f1": "weighted F1"},
        published="table 3 of the paper",
    ),
    TableView(
        "linear reconstruction of all genes",
        {"linear/l2": "l2", "linear/l1": "l1"},
        published="table 2 of the paper",
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
        setting, metric, mean, std, n, low, high, published, difference, n_common, p_holm, bold.
        The last three are from :func:`mmlab.comparison.significance.add_significance`.
    tests
        From :func:`mmlab.comparison.significance.reference_tests`. It can have settings that
        ``table`` does not have.
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
        From :func:`mmlab.comparison.result_table.summarise_rows`; it can be a part of it.
    controls
        Selectors that are lower or upper bounds and do not compete.
    protocol
        Published numbers are added only under the protocol ``paper``. It decides the tests, see
        :func:`mmlab.comparison.significance.reference_tests`.
    """
    selectors = dict(zip(rows["method"], rows["selector"], strict=True))
    table = add_published_numbers(summary, selectors if protocol == "paper" else {})
    tests = reference_tests(rows, controls, protocol)
    return ComparisonTables(add_significance(table, tests), tests)


def describe_spread(protocol: str, n: int | str = "n") -> str:
    """Return what follows ± in tables of ``n`` replicates."""
    if protocol == "locked":
        return (
            f"sample standard deviation over {n} trainings on the same test cells, not over cells"
        )
    return f"sample standard deviation over {n} replicates"


def format_metric(row: Any, *, spread: bool, published: bool) -> list[str]:
    """Format mean (± sample std), then published number and difference; one text per column.

    The standard deviation of a single replicate is NaN and is not shown.
    """
    digits = 1 if row.name == "fit_seconds" else 3
    texts = [f"{row['mean']:.{digits}f}"]
    if spread and np.isfinite(row["std"]):
        texts[0] += f" ± {row['std']:.3f}"
    if published:
        known = np.isfinite(row["published"])
        texts += [f"{row['published']:.3f}", f"{row['difference']:+.3f}"] if known else ["", ""]
    return texts


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as dictionaries, for JSON."""
    return [{str(k): v for k, v in row.items()} for row in table.to_dict(orient="records")]


def view_tables(
    comparison: ComparisonTables,
    n_markers: int,
    bold: Callable[[str], str],
    protocol: str = "paper",
) -> list[ShownTable]:
    """Return every table that has numbers.

    Methods are ordered by the mean of the first metric. Title and legend speak of published
    numbers only if the table shows some.

    Parameters
    ----------
    comparison
        Tables of the comparison.
    n_markers
        Panel size.
    bold
        Marks a text as bold, see :func:`mmlab.comparison.significance.bold_note`.
    protocol
        Protocol of the comparison.
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
                    value = by_metric.loc[str(metric)]
                    texts = format_metric(
                        value, spread=view.spread, published=metric in has_published
                    )
                    texts[0] = bold(texts[0]) if value["bold"] else texts[0]
                line += texts
            body.append(line)
        spread = view.spread and bool(np.isfinite(part["std"]).any())
        values = f"Mean ± {describe_spread(protocol)}" if spread else "Mean over n replicates"
        title = view.title
        if has_published:
            title += f" ({view.published})"
            values += ", published number, difference"
        tables.append(ShownTable(title, header, body, f"{values}. {legend(view.columns)}"))
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
        save_figure(figure, folder / "ours_against_published.png")
