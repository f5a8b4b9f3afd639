"""Published numbers: tables 1 to 3 of Gregory et al., npj Syst Biol Appl 10:17 (2024)."""

from __future__ import annotations

from importlib.resources import files

import pandas as pd

#: File of each table, and mmlab's metric name of each of its numeric columns.
_TABLES = {
    "table1_knn.csv": {"accuracy": "knn/accuracy", "weighted_f1": "knn/weighted_f1"},
    "table2_reconstruction.csv": {"l2": "linear/l2", "l1": "linear/l1"},
    "table3_random_forest.csv": {
        "accuracy": "random_forest/accuracy",
        "weighted_f1": "random_forest/weighted_f1",
    },
}


def published_numbers() -> pd.DataFrame:
    """Return tables 1 to 3, one row per number.

    Columns: selector, dataset, metric (mmlab's name), published.
    """
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


def add_published_numbers(summary: pd.DataFrame, selectors: dict[str, str]) -> pd.DataFrame:
    """Add the columns published and difference (mmlab minus published) to a summary.

    Parameters
    ----------
    summary
        Columns dataset, method, n_markers, metric, mean and others; see
        :func:`mmlab.comparison.result_table.summarise_rows`.
    selectors
        Name of the selector by the title of the method.

    Returns
    -------
    The rows of ``summary``. published is NaN where the paper has no number, and for panels that
    do not have 50 markers: all panels of the paper have 50.
    """
    table = summary.assign(selector=[selectors.get(name, "") for name in summary["method"]])
    table = table.merge(published_numbers(), on=["selector", "dataset", "metric"], how="left")
    table.loc[table["n_markers"] != 50, "published"] = float("nan")
    table["difference"] = table["mean"] - table["published"]
    return table.drop(columns="selector")
