"""Paired tests between methods that were measured on the same splits."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

#: Test cells over the cells that the classifiers are fitted on, in the 70/10/20 protocol.
TEST_SHARE = 0.2 / 0.8

_COLUMNS = {
    "method": "object",
    "reference": "object",
    "metric": "object",
    "n": "int64",
    "mean_difference": "float64",
    "t_p": "float64",
    "t_p_holm": "float64",
    "wilcoxon_p": "float64",
}


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

    Raises
    ------
    ValueError
        A single difference, or none, has no variance.
    """
    n = len(differences)
    if n < 2:
        raise ValueError(f"a t-test needs at least two differences, got {n}")
    mean, variance = float(np.mean(differences)), float(np.var(differences, ddof=1))
    if np.ptp(differences) == 0:  # the variance of equal numbers may be off 0 by rounding
        return (0.0, 1.0) if mean == 0 else (math.copysign(math.inf, mean), 0.0)
    t = mean / math.sqrt((1 / n + test_share) * variance)
    return t, float(2 * stats.t.sf(abs(t), n - 1))


def wilcoxon_signed_rank(differences: NDArray[np.float64]) -> tuple[float, float]:
    """Two-sided Wilcoxon signed-rank test: the smaller sum of ranks, and p.

    Differences of 0 are left out; p is 1 where all are. p is exact up to 13 other differences and,
    without ties, up to 50; else from the normal distribution.
    """
    moved = np.asarray(differences)[np.asarray(differences) != 0]
    if not len(moved):
        return 0.0, 1.0
    result = stats.wilcoxon(moved)
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
    A row a method other than the reference, in the order of ``rows``: method, reference, metric,
    n (common replicates), mean_difference (method minus reference), t_p (corrected resampled
    t-test), t_p_holm (corrected for the number of methods), wilcoxon_p; the p-values are NaN below
    two common replicates.

    Raises
    ------
    ValueError
        A method has several rows for one replicate.
    """
    values = rows.pivot(index="replicate", columns="method", values=metric)
    found = []
    for method in dict.fromkeys(rows["method"]):
        if method == reference:
            continue
        # Equal differences of accuracies may differ in the last bit; ranks must see them as ties.
        differences = (values[method] - values[reference]).dropna().to_numpy(float).round(12)
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
    table = pd.DataFrame(found, columns=list(_COLUMNS)).astype(_COLUMNS)
    return table.assign(t_p_holm=holm(table["t_p"].to_numpy()))
