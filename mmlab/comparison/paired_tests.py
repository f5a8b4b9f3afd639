"""Paired statistical tests between methods that were evaluated on the same splits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

#: Ratio of test cells to the cells that the classifiers are fitted on, in a 70/10/20 split.
TEST_SHARE = 0.2 / 0.8
#: Level of all confidence intervals.
CONFIDENCE = 0.95

#: Name of the test.
TEST = "corrected resampled t-test"
_COLUMNS = {
    "method": "object",
    "reference": "object",
    "metric": "object",
    "n": "int64",
    "mean_difference": "float64",
    "low": "float64",
    "high": "float64",
    "p": "float64",
    "p_holm": "float64",
    "test": "object",
}


def corrected_resampled_t_test(
    differences: NDArray[np.float64], test_share: float = TEST_SHARE
) -> tuple[float, float]:
    """Run a two-sided corrected resampled t-test on paired differences over random splits.

    Random splits of the same cells overlap, so the differences are not independent. The variance
    is therefore multiplied by 1/n + test_share instead of 1/n.

    Parameters
    ----------
    differences
        One difference per split, at least two.
    test_share
        Number of test cells over number of training cells.

    Returns
    -------
    t and p, with n - 1 degrees of freedom. If all differences are equal (to 1e-12, as accuracies
    may differ in the last bit), their variance is 0: then p is 1 if they are 0. Else p is NaN,
    because a variance that a few splits do not show is not known to be 0.

    Raises
    ------
    ValueError
        There are fewer than two differences.

    References
    ----------
    Nadeau & Bengio, Machine Learning (2003).
    """
    n = len(differences)
    if n < 2:
        raise ValueError(f"a t-test needs at least two differences, got {n}")
    mean, variance = float(np.mean(differences)), float(np.var(differences, ddof=1))
    if np.ptp(differences) < 1e-12:
        return (0.0, 1.0) if abs(mean) < 1e-12 else (math.copysign(math.inf, mean), math.nan)
    t = mean / math.sqrt((1 / n + test_share) * variance)
    return t, float(2 * stats.t.sf(abs(t), n - 1))


def corrected_half_width(
    values: NDArray[np.float64], test_share: float = TEST_SHARE
) -> NDArray[np.float64]:
    """Return half the width of the 95 % confidence interval of a mean over random splits.

    The interval belongs to :func:`corrected_resampled_t_test`: it excludes 0 if p < 0.05.

    Parameters
    ----------
    values
        One value per split, at least two, shape (n, ...).

    Returns
    -------
    Shape (...).
    """
    n = len(values)
    scale = math.sqrt(1 / n + test_share) * stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1)
    return np.asarray(scale * np.std(values, axis=0, ddof=1))


def holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return p-values corrected for multiple testing by Holm's step-down method; NaN stays NaN."""
    corrected = np.full(len(p_values), np.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    return corrected


def paired_tests(rows: pd.DataFrame, metric: str, reference: str) -> pd.DataFrame:
    """Test every method against a reference, over the replicates that both have.

    Parameters
    ----------
    rows
        One row per method and replicate: columns method, replicate and the metric.
    metric
        Column to compare.
    reference
        Method that the others are compared with.

    Returns
    -------
    One row per method other than the reference, in the order of ``rows``, with these columns.
    With fewer than two common replicates, or if all differences are equal and not 0, low, high and
    the p-values are NaN.

    method, reference, metric
        What was compared.
    n
        Number of common replicates.
    mean_difference
        Mean over the common replicates of method minus reference.
    low, high
        95 % confidence interval of the difference.
    p, p_holm
        p-value, and p-value with Holm's correction for the number of tested methods.
    test
        Name of the test: :func:`corrected_resampled_t_test`.

    Raises
    ------
    ValueError
        A method has more than one row for a replicate.
    """
    values = rows.pivot(index="replicate", columns="method", values=metric)
    records = []
    for method in dict.fromkeys(rows["method"]):
        if method == reference:
            continue
        differences = (values[method] - values[reference]).dropna().to_numpy(float)
        mean = float(differences.mean()) if len(differences) else math.nan
        half, p = math.nan, math.nan
        if len(differences) > 1:
            _, p = corrected_resampled_t_test(differences)
            half = math.nan if math.isnan(p) else float(corrected_half_width(differences))
        records.append(
            {
                "method": method,
                "reference": reference,
                "metric": metric,
                "n": len(differences),
                "mean_difference": mean,
                "low": mean - half,
                "high": mean + half,
                "p": p,
                "test": TEST,
            }
        )
    return corrected_table(records)


def corrected_table(records: list[dict[str, Any]]) -> pd.DataFrame:
    """Return tests against one reference as a table, with p_holm: Holm's correction of all p.

    ``records`` contains one test per method, with all columns of :func:`paired_tests` but p_holm.
    """
    table = pd.DataFrame(records, columns=list(_COLUMNS)).astype(_COLUMNS)
    return table.assign(p_holm=holm(table["p"].to_numpy()))
