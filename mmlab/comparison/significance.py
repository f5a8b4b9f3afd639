"""Tests of the methods of a comparison against the best one, and what is printed in bold."""

from __future__ import annotations

from collections import Counter

import pandas as pd

from mmlab.comparison.cell_tests import cell_tests
from mmlab.comparison.paired_tests import TEST, paired_tests
from mmlab.metrics.descriptions import describe_metric
from mmlab.trial.result import PER_CELL

#: Metrics on which the methods are tested. Only these can be bold.
TESTED_METRICS = (
    *("knn/accuracy", "knn/weighted_f1", "knn/balanced_accuracy"),
    *("random_forest/accuracy", "random_forest/weighted_f1"),
    *("linear/l2", "linear/l1"),
    *("clean_knn/accuracy", "clean_random_forest/accuracy"),
)
#: A difference is significant if its p-value is smaller.
SIGNIFICANCE = 0.05
#: With fewer replicates, standard deviations and tests are unreliable.
FEW_REPLICATES = 5

#: Columns that identify a value of a summary.
_KEYS = ["method", "n_markers", "setting", "metric"]


def metric_direction(metric: str) -> str:
    """Return ``max`` if higher values of a metric are better, else ``min``."""
    return describe_metric(metric)[0]


def reference_method(rows: pd.DataFrame, metric: str) -> str | None:
    """Return the best of the methods that have all replicates, or None if no value is known.

    Means over different splits are not comparable. Therefore only methods with the same set of
    replicates are candidates: the largest set that a method has; of several, the set that most
    methods have.

    Parameters
    ----------
    rows
        One row per method and replicate: columns method, replicate and the metric.
    metric
        Column whose mean over the replicates is compared.
    """
    known = rows.dropna(subset=[metric])
    by_method = known.groupby("method", sort=False)
    replicates = {str(method): frozenset(group["replicate"]) for method, group in by_method}
    if not replicates:
        return None
    n_methods = Counter(replicates.values())
    largest = max(n_methods, key=lambda found: (len(found), n_methods[found]))
    candidates = [method for method, found in replicates.items() if found == largest]
    means = by_method[metric].mean().loc[candidates]
    return str(means.idxmax() if metric_direction(metric) == "max" else means.idxmin())


def leading_method(rows: pd.DataFrame, controls: set[str]) -> str | None:
    """Return the method with the highest mean kNN accuracy over all settings; None if none has it.

    Only methods with all replicates at all settings compete, as in :func:`reference_method`.
    Controls compete among themselves if there are no other methods.

    Parameters
    ----------
    rows
        One row per finished replicate: columns method, selector, setting, replicate and metrics.
    controls
        Selectors that are lower or upper bounds.
    """
    if "knn/accuracy" not in rows:
        return None
    competing = rows[~rows["selector"].isin(controls)]
    competing = competing if len(competing) else rows
    places = competing["setting"] + ", " + competing["replicate"].astype(str)
    return reference_method(competing.assign(replicate=places), "knn/accuracy")


