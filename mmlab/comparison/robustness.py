"""Robustness to label noise: area under the curve, noise level at which 5 % accuracy is lost."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmlab.comparison.paired_tests import corrected_half_width
from mmlab.comparison.result_table import ResultRow
from mmlab.trial.evaluate import CLASSIFIERS, CLEAN_PREFIX

#: Loss, as a share of the value without noise, that defines :func:`loss_level`.
LOSS_SHARE = 0.05
#: Metrics whose curves are summarised: both classifiers in both experiments of the paper.
ROBUSTNESS_METRICS = tuple(
    f"{kind}{name}/accuracy" for name in CLASSIFIERS for kind in ("", CLEAN_PREFIX)
)
#: Number of equal steps between the lowest and the highest level at which the ends of
#: :func:`loss_interval` are searched.
_STEPS = 2000


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


def loss_interval(levels: NDArray[np.float64], values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % confidence interval of the :func:`loss_level` of the expected curve.

    The interval inverts a test, as Fieller's theorem does for a ratio of means. At each level, the
    difference d between a curve and 95 % of its first value has an expected value of 0 if this
    level is the loss level. The interval contains every level at which the confidence interval of
    the mean of d (:func:`mmlab.comparison.paired_tests.corrected_half_width`) contains 0, and all
    levels between these. It is as reliable with few curves as that interval is.

    Parameters
    ----------
    levels
        Noise levels, ascending, shape (n_levels,).
    values
        Values of at least two curves at the levels, shape (n_curves, n_levels).

    Returns
    -------
    low and high, rounded outwards to a multiple of 1/2000 of the range of the levels. Low is
    infinite if no loss of 5 % is compatible with the curves; high is infinite if a loss of less
    than 5 % at the last level is.

    References
    ----------
    Fieller, Journal of the Royal Statistical Society B (1954).
    """
    grid = np.linspace(levels[0], levels[-1], _STEPS + 1)
    curves = np.stack([np.interp(grid, levels, curve) for curve in values])
    d = curves - (1 - LOSS_SHARE) * values[:, :1]
    mean, half = d.mean(axis=0), corrected_half_width(d)
    lost, not_lost = np.flatnonzero(mean - half <= 0), np.flatnonzero(mean + half >= 0)
    low = grid[max(lost[0] - 1, 0)] if len(lost) else np.inf
    high = np.inf if not_lost[-1] == _STEPS else grid[not_lost[-1] + 1]
    return float(low), float(high)


def robustness_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the robustness of every method to label noise.

    Parameters
    ----------
    rows
        One row per method, replicate and noise level: columns method, replicate, noise_level and
        :data:`ROBUSTNESS_METRICS`.

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
        Mean area under the curve and its 95 % confidence interval by the t distribution, within
        0 to 1. As the splits share cells, the variance is corrected as in
        :func:`mmlab.comparison.paired_tests.corrected_resampled_t_test`.
    loss_level, loss_level_low, loss_level_high
        :func:`loss_level` of the mean curve, and :func:`loss_interval`. Infinite: not reached
        within the levels.
    """
    records = []
    for method, group in rows.groupby("method", sort=False):
        for metric in ROBUSTNESS_METRICS:
            curves = group.pivot(index="replicate", columns="noise_level", values=metric).dropna()
            if len(curves) and curves.shape[1] > 1:
                levels = curves.columns.to_numpy(float)
                summary = _summarise_curves(levels, curves.to_numpy(float))
                records.append({"method": method, "metric": metric, "n": len(curves), **summary})
    return pd.DataFrame(records)


def _summarise_curves(levels: NDArray[np.float64], values: NDArray[np.float64]) -> dict[str, float]:
    """Summarise the curves of one method and metric, ``values`` of shape (n_curves, n_levels)."""
    areas = area_under_curve(levels, values)
    mean, half, (low, high) = float(areas.mean()), np.nan, (np.nan, np.nan)
    if len(values) > 1:
        half, (low, high) = float(corrected_half_width(areas)), loss_interval(levels, values)
    return {
        "clean": float(values[:, 0].mean()),
        "auc": mean,
        "auc_low": max(mean - half, 0.0),
        "auc_high": min(mean + half, 1.0),
        "loss_level": loss_level(levels, values.mean(axis=0)),
        "loss_level_low": low,
        "loss_level_high": high,
    }


def robustness_metrics(curves: pd.DataFrame) -> dict[str, float]:
    """Return the :func:`robustness_table` of a method as ``auc/...`` and ``loss_level/...``."""
    return {
        f"{name}/{row['metric']}": float(row[name])
        for row in curves.to_dict(orient="records")
        for name in ("auc", "loss_level")
    }
