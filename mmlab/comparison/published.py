"""The tables of the paper, as data: Gregory et al., npj Syst Biol Appl 10:17 (2024)."""

from __future__ import annotations

from importlib.resources import files

import pandas as pd

#: File of a table, and mmlab's name of each of its columns of numbers.
_TABLES = {
    "table1_knn.csv": {"accuracy": "knn/accuracy", "weighted_f1": "knn/weighted_f1"},
    "table2_reconstruction.csv": {"l2": "linear/l2", "l1": "linear/l1"},
    "table3_random_forest.csv": {
        "accuracy": "random_forest/accuracy",
        "weighted_f1": "random_forest/weighted_f1",
    },
}


def published_numbers() -> pd.DataFrame:
    """Tables 1 to 3: columns selector, dataset, metric (mmlab's name), published; tidy."""
    parts = []
    for file_name, metrics in _TABLES.items():
        with (files("mmlab.comparison") / "paper" / file_name).open("r") as stream:
            table = pd.read_csv(stream).rename(columns={"method": "selector", **metrics})
        parts.append(
            table.melt(
                id_vars=["selector", "dataset"],
                value_vars=list(metrics.values()),
                var_name="metric",
                value_name="published",
            )
        )
    return pd.concat(parts, ignore_index=True)


def beside_published(summary: pd.DataFrame, selectors: dict[str, str]) -> pd.DataFrame:
    """A summary with the columns published and difference (ours minus published).

    Parameters
    ----------
    summary
        Columns dataset, method, n_markers, metric, mean, ...
    selectors
        Selector by method, as methods may have names of their own.

    Returns
    -------
    The rows of ``summary``; published is NaN where the paper has no number. Its panels hold 50
    markers: other sizes have none.
    """
    table = summary.assign(selector=[selectors.get(name, "") for name in summary["method"]])
    table = table.merge(published_numbers(), on=["selector", "dataset", "metric"], how="left")
    table.loc[table["n_markers"] != 50, "published"] = float("nan")
    table["difference"] = table["mean"] - table["published"]
    return table.drop(columns="selector")