def reference_tests(
    rows: pd.DataFrame, controls: set[str], protocol: str = "paper"
) -> pd.DataFrame:
    """Test every method against the best one, at every panel size and setting.

    Parameters
    ----------
    rows
        One row per finished replicate: columns method, selector, n_markers, setting, replicate
        and metrics.
    controls
        Selectors that are lower or upper bounds: they are neither tested nor the reference.
    protocol
        Under ``locked``, all replicates have the same test cells, so the cells are the sample:
        the metrics with values per cell are tested over them
        (:func:`mmlab.comparison.cell_tests.cell_tests`). Otherwise, the splits are the sample.

    Returns
    -------
    One row per panel size, setting, metric of :data:`TESTED_METRICS` and method other than the
    reference (:func:`reference_method`): the columns of
    :func:`mmlab.comparison.paired_tests.paired_tests`, n_markers and setting. Holm's correction
    is for the methods of one metric at one setting. The reference is chosen on the same
    replicates, which biases the tests slightly in its favour.
    """
    competing = rows[~rows["selector"].isin(controls)]
    run_tests, prefix = (cell_tests, PER_CELL) if protocol == "locked" else (paired_tests, "")
    metrics = [metric for metric in TESTED_METRICS if prefix + metric in rows]
    parts = []
    for _, group in competing.groupby(["n_markers", "setting"], sort=False):
        place = {str(k): v for k, v in group[["n_markers", "setting"]].iloc[0].items()}
        for metric in metrics:
            reference = reference_method(group, metric)
            if reference is not None:
                parts.append(run_tests(group, metric, reference).assign(**place))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def add_significance(summary: pd.DataFrame, tests: pd.DataFrame) -> pd.DataFrame:
    """Add the result of the tests to every mean of a summary.

    Parameters
    ----------
    summary
        From :func:`mmlab.comparison.result_table.summarise_rows`.
    tests
        From :func:`reference_tests`.

    Returns
    -------
    The rows of ``summary`` with these columns.

    n_common, p_holm
        Number of replicates of the test, and its corrected p-value; NaN for the reference and for
        what was not tested.
    bold
        True for the reference and for every method that cannot be distinguished from it
        (:func:`indistinguishable`) or is significantly better. A method that could not be tested
        is not bold, nor is anything if no test was possible.
    """
    if tests.empty:
        return summary.assign(n_common=float("nan"), p_holm=float("nan"), bold=False)
    columns = tests[[*_KEYS, "n", "p_holm"]].rename(columns={"n": "n_common"})
    tested = tests.dropna(subset=["p_holm"])
    references = tested.assign(method=tested["reference"])
    better = tested[(tested["p_holm"] < SIGNIFICANCE) & (gains(tested) > 0)]
    bold = pd.concat([tested[indistinguishable(tested)], better, references])[_KEYS]
    table = summary.merge(columns, on=_KEYS, how="left")
    keys = pd.MultiIndex.from_frame(table[_KEYS])
    return table.assign(bold=keys.isin(pd.MultiIndex.from_frame(bold)))


def indistinguishable(tested: pd.DataFrame) -> pd.Series:
    """Return for each test, with a p-value, whether the method is a tie with the reference.

    The difference is not significant, over as many replicates as any other method of the same
    table has, or :data:`FEW_REPLICATES`: a test over fewer would call almost everything a tie.
    """
    table = tested.groupby(["n_markers", "setting", "metric"])
    enough = tested["n"] >= table["n"].transform("max").clip(upper=FEW_REPLICATES)
    return (tested["p_holm"] >= SIGNIFICANCE) & enough


def gains(tested: pd.DataFrame) -> pd.Series:
    """Return the mean differences with the sign that makes a better method positive."""
    signs = tested["metric"].map(lambda metric: 1 if metric_direction(metric) == "max" else -1)
    return signs * tested["mean_difference"]


def bold_note(tests: pd.DataFrame) -> str:
    """Return the text below a table that says what bold means."""
    tested = tests.dropna(subset=["p_holm"]) if len(tests) else tests
    if tested.empty:
        return "Nothing is bold: no two methods have enough common replicates for a test."
    names = ", ".join(dict.fromkeys(tested["test"]))
    note = (
        "Bold: not distinguishable from the best method, that is, not significantly worse "
        f"({names}, Holm's correction over the methods, p >= {SIGNIFICANCE}) on "
        "the replicates that both have. The best method is the best of those with all replicates; "
        "controls do not compete."
    )
    if (tested["test"] != TEST).all():
        # Only the metrics that have a value per cell.
        note += " Columns without bold were not tested."
    over_replicates = tested[tested["test"] == TEST]["n"]
    if over_replicates.max() < FEW_REPLICATES:
        note += (
            f" With fewer than {FEW_REPLICATES} replicates a test finds large differences only: "
            "bold can mean that too little is known."
        )
    elif over_replicates.min() < FEW_REPLICATES:
        note += (
            f" With fewer than {FEW_REPLICATES} common replicates too little is known: such a "
            "method is bold only if it is significantly better."
        )
    return note
