"""How methods bear wrong labels: area under the curve, and the noise that costs them 5 %."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from mmlab.comparison.paired_tests import TEST_SHARE
from mmlab.comparison.result_table import ResultRow
from mmlab.trial.evaluate import CLASSIFIERS, CLEAN_PREFIX

#: Share of its clean value that a metric has lost at the level which :func:`robustness` finds.
LOSS_SHARE = 0.05
#: Metrics whose curves are summarised: both experiments of the paper, both classifiers.
ROBUSTNESS_METRICS = tuple(
    f"{kind}{name}/accuracy" for name in CLASSIFIERS for kind in ("", CLEAN_PREFIX)
)
_CONFIDENCE = 0.95
_RESAMPLES = 2000


def with_clean_classifiers(row: ResultRow) -> ResultRow:
    """A row; without noise the classifiers of both experiments are the same."""
    if row["noise_level"] > 0:
        return row
    same: ResultRow = {}
    for key, value in row.items():
        first, _, last = key.partition("/")
        if first in CLASSIFIERS:
            same[CLEAN_PREFIX + key] = value
        elif last in CLASSIFIERS:
            same[f"{first}/{CLEAN_PREFIX}{last}"] = value
    return row | same


def area_under_curve(
    levels: NDArray[np.float64], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Area under curves by the trapezoidal rule, over the length of the levels: a mean value.

    Parameters
    ----------
    levels
        Ascending, shape (n_levels,).
    values
        Shape (n_curves, n_levels).
    """
    return np.asarray(np.trapezoid(values, levels, axis=1) / (levels[-1] - levels[0]))


def loss_level(levels: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """The level at which a curve first falls to 95 % of its first value, between the levels.

    Straight lines join the levels; infinite if it does not fall so far.
    """
    floor = (1 - LOSS_SHARE) * values[0]
    below = np.flatnonzero(values <= floor)
    if not len(below) or values[0] <= 0:
        return np.inf
    right = int(below[0])
    left = right - 1
    share = (values[left] - floor) / (values[left] - values[right])
    return float(levels[left] + share * (levels[right] - levels[left]))


def robustness(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """What label noise costs every method.

    Parameters
    ----------
    rows
        A row a replicate and level: columns method, replicate, noise_level and the metrics of
        :data:`ROBUSTNESS_METRICS`.
    seed
        Of the bootstrap.

    Returns
    -------
    Columns method, metric, n (replicates that have all levels), clean (mean without noise), auc,
    auc_low, auc_high (95 % confidence interval by the t distribution; as the splits share cells,
    the variance is corrected as in :func:`mmlab.comparison.paired_tests.corrected_resampled_t_test`), loss_level,
    loss_level_low, loss_level_high (of the mean curve; percentiles of a bootstrap of the
    replicates, narrow where these are few; infinite: not within the levels). Intervals are NaN
    for a single replicate.
    """
    found = []
    for method, group in rows.groupby("method", sort=False):
        for metric in ROBUSTNESS_METRICS:
            curves = group.pivot(index="replicate", columns="noise_level", values=metric).dropna()
            if len(curves) and curves.shape[1] > 1:
                numbers = _summary(curves.columns.to_numpy(float), curves.to_numpy(float), seed)
                found.append({"method": method, "metric": metric, "n": len(curves), **numbers})
    return pd.DataFrame(found)


def _summary(
    levels: NDArray[np.float64], values: NDArray[np.float64], seed: int
) -> dict[str, float]:
    areas, n = area_under_curve(levels, values), len(values)
    mean, half, ends = float(areas.mean()), np.nan, (np.nan, np.nan)
    if n > 1:
        quantile = stats.t.ppf(0.5 + _CONFIDENCE / 2, n - 1)
        half = float(quantile * np.sqrt((1 / n + TEST_SHARE) * areas.var(ddof=1)))
        drawn = np.random.default_rng(seed).integers(n, size=(_RESAMPLES, n))
        lost = [loss_level(levels, values[chosen].mean(axis=0)) for chosen in drawn]
        tail = 50 * (1 - _CONFIDENCE)
        # Levels that are never reached are infinite: no mean of two of them is taken.
        ends = tuple(np.percentile(lost, [tail, 100 - tail], method="inverted_cdf"))
    return {
        "clean": float(values[:, 0].mean()),
        "auc": mean,
        "auc_low": max(mean - half, 0.0),
        "auc_high": min(mean + half, 1.0),
        "loss_level": loss_level(levels, values.mean(axis=0)),
        "loss_level_low": float(ends[0]),
        "loss_level_high": float(ends[1]),
    }


def robustness_metrics(curves: pd.DataFrame) -> dict[str, float]:
    """One method's part of :func:`robustness` as metrics: ``auc/...`` and ``loss_level/...``."""
    return {
        f"{name}/{row['metric']}": float(row[name])
        for row in curves.to_dict(orient="records")
        for name in ("auc", "loss_level")
    }
