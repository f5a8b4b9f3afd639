"""Robustness to label noise: area under the curve, noise level at which 5 % accuracy is lost."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from mmlab.comparison.paired_tests import TEST_SHARE
from mmlab.comparison.result_table import ResultRow
from mmlab.trial.evaluate import CLASSIFIERS, CLEAN_PREFIX

#: Loss, as a share of the value without noise, that defines :func:`loss_level`.
LOSS_SHARE = 0.05
#: Metrics whose curves are summarised: both classifiers in both experiments of the paper.
ROBUSTNESS_METRICS = tuple(
    f"{kind}{name}/accuracy" for name in CLASSIFIERS for kind in ("", CLEAN_PREFIX)
)
_CONFIDENCE = 0.95
_RESAMPLES = 2000


def fill_clean_metrics(row: ResultRow) -> ResultRow:
    """Return a row with the metrics of the clean classifiers filled in at noise level 0.

    At level 0 the classifiers are fitted on true labels anyway: ``clean_knn/...`` equals
    ``knn/...``. Rows of other levels are returned unchanged.
    """
    if row["noise_level"] > 0:
        return row
    clean: ResultRow = {}
    for key, value in row.items():
        first, _, last = key.partition("/")
        if first in CLASSIFIERS:
            clean[CLEAN_PREFIX + key] = value
        elif last in CLASSIFIERS:
            clean[f"{first}/{CLEAN_PREFIX}{last}"] = value
    return row | clean


def area_under_curve(
    levels: NDArray[np.float64], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the area under each curve divided by the range of the levels: the mean value.

    The area is computed with the trapezoidal rule.

    Parameters
    ----------
    levels
        Noise levels, ascending, shape (n_levels,).
    values
        Values at the levels, shape (n_curves, n_levels).

    Returns
    -------
    Shape (n_curves,).
    """
    return np.asarray(np.trapezoid(values, levels, axis=1) / (levels[-1] - levels[0]))


def loss_level(levels: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """Return the level at which a curve first falls to 95 % of its first value.

    The curve is interpolated linearly between the levels. Infinite if it does not fall that far.
    """
    floor = (1 - LOSS_SHARE) * values[0]
    below = np.flatnonzero(values <= floor)
    if not len(below) or values[0] <= 0:
        return np.inf
    right = int(below[0])
    left = right - 1
    share = (values[left] - floor) / (values[left] - values[right])
    return float(levels[left] + share * (levels[right] - levels[left]))


def robustness_table(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Return the robustness of every method to label noise.

    Parameters
    ----------
    rows
        One row per method, replicate and noise level: columns method, replicate, noise_level and
        :data:`ROBUSTNESS_METRICS`.
    seed
        Seed of the bootstrap.

    Returns
    -------
    One row per method and metric, with these columns. Intervals are NaN for a single replicate.

    method, metric
        What was measured.
    n
        Number of replicates that have all levels.
    clean
        Mean without noise.
    auc, auc_low, auc_high
        Mean area under the curve and its 95 % confidence interval by the t distribution. As the
        splits share cells, the variance is corrected as in
        :func:`mmlab.comparison.paired_tests.corrected_resampled_t_test`.
    loss_level, loss_level_low, loss_level_high
        :func:`loss_level` of the mean curve and its 95 % interval, percentiles of a bootstrap over
        replicates (too narrow if these are few). Infinite: not reached within the levels.
    """
    records = []
    for method, group in rows.groupby("method", sort=False):
        for metric in ROBUSTNESS_METRICS:
            curves = group.pivot(index="replicate", columns="noise_level", values=metric).dropna()
            if len(curves) and curves.shape[1] > 1:
                levels = curves.columns.to_numpy(float)
                summary = _summarise_curves(levels, curves.to_numpy(float), seed)
                records.append({"method": method, "metric": metric, "n": len(curves), **summary})
    return pd.DataFrame(records)


def _summarise_curves(
    levels: NDArray[np.float64], values: NDArray[np.float64], seed: int
) -> dict[str, float]:
    """Summarise the curves of one method and metric, ``values`` of shape (n_curves, n_levels)."""
    areas, n = area_under_curve(levels, values), len(values)
    mean, half, ends = float(areas.mean()), np.nan, (np.nan, np.nan)
    if n > 1:
        quantile = stats.t.ppf(0.5 + _CONFIDENCE / 2, n - 1)
        half = float(quantile * np.sqrt((1 / n + TEST_SHARE) * areas.var(ddof=1)))
        resamples = np.random.default_rng(seed).integers(n, size=(_RESAMPLES, n))
        levels_lost = [loss_level(levels, values[chosen].mean(axis=0)) for chosen in resamples]
        tail = 50 * (1 - _CONFIDENCE)
        # Levels can be infinite: inverted_cdf picks one of them and does not interpolate.
        ends = tuple(np.percentile(levels_lost, [tail, 100 - tail], method="inverted_cdf"))
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
    """Return the :func:`robustness_table` of a method as ``auc/...`` and ``loss_level/...``."""
    return {
        f"{name}/{row['metric']}": float(row[name])
        for row in curves.to_dict(orient="records")
        for name in ("auc", "loss_level")
    }
