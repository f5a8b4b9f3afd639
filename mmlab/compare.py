"""Paired tests between methods that were measured on the same splits."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

#: Test cells over the cells that the classifiers are fitted on, in the 70/10/20 protocol.
TEST_SHARE = 0.2 / 0.8


def corrected_resampled_t_test(
    differences: NDArray[np.float64], test_share: float = TEST_SHARE
) -> tuple[float, float]:
    """Two-sided t-test of paired differences over random splits of the same cells.

    The splits share cells, so their differences are not independent: the variance is multiplied
    by 1/n + test_share instead of 1/n (Nadeau & Bengio, Machine Learning 2003).

    Parameters
    ----------
    differences
        One a split, at least two.
    test_share
        Number of test cells over number of training cells.

    Returns
    -------
    t and p, with n - 1 degrees of freedom. Equal differences have no variance: then p is 1 where
    they are all 0, and 0 elsewhere.
    """
    n = len(differences)
    mean, variance = float(np.mean(differences)), float(np.var(differences, ddof=1))
    if variance == 0:
        return (0.0, 1.0) if mean == 0 else (math.copysign(math.inf, mean), 0.0)
    t = mean / math.sqrt((1 / n + test_share) * variance)
    return t, float(2 * stats.t.sf(abs(t), n - 1))


def wilcoxon_signed_rank(differences: NDArray[np.float64]) -> tuple[float, float]:
    """Two-sided Wilcoxon signed-rank test; p is 1 where all differences are 0."""
    moved = np.asarray(differences)[np.asarray(differences) != 0]
    if not len(moved):
        return 0.0, 1.0
    result = stats.wilcoxon(moved, method="exact" if len(moved) <= 25 else "approx")
    return float(result.statistic), float(result.pvalue)


def holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """p-values corrected for their number by Holm's step-down procedure; NaN stays NaN."""
    corrected = np.full(len(p_values), np.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    return corrected


def paired_tests(rows: pd.DataFrame, metric: str, reference: str) -> pd.DataFrame:
    """Every method against one of them, over the replicates that both have.

    Parameters
    ----------
    rows
        Tidy: columns method, replicate, and the metric.
    metric
        Column that is compared.
    reference
        The method that the others are compared with.

    Returns
    -------
    Columns method, reference, metric, n (common replicates), mean_difference (method minus
    reference), t_p (corrected resampled t-test), t_p_holm, wilcoxon_p; the p-values are NaN
    below two replicates.
    """
    values = rows.pivot_table(index="replicate", columns="method", values=metric)
    found = []
    for method in dict.fromkeys(rows["method"]):
        if method == reference or method not in values:
            continue
        differences = (values[method] - values[reference]).dropna().to_numpy()
        enough = len(differences) > 1
        found.append(
            {
                "method": method,
                "reference": reference,
                "metric": metric,
                "n": len(differences),
                "mean_difference": float(differences.mean()) if len(differences) else math.nan,
                "t_p": corrected_resampled_t_test(differences)[1] if enough else math.nan,
                "wilcoxon_p": wilcoxon_signed_rank(differences)[1] if enough else math.nan,
            }
        )
    table = pd.DataFrame(found)
    if len(table):
        table.insert(6, "t_p_holm", holm(table["t_p"].to_numpy(dtype=float)))
    return table
